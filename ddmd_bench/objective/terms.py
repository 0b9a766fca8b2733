"""The student's direction, taken apart: DM + CA (Eq. 6 and 8), in x0 space.

Everything is an x0 prediction: `denoise(x_t, t, cond) -> x0`, whatever the network predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ddmd_bench.objective.process import NoiseLevel, renoise

Cond = Mapping[str, Tensor]  # text conditioning; every tensor has the batch as first dimension
Denoise = Callable[[Tensor, Tensor, Cond], Tensor]
EPSILON = 1e-8  # least denominator


def dm_direction(x0_fake: Tensor, x0_teacher_cond: Tensor) -> Tensor:
    """Distribution Matching: fake score minus teacher (Eq. 6, first term)."""
    return x0_fake - x0_teacher_cond


def ca_direction(
    x0_teacher_cond: Tensor, x0_teacher_uncond: Tensor, guidance_scale: float
) -> Tensor:
    """CFG Augmentation: -(g - 1) * (cond - uncond) (Eq. 6, second term); no fake score in it."""
    return -(guidance_scale - 1) * (x0_teacher_cond - x0_teacher_uncond)


class Renoising(NamedTuple):
    """One re-noising of the student's x0: level tau [B] and noise eps [B, C, H, W]."""

    tau: Tensor
    eps: Tensor


class Direction(NamedTuple):
    """What moves the student. `dm` and `ca` are None where the method has no such term."""

    total: Tensor  # weighted and normalised
    dm: Tensor | None  # as Eq. 6 has it: neither weighted nor normalised
    ca: Tensor | None


def _mean_distance(x0: Tensor, other: Tensor) -> Tensor:
    """mean over C, H, W of |x0 - other|, [B, 1, 1, 1]; at least in float32."""
    dtype = torch.promote_types(x0.dtype, torch.float32)
    distance = (x0.to(dtype) - other.to(dtype)).abs().mean(dim=(1, 2, 3), keepdim=True)
    # A bound, not a summand: DMD2's value stays exact.
    return distance.clamp(min=EPSILON)


class _Parts(NamedTuple):
    """What a normaliser reads: the terms, and the teacher's conditional x0 where each re-noises."""

    x0: Tensor
    dm: Tensor | None
    ca: Tensor | None
    teacher_dm: Tensor | None
    teacher_ca: Tensor | None


def _guided_norm(p: _Parts) -> tuple[Tensor | float, Tensor | float]:
    """One denominator, mean |x0 - guided teacher x0|: DMD2's where the two renoisings coincide.

    The guided teacher is the conditional x0 at DM's re-noising minus the CA direction at CA's, so
    that decoupled terms need no further network evaluation. The terms' weights leave it alone.
    """
    anchor = p.teacher_dm if p.teacher_dm is not None else p.teacher_ca
    assert anchor is not None
    norm = _mean_distance(p.x0, anchor if p.ca is None else anchor - p.ca)
    return norm, norm


def _per_term_norm(p: _Parts) -> tuple[Tensor | float, Tensor | float]:
    """Each term by mean |x0 - conditional teacher x0| at its own renoising."""
    dm = 1.0 if p.teacher_dm is None else _mean_distance(p.x0, p.teacher_dm)
    ca = 1.0 if p.teacher_ca is None else _mean_distance(p.x0, p.teacher_ca)
    return dm, ca


# name -> (denominator of DM, denominator of CA). The paper names none; DMD2's is `guided`.
NORMALIZERS: dict[str, Callable[[_Parts], tuple[Tensor | float, Tensor | float]]] = {
    "guided": _guided_norm,
    "per_term": _per_term_norm,
    "none": lambda p: (1.0, 1.0),
}


@torch.no_grad()
def student_direction(
    x0: Tensor,
    renoisings: tuple[Renoising | None, Renoising | None],
    cond: Cond,
    uncond: Cond,
    *,
    teacher: Denoise,
    fake_score: Denoise | None,
    fake_cond: Cond,
    level: Callable[[Tensor], NoiseLevel],
    guidance_scale: float,
    weight_dm: float = 1.0,
    weight_ca: float = 1.0,
    normalizer: str = "guided",
) -> Direction:
    """direction = weight_dm * dm / norm + weight_ca * ca / norm (Eq. 8), x0: [B, C, H, W].

    renoisings: (DM's, CA's); None for an absent term. A coupled method gives one twice, and the
    teacher's conditional prediction is then computed once. Each network runs exactly as often as
    they need it.
    """
    renoising_dm, renoising_ca = renoisings
    dm = ca = teacher_dm = teacher_ca = None
    if renoising_dm is not None:
        assert fake_score is not None, "a DM term needs a fake score"
        x_tau = renoise(x0, level(renoising_dm.tau), renoising_dm.eps)
        teacher_dm = teacher(x_tau, renoising_dm.tau, cond)
        dm = dm_direction(fake_score(x_tau, renoising_dm.tau, fake_cond), teacher_dm)
    if renoising_ca is not None:
        x_tau = renoise(x0, level(renoising_ca.tau), renoising_ca.eps)
        teacher_ca = teacher_dm
        if teacher_ca is None or renoising_ca is not renoising_dm:
            teacher_ca = teacher(x_tau, renoising_ca.tau, cond)
        ca = ca_direction(teacher_ca, teacher(x_tau, renoising_ca.tau, uncond), guidance_scale)
    norm_dm, norm_ca = NORMALIZERS[normalizer](_Parts(x0, dm, ca, teacher_dm, teacher_ca))
    total = torch.zeros_like(x0)
    if dm is not None:
        total = total + weight_dm * dm / norm_dm
    if ca is not None:
        total = total + weight_ca * ca / norm_ca
    return Direction(total, dm, ca)


def student_loss(x0: Tensor, direction: Tensor) -> Tensor:
    """[B, C, H, W] -> [B]: 0.5 * mean over C, H, W of (x0 - sg(x0 - direction))^2 (Alg. 1).

    Its gradient in x0 is direction / (C * H * W).
    """
    return 0.5 * (x0 - (x0 - direction).detach()).square().mean(dim=(1, 2, 3))
