"""Every distance between a student's images and real ones: `DISTANCES`, a row for each.

Intervals and differences are over the suite's prompts, which are drawn; real images that belong to
the prompts are drawn with them in `frechet`, and stay as they are in all other rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats import manifold
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import (
    Factored,
    Gaussian,
    RealFeatures,
    frechet_difference,
    frechet_distance,
    frechet_interval,
    gaussian_of,
    reference_gaussian,
)
from ddmd_bench.stats.frechet_infinity import (
    infinity_curve,
    infinity_difference,
    infinity_interval,
    infinity_value,
)
from ddmd_bench.stats.frechet_many import Joint, joint, joint_difference, many_interval
from ddmd_bench.stats.frechet_wide import wide_distance, wide_estimate, wide_interval
from ddmd_bench.stats.influence import (
    Estimate,
    estimate_difference,
    estimate_interval,
    share_difference,
    share_interval,
)
from ddmd_bench.stats.intervals import (
    Bounds,
    Interval,
    PairedDifference,
    mean_interval,
    paired_difference,
    value_alone,
)
from ddmd_bench.stats.kernel import gaussian_estimate, kernel_estimate
from ddmd_bench.stats.memorisation import (
    Informed,
    informed,
    informed_difference,
    informed_interval,
)
from ddmd_bench.stats.moments import factored
from ddmd_bench.stats.resampling import MANY_PROMPTS

Features = NDArray[Any]  # [n, d]
Groups = NDArray[Any]  # [n] prompt ids
Value = Callable[[Features, RealFeatures], float]
IntervalOf = Callable[[Features, RealFeatures, Groups, int], Interval]  # seed last
# The last is whether there is an interval over prompts at all.
Examine = Callable[[Features, RealFeatures, Groups, bool], Any]
Compare = Callable[[Any, Any, Groups, int, bool], PairedDifference]  # of two examined; seed


@dataclass(frozen=True)
class Distance:
    """How a student's features are compared with real ones.

    What a difference needs of one student is `examine`d once, whomever it is compared with.
    """

    value: Value
    interval: IntervalOf
    examine: Examine
    compare: Compare
    fewest: Callable[[int], int]  # images of either side, given the number of features
    # Whether of real images that belong to no prompt more is needed than their Gaussian.
    needs_features: bool = True

    def difference(
        self,
        a: Features,
        b: Features,
        real: RealFeatures,
        groups: Groups,
        seed: int,
        resampled: bool,
    ) -> PairedDifference:
        """Distance of a minus distance of b, over images of the same prompts."""
        of_a, of_b = (self.examine(features, real, groups, resampled) for features in (a, b))
        return self.compare(of_a, of_b, groups, seed, resampled)


def _many(groups: Groups) -> bool:
    return len(np.unique(groups)) > MANY_PROMPTS


def _narrow(real: RealFeatures) -> Gaussian | RealFeatures:
    """What the resampling functions take; real images of no prompt are not drawn with any."""
    return real if real.fixed is None else Gaussian(real.fixed.mean, real.fixed.cov)


def _frechet_value(features: Features, real: RealFeatures) -> float:
    return frechet_distance(reference_gaussian(_narrow(real)), gaussian_of(features))


def _frechet_interval(
    features: Features, real: RealFeatures, groups: Groups, seed: int
) -> Interval:
    if _many(groups):
        return many_interval(real, features, groups)
    return frechet_interval(features, _narrow(real), groups, seed=seed)


def _frechet_examined(
    features: Features, real: RealFeatures, groups: Groups, resampled: bool
) -> Joint | tuple[Features, Gaussian | RealFeatures]:
    if resampled and _many(groups):
        return joint(real, features, groups)
    return features, _narrow(real)  # both students take the same resamples


def _frechet_compared(
    a: Any, b: Any, groups: Groups, seed: int, resampled: bool
) -> PairedDifference:
    if isinstance(a, Joint):
        return joint_difference(a, b)
    (features_a, real), (features_b, _) = a, b
    return frechet_difference(features_a, features_b, real, groups, seed=seed, resampled=resampled)


def _by_influences(
    difference: Callable[[Estimate, Estimate, Groups], PairedDifference],
) -> Compare:
    """Of two estimates; where it is not asked for an interval, the values alone."""

    def compared(
        a: Estimate, b: Estimate, groups: Groups, seed: int, resampled: bool
    ) -> PairedDifference:
        if not resampled:
            return value_alone(a.value - b.value, len(groups))
        return difference(a, b, groups)

    return compared


def _fixed(real: RealFeatures) -> Factored:
    return real.fixed or factored(gaussian_of(real.features))


def _wide_examined(
    features: Features, real: RealFeatures, groups: Groups, resampled: bool
) -> Estimate:
    if resampled:
        return wide_estimate(_fixed(real), features)
    return Estimate(wide_distance(_fixed(real), features), np.empty(0))


def _informed(features: Features, real: RealFeatures, groups: Groups) -> Informed:
    return informed(real.features, _fixed(real), features, groups)


def _by_kernel(estimate: Callable[[Features, Features], Estimate]) -> Distance:
    """A discrepancy by a kernel, whose intervals over prompts are from influences; it takes the
    real features, then own ones."""
    return Distance(
        lambda features, real: estimate(real.features, features).value,
        lambda features, real, groups, seed: estimate_interval(
            estimate(real.features, features), groups
        ),
        lambda features, real, groups, resampled: estimate(real.features, features),
        _by_influences(estimate_difference),
        lambda num_features: 2,
    )


def _share_of(estimate: Callable[[Features, Features, Groups], Estimate], fewest: int) -> Distance:
    """Shares of real images, whose intervals over prompts are from influences.

    `estimate` takes real features, own, prompts.
    """

    def value(features: Features, real: RealFeatures) -> float:
        return estimate(real.features, features, np.arange(len(features))).value

    def interval(features: Features, real: RealFeatures, groups: Groups, seed: int) -> Interval:
        return share_interval(estimate(real.features, features, groups), groups)

    return Distance(
        value,
        interval,
        lambda features, real, groups, resampled: estimate(real.features, features, groups),
        _by_influences(share_difference),
        lambda num_features: fewest,
    )


def _mean_of(
    values: Callable[[Features, Features], Array], fewest: int, bounds: Bounds
) -> Distance:
    """Means over images, each of which has a value of its own: intervals as of any image metric."""

    def value(features: Features, real: RealFeatures) -> float:
        return float(values(real.features, features).mean())

    def interval(features: Features, real: RealFeatures, groups: Groups, seed: int) -> Interval:
        return mean_interval(values(real.features, features), groups, bounds)

    def compared(
        a: Array, b: Array, groups: Groups, seed: int, resampled: bool
    ) -> PairedDifference:
        return paired_difference(a, b, groups, seed=seed, bounds=bounds, tested=resampled)

    return Distance(
        value,
        interval,
        lambda features, real, groups, resampled: values(real.features, features),
        compared,
        lambda num_features: fewest,
    )


DISTANCES = {
    # Real images are drawn with their prompts, by a bootstrap or, of more than `MANY_PROMPTS`, by
    # their influences; for covariances of full rank.
    "frechet": Distance(
        _frechet_value,
        _frechet_interval,
        _frechet_examined,
        _frechet_compared,
        lambda num_features: num_features + 1,
        needs_features=False,
    ),
    # Of the real images the next two take the Gaussian alone; nothing is drawn.
    "frechet_wide": Distance(
        lambda features, real: wide_distance(_fixed(real), features),
        lambda features, real, groups, seed: wide_interval(_fixed(real), features, groups),
        _wide_examined,
        _by_influences(estimate_difference),
        lambda num_features: 2,
        needs_features=False,
    ),
    "frechet_infinity": Distance(
        lambda features, real: infinity_value(_fixed(real), features),
        lambda features, real, groups, seed: infinity_interval(_fixed(real), features, groups),
        lambda features, real, groups, resampled: infinity_curve(_fixed(real), features, resampled),
        infinity_difference,
        # The fewest of the line's points, half of all, must leave the covariance its rank.
        lambda num_features: 2 * (num_features + 1),
        needs_features=False,
    ),
    "frechet_memorisation": Distance(
        lambda features, real: _informed(features, real, np.arange(len(features))).estimate.value,
        lambda features, real, groups, seed: informed_interval(
            _informed(features, real, groups), groups
        ),
        lambda features, real, groups, resampled: _informed(features, real, groups),
        informed_difference,
        lambda num_features: 2,
    ),
    "kernel": _by_kernel(kernel_estimate),
    "gaussian_kernel": _by_kernel(gaussian_estimate),
    "precision": _mean_of(
        manifold.precision_values, manifold.PRECISION_NEIGHBOURS + 1, bounds=(0, 1)
    ),
    "recall": _share_of(manifold.recall_estimate, manifold.PRECISION_NEIGHBOURS + 1),
    "density": _mean_of(
        manifold.density_values, manifold.DENSITY_NEIGHBOURS + 1, bounds=(0, math.inf)
    ),
    "coverage": _share_of(manifold.coverage_estimate, manifold.DENSITY_NEIGHBOURS + 1),
}
