"""How far several measures rank the same things alike, and which of them disagrees with the rest.

Spearman's correlation of each two; a measure's agreement with the rest is the mean of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ddmd_bench.stats.ends import LEVEL, Array, Ends

FEWEST = 10  # prompts; fewer give a correlation no interval worth the name


def rank_correlations(comparisons: Sequence[Array]) -> tuple[Array, Array]:
    """Spearman's correlation of each two columns, mean over the comparisons, and rows behind it.

    comparisons: [P, k] each, a row a prompt, NaN where a measure has no value. Both results are
    [k, k]: NaN of a column that does not vary or of fewer than `FEWEST` shared rows; the number of
    rows is the least of the comparisons that have a correlation, 0 where none has.
    """
    import pandas as pd

    found, rows = [], []
    for one in comparisons:
        found.append(pd.DataFrame(one).corr("spearman", min_periods=FEWEST).to_numpy())
        known = (~np.isnan(one)).astype(np.float64)
        rows.append(known.T @ known)
    stacked = np.stack(found)
    has = ~np.isnan(stacked)
    num = has.sum(0)
    means = np.where(num > 0, np.nansum(stacked, 0) / np.maximum(num, 1), math.nan)
    return means, np.where(num > 0, np.where(has, rows, math.inf).min(0), 0.0)


def correlation_ends(correlation: float, number: float, level: float = LEVEL) -> Ends:
    """Of a rank correlation over so many independent rows, by Fisher's z.

    Its variance is (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000, Psychometrika 65). Of a mean
    of correlations over the same rows it is on the safe side: no mean varies more than the most
    variable of what it is of.
    """
    from scipy.special import ndtri

    if math.isnan(correlation) or number <= 3:
        return math.nan, math.nan
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, correlation)))
    half = float(ndtri((1 + level) / 2)) * math.sqrt((1 + correlation**2 / 2) / (number - 3))
    return math.tanh(z - half), math.tanh(z + half)


def with_the_rest(correlations: Array) -> Array:
    """The mean [k] of each measure's correlations [k, k] with the others; NaN where none is."""
    off = np.where(np.eye(len(correlations), dtype=bool), math.nan, correlations)
    num = (~np.isnan(off)).sum(1)
    return np.where(num > 0, np.nansum(off, 1) / np.maximum(num, 1), math.nan)


def disagreeing(correlations: Array, rows: Array) -> list[int]:
    """Of three measures or more, those that rank against the rest, from `rank_correlations`' two.

    The mean of its correlations with the others is below 0, at 5 % for all measures together
    (Bonferroni) and by the fewest rows that it shares with one of them, and the others agree among
    themselves: the mean of their correlations is above 0. A measure of other prompts, with which
    there is no correlation, is none of the others.
    """
    k = len(correlations)
    if k < 3:
        return []
    means, found = with_the_rest(correlations), []
    for measure in range(k):
        others = [j for j in range(k) if j != measure and not math.isnan(correlations[measure, j])]
        number = float(rows[measure, others].min(initial=math.inf))
        high = correlation_ends(float(means[measure]), number, 1 - (1 - LEVEL) / k)[1]
        rest = with_the_rest(correlations[np.ix_(others, others)])
        if high < 0 and np.nansum(rest) > 0:
            found.append(measure)
    return found
