"""What CFG Augmentation has to amplify: how much of a teacher's prediction its prompt decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddmd_bench.objective.process import NoiseLevel, renoise
from ddmd_bench.objective.terms import Cond, Denoise


@torch.no_grad()
def prompt_share(
    teacher: Denoise,
    t_list: Sequence[float],
    cond: Cond,
    uncond: Cond,
    noises: Sequence[Tensor],
    level: Callable[[Tensor], NoiseLevel],
) -> float:
    """Root mean square of cond - uncond over that of cond, in x0 space: the mean over the levels.

    The levels are met on the teacher's own way down, without guidance. noises: one [B, C, H, W] for
    each t. 0 where the prompt decides nothing, so that CA (Eq. 6, second term) vanishes whatever
    the guidance scale.
    """
    x0, shares = noises[0], []
    for k, t in enumerate(t_list):
        t_batch = torch.full((len(x0),), t, device=x0.device)
        x_t = renoise(x0, level(t_batch), noises[k]) if k else noises[0]
        x0 = teacher(x_t, t_batch, cond).double()
        difference = x0 - teacher(x_t, t_batch, uncond).double()
        shares.append(float((difference.square().mean() / x0.square().mean()).sqrt()))
        x0 = x0.to(x_t.dtype)
    return sum(shares) / len(shares)
