"""How far people who judged the same things agree: Krippendorff's alpha, Kendall's W."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array, t_quantile
from ddmd_bench.stats.intervals import Interval


def krippendorff_alpha(values: Array) -> float:
    """Of ordinal values [units, raters], NaN where one did not judge: 1 agreed, 0 as by chance.

    Krippendorff, Content Analysis (2004), section 11.3; a unit that one alone judged is left out.
    NaN where nothing varies, or nothing was judged twice.
    """
    values = values[(~np.isnan(values)).sum(axis=1) > 1]
    return _alpha(_coincidences(values).sum(axis=0)) if len(values) else math.nan


def alpha_interval(values: Array, groups: NDArray[np.int64]) -> Interval:
    """The same with a 95 % interval over groups [units] of units that are judged at once.

    The jackknife's, of t's quantile with one degree of freedom less than there are groups; never
    above 1. NaN ends of fewer than two groups, or where one alone makes alpha.
    """
    judged = (~np.isnan(values)).sum(axis=1) > 1
    if not judged.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    by_unit, groups = _coincidences(values[judged]), groups[judged]
    whole = by_unit.sum(axis=0)
    left = [_alpha(whole - by_unit[groups == group].sum(axis=0)) for group in np.unique(groups)]
    value, num = _alpha(whole), len(left)
    spread = float(np.square(np.array(left) - np.mean(left)).sum())
    half = t_quantile(num) * math.sqrt(spread * (num - 1) / num) if num > 1 else math.nan
    return Interval(value, value - half, min(value + half, 1.0), num)


def _coincidences(values: Array) -> Array:
    """Of each unit [units, raters] how often two of its values meet [units, levels, levels]."""
    levels = np.unique(values[~np.isnan(values)])
    counts = (values[:, :, None] == levels).sum(axis=1).astype(np.float64)  # [units, levels]
    weights = 1 / (counts.sum(axis=1) - 1)
    together = counts[:, :, None] * counts[:, None, :]
    together[:, range(len(levels)), range(len(levels))] -= counts
    weighted: Array = together * weights[:, None, None]
    return weighted


def _alpha(coincidences: Array) -> float:
    totals = coincidences.sum(axis=1)
    # The distance of two levels: all values between them, and half of their own.
    upto = np.cumsum(totals) - totals / 2
    distances = np.square(upto[:, None] - upto[None, :])
    expected = float((np.outer(totals, totals) * distances).sum()) / (totals.sum() - 1)
    return 1 - float((coincidences * distances).sum()) / expected if expected else math.nan


def kendall_w(ranks: Array) -> float:
    """Of ranks [raters, things], equal ones of a tie their mean: 1 agreed, 0 no common order.

    Of m raters who agree by chance it is 1 / m on average.

    Corrected for ties (Kendall and Gibbons, 1990); NaN of one rater, or where all is tied.
    """
    m, k = ranks.shape
    if m < 2:
        return math.nan
    sums = ranks.sum(axis=0)
    repeated = [np.unique(row, return_counts=True)[1].astype(np.float64) for row in ranks]
    ties = sum(float((counts**3 - counts).sum()) for counts in repeated)
    most = m**2 * (k**3 - k) - m * ties
    return float(12 * np.square(sums - sums.mean()).sum()) / most if most else math.nan
