"""Fréchet distance of many prompts: intervals from the influences of images, none resampled.

A bootstrap's resample costs as much as the distance and its sums of each prompt P * d^2 numbers;
influences cost one more distance, and their memory grows with the images alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.frechet import (
    Gaussian,
    RealFeatures,
    frechet_distance,
    gaussian_of,
    same_prompts,
)
from ddmd_bench.stats.frechet_wide import wide_estimate
from ddmd_bench.stats.influence import Estimate, estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import Array, Interval, PairedDifference
from ddmd_bench.stats.moments import factored


class _Joint(NamedTuple):
    """The distance with the influences of all images that are drawn with the prompts."""

    estimate: Estimate  # of n + m images: the student's, then the real ones that are drawn
    groups: NDArray[Any]  # [n + m] prompt ids


def _joint(real: RealFeatures, features: NDArray[Any], groups: NDArray[Any]) -> _Joint:
    """The distance is symmetric: real images have influences as the student's have."""
    own = gaussian_of(features)
    if real.fixed is not None:
        value = frechet_distance(Gaussian(real.fixed.mean, real.fixed.cov), own)
        return _Joint(wide_estimate(real.fixed, features)._replace(value=value), groups)
    same_prompts(real.groups, groups)
    theirs = gaussian_of(real.features)
    sides = [
        wide_estimate(factored(theirs), features).influence,
        wide_estimate(factored(own), real.features).influence,
    ]
    # Each side moves the value by its own mean, whatever its share of all images.
    total = sum(map(len, sides))
    influence: Array = np.concatenate([(x - x.mean()) * (total / len(x)) for x in sides])
    estimate = Estimate(frechet_distance(theirs, own), influence)
    return _Joint(estimate, np.concatenate([groups, real.groups]))


def many_interval(real: RealFeatures, features: NDArray[Any], groups: NDArray[Any]) -> Interval:
    """Distance of features [n, d] with a 95 % t-interval over prompts, never below 0.

    Real images are drawn with their prompts, but for a reference that is fixed.
    """
    interval = estimate_interval(*_joint(real, features, groups))
    return interval._replace(low=float(np.maximum(interval.low, 0.0)), n=len(features))


def many_difference(
    a: NDArray[Any], b: NDArray[Any], real: RealFeatures, groups: NDArray[Any]
) -> PairedDifference:
    """Distance of a minus distance of b: t-interval over the prompts and the t-test's p."""
    of_a, of_b = (_joint(real, features, groups) for features in (a, b))
    found = estimate_difference(of_a.estimate, of_b.estimate, of_a.groups)
    return found._replace(n=len(a))
