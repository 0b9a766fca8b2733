"""Fréchet distance between Gaussians fitted to features, with intervals over prompts.

Intervals are a bootstrap's, for up to `MANY_PROMPTS`; `frechet_many` has those of more. Float64 and
symmetric eigenvalues throughout: a general matrix square root of a near-singular product leaves
imaginary parts that have to be thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.stats.ends import QUANTILES, Array
from ddmd_bench.stats.intervals import (
    Interval,
    PairedDifference,
    two_sided_p,
    value_alone,
)
from ddmd_bench.stats.resampling import prompt_counts

NUM_RESAMPLES = 200


class Gaussian(NamedTuple):
    """Statistics of a set of features, float64."""

    mean: Array  # [d]
    cov: Array  # [d, d]


class Factored(NamedTuple):
    """A Gaussian with a factor of its covariance, which takes longer to make than all the rest."""

    mean: Array  # [d]
    cov: Array  # [d, d]
    factor: Array  # [d, d], the lower triangle L with L L^T = cov


class RealFeatures(NamedTuple):
    """Features of real images, with the prompt that each belongs to."""

    features: NDArray[Any]  # [m, d]; m = 0 where their Gaussian alone is known
    groups: NDArray[Any]  # [m] prompt ids
    # Of images that belong to no prompt of the suite: their Gaussian, which no resample changes.
    fixed: Factored | None = None
    num_stated: int | None = None  # of how many images a Gaussian alone is said to be

    @property
    def num_images(self) -> int | None:
        """How many real images there are; None where nobody says of how many the Gaussian is."""
        alone = self.fixed is not None and not len(self.features)
        return self.num_stated if alone else len(self.features)


def gaussian_of(features: NDArray[Any]) -> Gaussian:
    """Mean and covariance (n - 1) of features [n, d]."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise BenchError(f"a Gaussian needs features [n >= 2, d], found shape {features.shape}")
    mean = features.mean(0)
    centred = features - mean
    return Gaussian(mean, centred.T @ centred / (len(features) - 1))


