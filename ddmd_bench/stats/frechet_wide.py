"""Fréchet distance in many features (FID has 2,048) to real images that stay as they are.

With fewer images than features everything happens in the n x n Gram matrix; the square root of the
real covariance comes from the reference, which keeps it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.frechet import (
    NUM_RESAMPLES,
    Rooted,
    centred_interval,
    resampled_difference,
)
from ddmd_bench.stats.influence import Estimate, estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import Array, Interval, PairedDifference, prompt_counts


def _positive(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which eigenvalues, in rising order, are not 0 but for rounding."""
    threshold = float(values[-1]) * len(values) * float(np.finfo(np.float64).eps)
    return np.asarray(values > threshold)


def _trace_root(product: Array) -> float:
    """tr M^1/2 of a symmetric positive semi-definite M, whose rank may be far from full.

    What rounding makes of an eigenvalue 0 is left out: the root of 1e-16 is 1e-8, a thousand times.
    """
    values = np.linalg.eigvalsh(product)
    return float(np.sqrt(values[_positive(values)]).sum())


class _Centred(NamedTuple):
    """Features about their mean, and where that is seen from the real mean."""

    x: Array  # [n, d]
    gap: Array  # [d]


def _centred(real: Rooted, features: NDArray[Any]) -> _Centred:
    x = np.asarray(features, np.float64)
    mean = x.mean(0)
    return _Centred(x - mean, mean - real.mean)


def wide_distance(real: Rooted, features: NDArray[Any]) -> float:
    """Fréchet distance of features [n >= 2, d] to a Gaussian, float64.

    tr (A^1/2 B A^1/2)^1/2 with B = X^T X / (n - 1) has the eigenvalues of X A X^T / (n - 1) as
    well: n of them instead of d where n <= d.
    """
    x, gap = _centred(real, features)
    n, d = x.shape
    rooted = x @ real.root
    product = (rooted @ rooted.T if n <= d else rooted.T @ rooted) / (n - 1)
    traces = float(np.trace(real.cov)) + float(np.square(x).sum()) / (n - 1)
    distance: float = float(gap @ gap) + traces - 2 * _trace_root(product)
    return max(distance, 0.0)


def wide_estimate(real: Rooted, features: NDArray[Any]) -> Estimate:
    """The distance with the influence of each image, for n > d: one eigen-decomposition.

    With z = x - m_b the derivative towards a point mass at x is
    2 (m_b - m_a) z + z^T z - z^T A^1/2 (A^1/2 B A^1/2)^-1/2 A^1/2 z + constant.
    """
    x, gap = _centred(real, features)
    n = len(x)
    rooted = x @ real.root
    values, vectors = np.linalg.eigh(rooted.T @ rooted / (n - 1))
    # Where the images do not vary there is nothing to divide by, and the numerator is 0 as well.
    kept = _positive(values)
    roots = np.sqrt(values[kept])
    quadratic = np.square(rooted @ (vectors[:, kept] / np.sqrt(roots))).sum(1)
    squares = np.square(x).sum(1)
    traces = float(np.trace(real.cov)) + float(squares.sum()) / (n - 1)
    value = max(float(gap @ gap) + traces - 2 * float(roots.sum()), 0.0)
    return Estimate(value, 2 * (x @ gap) + squares - quadratic)


class _Gram(NamedTuple):
    """All that the distance needs of n images when each counts as often as a resample says."""

    own: Array  # [n, n] X X^T
    crossed: Array  # [n, n] X A X^T
    towards: Array  # [n] X (m - m_a)
    gap: float  # |m - m_a|^2
    trace: float  # tr A


def _gram(real: Rooted, features: NDArray[Any]) -> _Gram:
    x, gap = _centred(real, features)
    rooted = x @ real.root
    return _Gram(x @ x.T, rooted @ rooted.T, x @ gap, float(gap @ gap), float(np.trace(real.cov)))


def _weighted_distance(gram: _Gram, weights: Array) -> float:
    """The distance where image i counts weights[i] times; those that do not count cost nothing."""
    here = np.flatnonzero(weights)
    w, block = weights[here], np.ix_(here, here)
    n = float(w.sum())
    own, crossed = gram.own[block], gram.crossed[block]
    shift = float(w @ own @ w) / n**2  # |mean of the resample - mean of all|^2
    gap = gram.gap + 2 * float(w @ gram.towards[here]) / n + shift
    trace = (float(w @ np.diagonal(own)) - n * shift) / (n - 1)
    means = crossed @ w / n
    centred = crossed - means - means[:, None] + float(w @ means) / n
    roots = np.sqrt(w)
    cross = _trace_root(centred * roots * roots[:, None] / (n - 1))
    return gap + gram.trace + trace - 2 * cross


def _drawn(
    real: Rooted, features: NDArray[Any], groups: NDArray[Any], seed: int, resamples: int
) -> Array:
    """Distances [resamples]; equal prompts and seeds draw equal resamples."""
    prompts, index = np.unique(groups, return_inverse=True)
    gram = _gram(real, features)
    counts = prompt_counts(len(prompts), resamples, seed)
    return np.array([_weighted_distance(gram, row[index]) for row in counts])


def wide_interval(
    real: Rooted,
    features: NDArray[Any],
    groups: NDArray[Any],
    *,
    seed: int,
    resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Distance of features [n, d] with a 95 % interval over prompts, the real images fixed.

    n <= d: bootstrap over prompts through the Gram matrix, centred on the value as in
    `frechet_interval`. n > d: t-interval from the images' influences, over prompts. Either says how
    far the value would move with other prompts of the same kind; neither removes the bias that
    the distance has at finite n, which is the same for students with equally many images.
    """
    n, d = features.shape
    if n > d:
        interval = estimate_interval(wide_estimate(real, features), groups)
    else:
        value = wide_distance(real, features)
        if len(np.unique(groups)) < 2:
            return Interval(value, math.nan, math.nan, n)
        low, high = centred_interval(value, _drawn(real, features, groups, seed, resamples))
        interval = Interval(value, low, high, n)
    return interval._replace(low=max(interval.low, 0.0))


def wide_difference(
    features_a: NDArray[Any],
    features_b: NDArray[Any],
    real: Rooted,
    groups: NDArray[Any],
    *,
    seed: int,
    resamples: int = NUM_RESAMPLES,
) -> PairedDifference:
    """Distance of a minus distance of b on the same prompts; interval as in `wide_interval`.

    n <= d: both take the same resamples, p is the normal approximation with their standard
    deviation. n > d: the influences are subtracted image by image, p is the t-test's over prompts.
    Without resamples there is the value alone.
    """
    n, d = features_a.shape
    if not resamples or len(np.unique(groups)) < 2:
        value = wide_distance(real, features_a) - wide_distance(real, features_b)
        return PairedDifference(value, math.nan, math.nan, math.nan, n, math.nan)
    if n > d:
        return estimate_difference(
            wide_estimate(real, features_a), wide_estimate(real, features_b), groups
        )
    value = wide_distance(real, features_a) - wide_distance(real, features_b)
    drawn_a, drawn_b = (_drawn(real, f, groups, seed, resamples) for f in (features_a, features_b))
    return resampled_difference(value, drawn_a - drawn_b, n)
