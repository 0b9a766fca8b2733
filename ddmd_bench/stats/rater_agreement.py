"""How far people who judged the same things agree: Krippendorff's alpha, Kendall's W."""

from __future__ import annotations

import math

import numpy as np

from ddmd_bench.stats.ends import Array


def krippendorff_alpha(values: Array) -> float:
    """Of ordinal values [units, raters], NaN where one did not judge: 1 agreed, 0 as by chance.

    Krippendorff, Content Analysis (2004), section 11.3; a unit that one alone judged is left out.
    NaN where nothing varies, or nothing was judged twice.
    """
    known = ~np.isnan(values)
    values = values[known.sum(axis=1) > 1]
    if not len(values):
        return math.nan
    levels = np.unique(values[~np.isnan(values)])
    counts = (values[:, :, None] == levels).sum(axis=1).astype(np.float64)  # [units, levels]
    weights = 1 / (counts.sum(axis=1) - 1)
    coincidences = (counts * weights[:, None]).T @ counts - np.diag(weights @ counts)
    totals = coincidences.sum(axis=1)
    # The distance of two levels: all values between them, and half of their own.
    upto = np.cumsum(totals) - totals / 2
    distances = np.square(upto[:, None] - upto[None, :])
    expected = float((np.outer(totals, totals) * distances).sum()) / (totals.sum() - 1)
    return 1 - float((coincidences * distances).sum()) / expected if expected else math.nan


def kendall_w(ranks: Array) -> float:
    """Of ranks [raters, things], equal ones of a tie their mean: 1 agreed, 0 no common order.

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
