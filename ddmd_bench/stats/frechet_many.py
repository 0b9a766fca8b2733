"""Fréchet distance of many prompts: intervals from the influences of images, none resampled.

A bootstrap's resample costs as much as the distance and its sums of each prompt P * d^2 numbers;
influences cost one more distance, and their memory grows with the images alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import (
    Gaussian,
    RealFeatures,
    frechet_distance,
    gaussian_of,
    same_prompts,
)
from ddmd_bench.stats.frechet_wide import wide_estimate
from ddmd_bench.stats.influence import Estimate, estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import (
    Interval,
    PairedDifference,
)
from ddmd_bench.stats.moments import factored


class Joint(NamedTuple):
    """The distance with the influences of all images that are drawn with the prompts."""

    estimate: Estimate  # of n + m images: the student's, then the real ones that are drawn
    groups: NDArray[Any]  # [n + m] prompt ids
    num_images: int  # n


def joint(real: RealFeatures, features: NDArray[Any], groups: NDArray[Any]) -> Joint:
    """The distance is symmetric: real images have influences as the student's have."""
    own = gaussian_of(features)
    if real.fixed is not None:
        value = frechet_distance(Gaussian(real.fixed.mean, real.fixed.cov), own)
        return Joint(
            wide_estimate(real.fixed, features)._replace(value=value), groups, len(features)
        )
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
    return Joint(estimate, np.concatenate([groups, real.groups]), len(features))


def many_interval(real: RealFeatures, features: NDArray[Any], groups: NDArray[Any]) -> Interval:
    """Distance of features [n, d] with a 95 % t-interval over prompts, never below 0.

    Real images are drawn with their prompts, but for a reference that is fixed.
    """
    found = joint(real, features, groups)
    interval = estimate_interval(found.estimate, found.groups)
    return interval._replace(low=float(np.maximum(interval.low, 0.0)), n=found.num_images)


def joint_difference(a: Joint, b: Joint) -> PairedDifference:
    """a - b of the same prompts and real images: t-interval over the prompts, the t-test's p."""
    found = estimate_difference(a.estimate, b.estimate, a.groups)
    return found._replace(n=a.num_images)
