"""Memorisation-informed Fréchet distance (Bai et al. 2021): what copies of real images cost.

FID over the memorisation distance d: for each of the student's images 1 - |cosine| to the nearest
real one, averaged over the student's. Where d is not below 0.1 it counts as 1, and there is FID.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.directions import directions
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import Factored
from ddmd_bench.stats.frechet_wide import wide_estimate
from ddmd_bench.stats.influence import Estimate, estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import (
    Interval,
    PairedDifference,
    mean_interval,
    value_alone,
)

THRESHOLD = 0.1  # of the competition's own code and of torchmetrics
# Of torchmetrics: what keeps the quotient finite, and below which two sets are the same.
LEAST, SAME = 1e-14, 1e-8
BLOCK = 1_000  # rows at a time: 80 MB against 10,000 columns


class Informed(NamedTuple):
    """A value with its influences, and whether they hold: d is surely on one side of 0.1."""

    estimate: Estimate
    settled: bool


def nearest_distances(real: NDArray[Any], features: NDArray[Any]) -> Array:
    """1 - |cosine| of each of the features [n, d] to the nearest of the real [m, d]: [n], >= 0."""
    own, there = directions(features), directions(real).T
    blocks = (np.abs(own[k : k + BLOCK] @ there).max(1) for k in range(0, len(own), BLOCK))
    nearest: Array = np.maximum(1 - np.concatenate(list(blocks)), 0.0)
    return nearest


def informed(
    real: NDArray[Any], fixed: Factored, features: NDArray[Any], groups: NDArray[Any]
) -> Informed:
    """Of features [n >= 2, d] beside the real [m, d] and their Gaussian, which stay as they are.

    The influences of FID / d are, to first order, (those of FID - FID / d times those of d) / d.
    There are none where another choice of prompts could have d on the other side of 0.1, where the
    value jumps: where the 95 % interval of d reaches over it.
    """
    fid, distances = wide_estimate(fixed, features), nearest_distances(real, features)
    mean, low, high, _ = mean_interval(distances, groups)
    settled = not low < THRESHOLD <= high
    if fid.value <= SAME:
        return Informed(Estimate(0.0, np.zeros(len(distances))), settled)
    if mean >= THRESHOLD:
        return Informed(fid, settled)
    divisor = mean + LEAST
    value = fid.value / divisor
    return Informed(Estimate(value, (fid.influence - value * distances) / divisor), settled)


def informed_interval(found: Informed, groups: NDArray[Any]) -> Interval:
    """95 % t-interval over prompts, never below 0; none where it is not settled."""
    interval = estimate_interval(found.estimate, groups)
    if not found.settled:
        return interval._replace(low=np.nan, high=np.nan)
    return interval._replace(low=float(np.maximum(interval.low, 0.0)))  # NaN stays


def informed_difference(
    a: Informed, b: Informed, groups: NDArray[Any], seed: int, resampled: bool
) -> PairedDifference:
    """a - b over images of the same prompts, as of other influences; the value alone where either
    is not settled."""
    if not (resampled and a.settled and b.settled):
        return value_alone(a.estimate.value - b.estimate.value, len(groups))
    return estimate_difference(a.estimate, b.estimate, groups)
