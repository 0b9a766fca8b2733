"""Intervals from influences: what each image adds to a value, to first order.

A value that depends smoothly on the distribution of the images moves, where image i gets a little
more weight, by its influence (Hampel 1974). The variance of their sum over prompts is the variance
of the value for large n (the infinitesimal jackknife, Efron 1982), at the price of one evaluation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.intervals import QUANTILES, Array, Interval, PairedDifference


class Estimate(NamedTuple):
    """A value over n images, with the influence of each; only their differences count."""

    value: float
    influence: Array  # [n], in the value's unit; the value is as if their mean


def _standard_error(influence: Array, groups: NDArray[Any]) -> tuple[float, int]:
    """sqrt(P / (P - 1) * sum_g (sum of prompt g's influences)^2) / n, and P; NaN if P is 1."""
    _, index = np.unique(groups, return_inverse=True)
    sums = np.bincount(index, influence - influence.mean())
    num_prompts = len(sums)
    if num_prompts < 2:
        return math.nan, num_prompts
    error = math.sqrt(num_prompts / (num_prompts - 1) * float(sums @ sums)) / len(influence)
    return error, num_prompts


def _half_width(error: float, num_prompts: int) -> float:
    from scipy.stats import t as student_t

    return float(student_t.ppf(QUANTILES[1], num_prompts - 1)) * error


def estimate_interval(estimate: Estimate, groups: NDArray[Any], extra: float = 0.0) -> Interval:
    """95 % t-interval over prompts; `extra` is a standard error of another source, independent."""
    value, n = estimate.value, len(estimate.influence)
    error, num_prompts = _standard_error(estimate.influence, groups)
    if math.isnan(error):
        return Interval(value, math.nan, math.nan, n)
    half = _half_width(math.hypot(error, extra), num_prompts)
    return Interval(value, value - half, value + half, n)


def estimate_difference(
    a: Estimate, b: Estimate, groups: NDArray[Any], extra: float = 0.0
) -> PairedDifference:
    """a - b over images of the same prompts: t-interval over prompts and the t-test's p.

    There is no value of one prompt, so `wins` is NaN.
    """
    from scipy.stats import t as student_t

    value, n = a.value - b.value, len(a.influence)
    error, num_prompts = _standard_error(a.influence - b.influence, groups)
    if math.isnan(error):
        return PairedDifference(value, math.nan, math.nan, math.nan, n, math.nan)
    error = math.hypot(error, extra)
    half = _half_width(error, num_prompts)
    if error > 0:
        p_value = 2 * float(student_t.sf(abs(value) / error, num_prompts - 1))
    else:
        p_value = 1.0 if value == 0 else math.nan
    return PairedDifference(value, value - half, value + half, p_value, n, math.nan)
