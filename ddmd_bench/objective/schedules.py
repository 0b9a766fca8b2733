"""Where each term adds noise again (Sec. 4, Tab. 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddmd_bench.objective.methods import BELOW_T, FULL, Schedule

# Highest tau for a student's input at t, within [low, high] of the clipped range.
_UPPER: dict[Schedule, Callable[[Tensor, float], Tensor]] = {
    FULL: lambda t, high: torch.full_like(t, high),
    # Cleaner than t only: coarser content was settled at the earlier steps (Sec. 4.1).
    BELOW_T: lambda t, high: t.clamp(max=high),
}


def tau_of(
    schedule: Schedule, t: Tensor, tau_range: tuple[float, float], uniform: Tensor
) -> Tensor:
    """Noise levels tau [B], uniform on [low, high] or, `below_t`, on [low, min(t, high)].

    t: [B] in [0, 1], 1 = pure noise; uniform: [B], drawn from [0, 1). Where t lies below `low`
    there is room for `low` alone.
    """
    low, high = tau_range
    upper = _UPPER[schedule](t, high).clamp(min=low)
    return low + uniform.to(t) * (upper - low)