def symmetric_root(cov: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(cov)
    root: Array = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _trace_root(product: Array) -> float:
    """tr M^1/2 of a symmetric positive semi-definite M [d, d]."""
    return float(np.sqrt(np.linalg.eigvalsh(product).clip(min=0)).sum())


def _distance(a: Gaussian, root: Array, b: Gaussian) -> float:
    """Distance of b to a, whose covariance has the given root."""
    gap = a.mean - b.mean
    cross = _trace_root(root @ b.cov @ root)
    return float(gap @ gap) + float(np.trace(a.cov)) + float(np.trace(b.cov)) - 2 * cross


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2 (Dowson and Landau 1982)."""
    if a.mean.shape != b.mean.shape:
        raise BenchError(
            f"a Fréchet distance needs equal features, found {a.mean.shape} and {b.mean.shape}"
        )
    # Rounding may leave the distance of equal sets just below 0.
    return max(_distance(a, symmetric_root(a.cov), b), 0.0)


def _resampled(features: Array, index: NDArray[Any], counts: Array) -> Iterator[Gaussian]:
    """Gaussians of features [n, d] whose prompts count as each row of counts [resamples, P] says.

    Sums and second moments of each prompt are kept, P * d^2 numbers, so that all resamples are one
    matrix product.
    """
    d = features.shape[1]
    origin = features.mean(0)  # moments about a near point lose no digits
    ends = np.bincount(index).cumsum()
    parts = np.split((features - origin)[np.argsort(index, kind="stable")], ends[:-1])
    n = counts @ np.array([len(part) for part in parts], np.float64)
    means = counts @ np.stack([part.sum(0) for part in parts]) / n[:, None]
    moments = counts @ np.stack([(part.T @ part).ravel() for part in parts])
    for total, mean, moment in zip(n, means, moments, strict=True):
        cov = (moment.reshape(d, d) - total * np.outer(mean, mean)) / (total - 1)
        yield Gaussian(mean + origin, cov)


def reference_gaussian(reference: Gaussian | RealFeatures) -> Gaussian:
    """The Gaussian of all real images, whatever their prompts."""
    return reference if isinstance(reference, Gaussian) else gaussian_of(reference.features)


def _bootstrap(
    students: Sequence[Array],
    reference: Gaussian | RealFeatures,
    groups: NDArray[Any],
    seed: int,
    resamples: int,
) -> Array:
    """Distances [students, resamples]; all students and `RealFeatures` share the prompts drawn."""
    prompts, index = np.unique(groups, return_inverse=True)
    counts = np.concatenate(list(prompt_counts(len(prompts), resamples, seed)))
    references: Iterator[tuple[Gaussian, Array]]
    if isinstance(reference, Gaussian):
        references = repeat((reference, symmetric_root(reference.cov)), resamples)
    else:
        features, real_groups = _checked(reference.features, reference.groups)
        same_prompts(real_groups, prompts)
        real_index = np.unique(real_groups, return_inverse=True)[1]
        resampled = _resampled(features, real_index, counts)
        references = ((real, symmetric_root(real.cov)) for real in resampled)
    own = [_resampled(features, index, counts) for features in students]
    rows = [
        [_distance(real, root, student) for student in drawn]
        for (real, root), drawn in zip(references, zip(*own, strict=True), strict=True)
    ]
    return np.array(rows).T


def same_prompts(real_groups: NDArray[Any], groups: NDArray[Any]) -> None:
    """Real images can be drawn with their prompts only where those are the students' own."""
    known, prompts = np.unique(real_groups), np.unique(groups)
    if not np.array_equal(known, prompts):
        raise BenchError(
            f"a reference must hold the students' own prompts: it has {len(known)}, "
            f"they have {len(prompts)}, {len(np.intersect1d(known, prompts))} are in both"
        )


def _checked(features: NDArray[Any], groups: NDArray[Any]) -> tuple[Array, NDArray[Any]]:
    features, groups = np.asarray(features, np.float64), np.asarray(groups)
    if features.ndim != 2 or groups.shape != features.shape[:1]:
        raise BenchError(
            f"expected one prompt id per row of features [n, d], found features {features.shape} "
            f"and prompt ids {groups.shape}"
        )
    return features, groups


def _centred_interval(value: float, drawn: Array) -> tuple[float, float]:
    low, high = value + np.quantile(drawn - drawn.mean(), QUANTILES)
    return float(low), float(high)


def frechet_interval(
    features: NDArray[Any],
    reference: Gaussian | RealFeatures,
    groups: NDArray[Any],
    *,
    seed: int,
) -> Interval:
    """Distance of features [n, d] to the reference, with a 95 % bootstrap interval over prompts.

    With `RealFeatures` the real images of the drawn prompts are drawn with them, and the interval
    is about how well the prompts are drawn; against a fixed Gaussian most of the spread would be
    that another choice of prompts has other contents than the reference.

    A resample repeats prompts, which makes its covariance noisier: bootstrap distances lie above
    the distance itself. Only their spread is used: the interval is the point value plus the
    quantiles of (resample - mean of resamples), never below 0. It says how far the value would move
    with other prompts; it does not remove the bias that every Fréchet distance has at finite n.
    """
    features, groups = _checked(features, groups)
    value = frechet_distance(reference_gaussian(reference), gaussian_of(features))
    n = len(features)
    if len(np.unique(groups)) < 2:
        return Interval(value, math.nan, math.nan, n)
    (drawn,) = _bootstrap([features], reference, groups, seed, NUM_RESAMPLES)
    low, high = _centred_interval(value, drawn)
    return Interval(value, max(low, 0.0), high, n)


def frechet_difference(
    features_a: NDArray[Any],
    features_b: NDArray[Any],
    reference: Gaussian | RealFeatures,
    groups: NDArray[Any],
    *,
    seed: int,
    resampled: bool = True,
) -> PairedDifference:
    """Distance of a minus distance of b; both take the same resamples of the shared prompts.

    Interval: centred as in `frechet_interval`. p: two-sided normal approximation with the
    resamples' standard deviation; 200 resamples cannot count the tail. Without `resampled` there
    is the value alone. There is no distance per prompt, so `wins` is NaN.
    """
    features_a, groups = _checked(features_a, groups)
    features_b, _ = _checked(features_b, groups)
    real = reference_gaussian(reference)
    value = frechet_distance(real, gaussian_of(features_a))
    value -= frechet_distance(real, gaussian_of(features_b))
    n = len(features_a)
    if len(np.unique(groups)) < 2 or not resampled:
        return value_alone(value, n)
    students = [features_a, features_b]
    drawn_a, drawn_b = _bootstrap(students, reference, groups, seed, NUM_RESAMPLES)
    low, high = _centred_interval(value, drawn_a - drawn_b)
    spread = float((drawn_a - drawn_b).std(ddof=1))
    p_value = two_sided_p(value, spread, lambda x: math.erfc(x / math.sqrt(2)))
    return PairedDifference(value, low, high, p_value, n, math.nan)
