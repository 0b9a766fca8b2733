"""What is recorded of every update: the signs of drift come here before they reach the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddmd_bench.objective.terms import Direction, Renoising

NUM_TAU_BUCKETS = 4
EPSILON = 1e-8  # least norm that a cosine is divided by

Array = NDArray[Any]


def _per_image(
    x0: Tensor, step: Tensor, direction: Direction, renoisings: tuple[Renoising | None, ...]
) -> dict[str, Array]:
    """Every image's numbers, [B] in float64, in one transfer from the device."""
    x0 = x0.float()
    mean = x0.mean(dim=(1, 2, 3), keepdim=True)
    variance = (x0 - mean).square().mean(dim=(1, 2, 3))  # torch.var takes ten times as long
    saturation = (x0.abs() > 1).float().mean(dim=(1, 2, 3))
    found = {"step": step, "mean": mean.flatten(), "variance": variance, "saturation": saturation}
    for name, term, renoising in zip(
        ("dm", "ca"), (direction.dm, direction.ca), renoisings, strict=True
    ):
        if term is not None and renoising is not None:
            found[f"{name}_norm"] = torch.linalg.vector_norm(term.float(), dim=(1, 2, 3))
            found[f"{name}_tau"] = renoising.tau
    if direction.dm is not None and direction.ca is not None:
        inner = direction.dm.float() * direction.ca.float()
        found["inner"] = inner.sum(dim=(1, 2, 3))
    table = torch.stack([values.double() for values in found.values()]).cpu().numpy()
    return dict(zip(found, table, strict=True))


def _mean_by(group: Array, values: Array, num_groups: int) -> Array:
    """Mean of the values [B] in each group, NaN where there are none: missing."""
    num = np.bincount(group, minlength=num_groups)
    return np.bincount(group, values, num_groups) / num


def _std_by(group: Array, mean: Array, variance: Array, size: int, num_groups: int) -> Array:
    """Standard deviation of all values in each group of images of `size` values, from the images'
    moments [B]; unbiased over the group, NaN where it is empty."""
    group_mean = _mean_by(group, mean, num_groups)
    biased = _mean_by(group, variance + (mean - group_mean[group]) ** 2, num_groups)
    num = size * np.bincount(group, minlength=num_groups)
    return np.sqrt(biased * num / (num - 1))


def _numbered(name: str, values: Array) -> dict[str, float]:
    return {f"{name}{k}": float(value) for k, value in enumerate(values)}


@torch.no_grad()
def update_diagnostics(
    x0: Tensor,
    step: Tensor,
    num_steps: int,
    direction: Direction,
    renoisings: tuple[Renoising | None, ...],
) -> dict[str, float]:
    """One row: statistics of the student's x0 [B, C, H, W], norms of the terms, their cosine.

    Norms are root mean squares before weights and normalisation, averaged over the batch, and again
    by quarters of tau; NaN where a term, a quarter or a step is missing. `saturation` is the share
    of values outside [-1, 1].
    """
    images = _per_image(x0, step, direction, renoisings)
    moments, size = (images["mean"], images["variance"]), x0[0].numel()
    of_step = images["step"].astype(int)
    row: dict[str, float] = {}
    with np.errstate(invalid="ignore"):  # 0 / 0: the mean of no value
        row["x0_mean"] = float(images["mean"].mean())
        row["x0_std"] = float(_std_by(np.zeros_like(of_step), *moments, size, 1)[0])
        row["saturation"] = float(images["saturation"].mean())
        row["dm_ca_cosine"] = math.nan
        row |= _numbered("x0_std_step", _std_by(of_step, *moments, size, num_steps))
        for name in ("dm", "ca"):
            quarters = np.full(NUM_TAU_BUCKETS, math.nan)
            row[f"{name}_norm"] = math.nan
            if f"{name}_norm" in images:
                norm = images[f"{name}_norm"] / size**0.5
                tau = images[f"{name}_tau"] * NUM_TAU_BUCKETS
                bucket = tau.astype(int).clip(max=NUM_TAU_BUCKETS - 1)
                row[f"{name}_norm"] = float(norm.mean())
                quarters = _mean_by(bucket, norm, NUM_TAU_BUCKETS)
            row |= _numbered(f"{name}_norm_tau", quarters)
    if "inner" in images:
        norms = np.maximum(images["dm_norm"], EPSILON) * np.maximum(images["ca_norm"], EPSILON)
        row["dm_ca_cosine"] = float((images["inner"] / norms).mean())
    return row
