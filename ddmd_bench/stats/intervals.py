"""Means, paired differences and the correction for many of them.

Prompts are the independent units: images of one prompt resemble each other, so that counting them
as independent would make every interval too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.stats.ends import (
    Array,
    Ends,
    correlation_of,
    difference_ends,
    share_ends,
    skewed_ends,
    skewness_of,
    t_ends,
)
from ddmd_bench.stats.resampling import sign_flip_p_value

Bounds = tuple[float, float]  # between which values lie

UNBOUNDED = (-math.inf, math.inf)
PRIOR_PROMPTS = 2
MEASURED = 1 / 20  # a mean of twenty independent answers


class Interval(NamedTuple):
    """A value with its 95 % interval; `n` images went into it."""

    value: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """a - b on the same prompts and noise, with its 95 % interval; `n` pairs of images."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    wins: float  # share of prompts where a > b, plus half the ties
    wins_low: float = math.nan
    wins_high: float = math.nan


def value_alone(value: float, n: int, wins: float = math.nan) -> PairedDifference:
    """A difference that has no interval; `wins` is NaN where no prompt has a value of its own."""
    return PairedDifference(value, math.nan, math.nan, math.nan, n, wins)


def standard_error(residuals: Array, n: int) -> float:
    """Of a mean over n images, from residuals [P], each the sum over a prompt's images.

    The cluster-robust one, sqrt(P / (P - 1) * sum_g r_g^2) / n; with equally many images per prompt
    it is that of the P prompt means. One prompt has none: NaN.
    """
    num_prompts = len(residuals)
    if num_prompts < 2:
        return math.nan
    return math.sqrt(num_prompts / (num_prompts - 1) * float(residuals @ residuals)) / n


def t_interval(value: float, error: float, num_prompts: int, n: int) -> Interval:
    """95 % t-interval over prompts; low and high are NaN where the error is."""
    return Interval(value, *t_ends(value, error, num_prompts), n)


def two_sided_p(value: float, error: float, tail: Callable[[float], float]) -> float:
    """Both tails beyond |value| / error; where nothing varies 1 for no difference, else NaN."""
    if error > 0:
        return tail(abs(value) / error)
    return 1.0 if value == error == 0 else math.nan


def per_prompt(values: Array, groups: NDArray[Any]) -> tuple[Array, Array]:
    """Sum and number of the values of each prompt, NaN skipped: [num_prompts] each."""
    if values.ndim != 1 or values.shape != groups.shape:
        raise BenchError(
            f"statistics: expected one prompt id per value, found values {values.shape} "
            f"and prompt ids {groups.shape}"
        )
    present = ~np.isnan(values)
    _, index = np.unique(groups[present], return_inverse=True)
    sums = np.bincount(index, values[present]).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def mean_interval(
    values: NDArray[Any], groups: NDArray[Any], bounds: Bounds | None = None
) -> Interval:
    """Mean over images [n] with its 95 % interval over prompts; NaN values are skipped.

    That of answers (`_answers`) is a share's (`share_ends`), that of all others a skewed mean's
    (`skewed_ends`). Never beyond a bound. One prompt has no standard error: low and high are NaN.
    """
    values, groups = np.asarray(values, np.float64), np.asarray(groups)
    sums, counts = per_prompt(values, groups)
    n, num_prompts = int(counts.sum()), len(sums)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(sums.sum() / n)
    if num_prompts < 2:
        return Interval(value, math.nan, math.nan, n)
    lowest, highest = bounds or UNBOUNDED
    if _answers(values, lowest, highest):
        width = highest - lowest
        found = _share((values - lowest) / width, groups)
        return Interval(value, lowest + width * found.low, lowest + width * found.high, n)
    residuals = sums - value * counts
    error = standard_error(residuals, n)
    low, high = skewed_ends(value, error, skewness_of(residuals), num_prompts)
    return Interval(value, max(low, lowest), min(high, highest), n)


def _answers(values: Array, lowest: float, highest: float) -> bool:
    """Whether values between two finite bounds vary as answers do, yes or no or shares of several.

    Measurements, as shares of pixels are, vary less than a `MEASURED` part of what yes or no would.
    """
    if not math.isfinite(highest - lowest):
        return False
    value = float(np.nanmean(values))
    most = (value - lowest) * (highest - value)
    return float(np.nanmean(np.square(values - value))) >= MEASURED * most


