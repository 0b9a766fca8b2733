"""The forward process and its inversions, as pure functions of alpha and sigma.

One convention everywhere: `x_t = alpha * x0 + sigma * eps`, t in [0, 1], 1 = pure noise.
Flow matching has alpha = 1 - t and sigma = t; its velocity is `eps - x0`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class NoiseLevel(NamedTuple):
    """Signal and noise coefficients, each [B, 1, 1, 1] (never the guidance scale)."""

    alpha: Tensor
    sigma: Tensor


def flow_level(t: Tensor) -> NoiseLevel:
    """Flow matching: t [B] in [0, 1] -> (1 - t, t)."""
    t = t.view(-1, 1, 1, 1)
    return NoiseLevel(1 - t, t)


def ddpm_index(t: Tensor, num_levels: int = 1000) -> Tensor:
    """t [B] in [0, 1] -> index of the discrete schedule, int64 [B]: round(num_levels * t) - 1.

    t = 1, .75, .5, .25 are DMD2's 999, 749, 499, 249. It has no clean level: index 0 is the least.
    """
    return ((num_levels * t).round().long() - 1).clamp(min=0)


def ddpm_level(alphas_cumprod: Tensor) -> Callable[[Tensor], NoiseLevel]:
    """DDPM: alpha^2 per index, [1000] -> a function t [B] -> (alpha, sigma), sigma^2 = 1 - alpha^2.

    In the wider dtype of `alphas_cumprod` and t.
    """

    def level(t: Tensor) -> NoiseLevel:
        index = ddpm_index(t, len(alphas_cumprod))
        dtype = torch.promote_types(alphas_cumprod.dtype, t.dtype)
        signal = alphas_cumprod.to(t.device, dtype)[index].view(-1, 1, 1, 1)
        return NoiseLevel(signal.sqrt(), (1 - signal).sqrt())

    return level


def renoise(x0: Tensor, level: NoiseLevel, eps: Tensor) -> Tensor:
    """The forward process: x_t = alpha * x0 + sigma * eps, all [B, C, H, W]."""
    return level.alpha * x0 + level.sigma * eps


def x0_from_eps(eps: Tensor, x_t: Tensor, level: NoiseLevel) -> Tensor:
    """x0 of a noise prediction: (x_t - sigma * eps) / alpha, where alpha > 0."""
    return (x_t - level.sigma * eps) / level.alpha


def x0_from_v(v: Tensor, x_t: Tensor, level: NoiseLevel) -> Tensor:
    """x0 of a v-prediction `alpha * eps - sigma * x0`: alpha * x_t - sigma * v, at alpha = 0 too.

    For alpha^2 + sigma^2 = 1 (Salimans and Ho, 2022).
    """
    return level.alpha * x_t - level.sigma * v


def x0_from_velocity(velocity: Tensor, x_t: Tensor, level: NoiseLevel) -> Tensor:
    """x0 of a velocity prediction `eps - x0`: x_t - sigma * velocity, for alpha + sigma = 1."""
    return x_t - level.sigma * velocity


def eps_from_x0(x0: Tensor, x_t: Tensor, level: NoiseLevel) -> Tensor:
    """The noise that x0 implies: (x_t - alpha * x0) / sigma, where sigma > 0."""
    return (x_t - level.alpha * x0) / level.sigma


def velocity_weight(level: NoiseLevel) -> Tensor:
    """What makes a squared error of x0 the velocity's, [B, 1, 1, 1]: 1 / sigma^2.

    Bounded where sigma vanishes and an x0 error means nothing.
    """
    return 1 / level.sigma.clamp(min=0.05).square()


def eps_weight(level: NoiseLevel) -> Tensor:
    """What makes a squared error of x0 the noise's, [B, 1, 1, 1]: alpha^2 / sigma^2."""
    return (level.alpha / level.sigma).square()


def v_weight(level: NoiseLevel) -> Tensor:
    """What makes a squared error of x0 that of v, [B, 1, 1, 1]: 1 / sigma^2, where sigma > 0."""
    return 1 / level.sigma.square()


def guided(uncond: Tensor, cond: Tensor, guidance_scale: float) -> Tensor:
    """Guidance in SDXL's form (Eq. 4): uncond + g * (cond - uncond); g = 1 is no guidance."""
    return uncond + guidance_scale * (cond - uncond)
