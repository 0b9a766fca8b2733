"""Fréchet distance extrapolated to infinitely many images (Chong and Forsyth 2020).

At n images it has a bias of about c / n, with a c of each generator's own; a line through the
distances at several n meets 1/n = 0 where there is none left.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import Factored
from ddmd_bench.stats.frechet_wide import wide_distance, wide_estimate
from ddmd_bench.stats.influence import Estimate, estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import (
    Interval,
    PairedDifference,
    value_alone,
)

NUM_POINTS = 15  # the authors' own, as is half of 10,000 for the fewest


class _Line(NamedTuple):
    """Where a line meets 0, with the standard error that its own scatter gives it."""

    intercept: float
    error: float


def _sizes(n: int) -> NDArray[np.int64]:
    return np.linspace(n // 2, n, NUM_POINTS).astype(np.int64)


def _curve(real: Factored, features: NDArray[Any]) -> Array:
    """Distances [NUM_POINTS] of subsets; which images they hold depends on n alone."""
    generator = np.random.default_rng(0)
    n = len(features)
    subsets = [np.sort(generator.choice(n, size, replace=False)) for size in _sizes(n)]
    return np.array([wide_distance(real, features[subset]) for subset in subsets])


def _extrapolated(curve: Array, n: int) -> _Line:
    """Ordinary least squares in 1 / size."""
    design = np.stack([np.ones(NUM_POINTS), 1 / _sizes(n)], 1)
    solve = np.linalg.pinv(design)  # [2, NUM_POINTS]
    line = solve @ curve
    variance = np.square(curve - design @ line).sum() / (NUM_POINTS - 2)
    return _Line(float(line[0]), math.sqrt(float(variance * np.square(solve[0]).sum())))


def infinity_value(real: Factored, features: NDArray[Any]) -> float:
    """The extrapolated distance of features [n, d], which may lie below 0; needs n / 2 > d.

    Half of n to n images in 15 equal steps, random subsets, ordinary least squares in 1/n.
    """
    return _extrapolated(_curve(real, features), len(features)).intercept


def infinity_interval(real: Factored, features: NDArray[Any], groups: NDArray[Any]) -> Interval:
    """With a 95 % t-interval over prompts, the real images fixed.

    Its standard error adds, as squares, that of the distance at n from the images' influences and
    that of the line's intercept. The bias shifts the distance and hardly its spread.
    """
    line = _extrapolated(_curve(real, features), len(features))
    estimate = wide_estimate(real, features)._replace(value=line.intercept)
    return estimate_interval(estimate, groups, line.error)


class Curve(NamedTuple):
    """Of one student, what a difference needs."""

    distances: Array  # [NUM_POINTS]
    influence: Array  # [n] of the distance at all images; empty where no interval is wanted


def infinity_curve(real: Factored, features: NDArray[Any], resampled: bool) -> Curve:
    """Of features [n, d]; the same subsets for every student of as many images."""
    influence = wide_estimate(real, features).influence if resampled else np.empty(0)
    return Curve(_curve(real, features), influence)


def infinity_difference(
    a: Curve, b: Curve, groups: NDArray[Any], seed: int, resampled: bool
) -> PairedDifference:
    """a - b with the same subsets, so that the line is fitted to the difference; see above."""
    n = len(groups)
    line = _extrapolated(a.distances - b.distances, n)
    if not resampled:
        return value_alone(line.intercept, n)
    of_a, of_b = Estimate(line.intercept, a.influence), Estimate(0.0, b.influence)
    return estimate_difference(of_a, of_b, groups, line.error)
