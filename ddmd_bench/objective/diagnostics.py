"""What is recorded of every update: the signs of drift come here before they reach the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddmd_bench.objective.terms import Direction, Renoising

NUM_TAU_BUCKETS = 4
EPSILON = 1e-8  # least norm that a cosine is divided by

Array = NDArray[Any]


@torch.no_grad()
def sample_diagnostics(
    x0: Tensor,
    step: Tensor,
    direction: Direction,
    renoisings: tuple[Renoising | None, ...],
    losses: Mapping[str, Tensor],
) -> dict[str, Array]:
    """Every sample's numbers, [B] in float64, in one transfer from the device.

    x0: the student's, [B, C, H, W]; losses: [B] each.
    """
    x0 = x0.float()
    mean = x0.mean(dim=(1, 2, 3), keepdim=True)
    variance = (x0 - mean).square().mean(dim=(1, 2, 3))  # torch.var takes ten times as long
    beyond = (x0.abs() > 1).float().mean(dim=(1, 2, 3))
    found = {"step": step, "mean": mean.flatten(), "variance": variance, "beyond": beyond}
    for name, term, renoising in zip(
        ("dm", "ca"), (direction.dm, direction.ca), renoisings, strict=True
    ):
        if term is not None and renoising is not None:
            found[f"{name}_norm"] = torch.linalg.vector_norm(term.float(), dim=(1, 2, 3))
            found[f"{name}_tau"] = renoising.tau
    if direction.dm is not None and direction.ca is not None:
        inner = direction.dm.float() * direction.ca.float()
        found["inner"] = inner.sum(dim=(1, 2, 3))
    found |= losses
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


def joined(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The numbers of all samples of an update, from those of its parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def update_diagnostics(images: Mapping[str, Array], num_steps: int, size: int) -> dict[str, float]:
    """One row of an update's samples: statistics of x0, norms of the terms, their cosine, losses.

    images: of all its samples, `sample_diagnostics`; size: the values of one sample's x0. Norms are
    root mean squares before weights and normalisation, averaged over the samples, and again by
    quarters of tau; NaN where a term, a quarter or a step is missing. `x0_beyond_1` is the share of
    values outside [-1, 1]: of images what clipping cuts off, of latents nothing of the kind.
    """
    moments = (images["mean"], images["variance"])
    of_step = images["step"].astype(int)
    losses = {name: values for name, values in images.items() if name.startswith("loss_")}
    row = {name: float(values.mean()) for name, values in losses.items()}
    with np.errstate(invalid="ignore"):  # 0 / 0: the mean of no value
        row["x0_mean"] = float(images["mean"].mean())
        row["x0_std"] = float(_std_by(np.zeros_like(of_step), *moments, size, 1)[0])
        row["x0_beyond_1"] = float(images["beyond"].mean())
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
