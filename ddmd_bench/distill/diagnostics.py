"""What is recorded of every update: the signs of drift come here before they reach the images."""

from __future__ import annotations

import torch
from torch import Tensor

from ddmd_bench.distill.terms import Direction, Draw

NUM_TAU_BUCKETS = 4


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each sample: [B, C, H, W] -> [B]."""
    return x.float().square().mean(dim=(1, 2, 3)).sqrt()


def _by_bucket(name: str, values: Tensor, tau: Tensor) -> dict[str, float]:
    bucket = (tau * NUM_TAU_BUCKETS).long().clamp(max=NUM_TAU_BUCKETS - 1)
    return {
        f"{name}_tau{k}": float(values[bucket == k].mean()) for k in range(NUM_TAU_BUCKETS)
    }  # the mean of no value is NaN: missing


@torch.no_grad()
def update_diagnostics(
    x0: Tensor, step: Tensor, num_steps: int, direction: Direction, draws: tuple[Draw | None, ...]
) -> dict[str, float]:
    """One row: statistics of the student's x0 [B, C, H, W], norms of the terms, their cosine.

    Norms are root mean squares before normalisation, averaged over the batch, and again by
    quarters of tau. `saturation` is the share of values outside [-1, 1].
    """
    x0 = x0.float()
    row = {
        "x0_mean": float(x0.mean()),
        "x0_std": float(x0.std()),
        "saturation": float((x0.abs() > 1).float().mean()),
        "dm_ca_cosine": float("nan"),
    }
    row |= {f"x0_std_step{k}": float(x0[step == k].std()) for k in range(num_steps)}
    for name, term, draw in zip(("dm", "ca"), (direction.dm, direction.ca), draws, strict=True):
        if term is None or draw is None:
            row[f"{name}_norm"] = float("nan")
            row |= {f"{name}_norm_tau{k}": float("nan") for k in range(NUM_TAU_BUCKETS)}
        else:
            norm = _rms(term)
            row[f"{name}_norm"] = float(norm.mean())
            row |= _by_bucket(f"{name}_norm", norm, draw.tau)
    if direction.dm is not None and direction.ca is not None:
        cosine = torch.cosine_similarity(direction.dm.flatten(1), direction.ca.flatten(1))
        row["dm_ca_cosine"] = float(cosine.mean())
    return row