class _Share(NamedTuple):
    """A mean of values in [0, 1] with its interval, and what it leaves of each prompt."""

    value: float
    low: float
    high: float
    residuals: Array  # [P]


def _share(values: Array, groups: NDArray[Any], largest: float = 1.0) -> _Share:
    """Of values [n] in [0, 1], of two prompts or more; NaN skipped.

    Few prompts that differ know badly how alike a prompt's images are, and where they happen to
    differ the interval would be too narrow: the variance over prompts is drawn towards that of
    prompts whose images are all alike, as if `PRIOR_PROMPTS` had shown it beside the effective
    number of those that vary.
    """
    sums, counts = per_prompt(values, groups)
    n, num_prompts = counts.sum(), len(sums)
    value = float(sums.sum() / n)
    residuals = sums - value * counts
    known = effective_number(residuals)
    variance = standard_error(residuals, int(n)) ** 2
    of_images = float(np.nanmean(np.square(values - value)))
    alike = of_images * float(counts @ counts) / n**2 * num_prompts / (num_prompts - 1)
    variance = (known * variance + PRIOR_PROMPTS * alike) / (known + PRIOR_PROMPTS)
    most = value * (1 - value)
    number = (most / variance if variance else math.inf) if most else num_prompts
    return _Share(value, *share_ends(value, number, num_prompts, largest), residuals)


def paired_difference(
    a: NDArray[Any],
    b: NDArray[Any],
    groups: NDArray[Any],
    *,
    seed: int,
    bounds: Bounds | None = None,
    tested: bool = True,
) -> PairedDifference:
    """Mean of a - b over images [n] that share prompt and noise; a pair with a NaN is skipped.

    Interval: the t-interval over prompts; of answers (`_answers`) `_share_difference`.
    p: two-sided sign-flip permutation of the prompts' differences, (1 + as extreme) /
    (1 + permutations), so that it is never 0. Where it is not `tested` there is the value alone.
    """
    a, b, groups = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(groups)
    if a.shape != b.shape:
        raise BenchError(f"a paired difference needs the same images, found {a.shape}, {b.shape}")
    sums, counts = per_prompt(a - b, groups)
    num_prompts, n = len(sums), int(counts.sum())
    if n == 0:
        return value_alone(math.nan, 0)
    value = float(sums.sum() / n)
    wins = float(np.mean((sums > 0) + 0.5 * (sums == 0)))
    if num_prompts < 2 or not tested:
        return value_alone(value, n, wins)
    lowest, highest = bounds or UNBOUNDED
    if _answers(a, lowest, highest) or _answers(b, lowest, highest):
        width = highest - lowest
        low, high = (width * end for end in _share_difference((a - b) / width, groups))
    else:
        error = standard_error(sums - value * counts, n)
        low, high = t_ends(value, error, num_prompts)
    p_value = sign_flip_p_value(sums, seed)
    won = _share_difference(np.sign(sums), np.arange(num_prompts))
    return PairedDifference(value, low, high, p_value, n, wins, *((1 + end) / 2 for end in won))


def _share_difference(differences: Array, groups: NDArray[Any]) -> Ends:
    """Of differences [n] in [-1, 1] of images: how much a is ahead, less how much b is.

    Either is a mean in [0, 1]; one that is 0 everywhere has the limit of unseen prompts, which
    differ by no more than those that were seen.
    """
    largest = float(np.nanmax(np.abs(differences))) or 1.0
    ahead, behind = (_share(np.maximum(x, 0), groups, largest) for x in (differences, -differences))
    correlation = correlation_of(ahead.residuals, behind.residuals)
    low, high = difference_ends(ahead[:3], behind[:3], correlation)
    return max(low, -1.0), min(high, 1.0)


def effective_number(residuals: Array) -> float:
    """How many of the residuals [P] carry their sum of squares: (sum r^2)^2 / sum r^4.

    Kish's effective sample size (1965) of the weights r^2: P where all are as large, P / 3 of
    normal ones, the number of ones among zeros; 0 where all are 0.
    """
    largest = float(np.abs(residuals).max())
    if largest == 0:
        return 0.0
    squares = np.square(residuals / largest)
    return float(squares.sum() ** 2 / (squares @ squares))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given; NaN stays NaN and does not count."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[k] = largest
    return adjusted
