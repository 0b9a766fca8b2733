"""The forward process and its inversions, as pure functions of alpha and sigma.

One convention everywhere: `x_t = alpha * x0 + sigma * eps`, t in [0, 1], 1 = pure noise.
Flow matching has alpha = 1 - t and sigma = t; its velocity is `eps - x0`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class NoiseLevel(NamedTuple):
    """Signal and noise coefficients, each [B, 1, 1, 1] (never the guidance scale)."""

    alpha: Tensor
    sigma: Tensor


def flow_level(t: Tensor) -> NoiseLevel:
    """Flow matching: t [B] in [0, 1] -> (1 - t, t)."""
    t = t.view(-1, 1, 1, 1)
    return NoiseLevel(1 - t, t)


def renoise(x0: Tensor, level: NoiseLevel, eps: Tensor) -> Tensor:
    """The forward process: x_t = alpha * x0 + sigma * eps, all [B, C, H, W]."""
    return level.alpha * x0 + level.sigma * eps


def x0_from_velocity(velocity: Tensor, x_t: Tensor, level: NoiseLevel) -> Tensor:
    """x0 of a velocity prediction `eps - x0`: x_t - sigma * velocity, for alpha + sigma = 1."""
    return x_t - level.sigma * velocity


def guided(uncond: Tensor, cond: Tensor, guidance_scale: float) -> Tensor:
    """Guidance in SDXL's form (Eq. 4): uncond + g * (cond - uncond); g = 1 is no guidance."""
    return uncond + guidance_scale * (cond - uncond)
