"""Intervals from influences: what each image adds to a value, to first order.

A value that depends smoothly on the distribution of the images moves, where image i gets a little
more weight, by its influence (Hampel 1974). The variance of their sum over prompts is the variance
of the value for large n (the infinitesimal jackknife, Efron 1982), at the price of one evaluation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ddmd_bench.stats.intervals import (
    Array,
    Interval,
    PairedDifference,
    per_prompt,
    standard_error,
    t_interval,
    two_sided_p,
)


class Estimate(NamedTuple):
    """A value over n images, with the influence of each; only their differences count."""

    value: float
    influence: Array  # [n], in the value's unit; the value is as if their mean


def _error(influence: Array, groups: NDArray[Any], extra: float) -> tuple[float, int]:
    """Standard error of the value, with `extra` added as squares, and the number of prompts."""
    sums, _ = per_prompt(influence - influence.mean(), groups)
    return math.hypot(standard_error(sums, len(influence)), extra), len(sums)


def estimate_interval(estimate: Estimate, groups: NDArray[Any], extra: float = 0.0) -> Interval:
    """95 % t-interval over prompts; `extra` is a standard error of another source, independent."""
    error, num_prompts = _error(estimate.influence, groups, extra)
    return t_interval(estimate.value, error, num_prompts, len(estimate.influence))


def estimate_difference(
    a: Estimate, b: Estimate, groups: NDArray[Any], extra: float = 0.0
) -> PairedDifference:
    """a - b over images of the same prompts: t-interval over prompts and the t-test's p.

    There is no value of one prompt, so `wins` is NaN.
    """
    from scipy.stats import t as student_t

    error, num_prompts = _error(a.influence - b.influence, groups, extra)
    value, low, high, n = t_interval(a.value - b.value, error, num_prompts, len(a.influence))
    p_value = two_sided_p(value, error, lambda x: 2 * float(student_t.sf(x, num_prompts - 1)))
    return PairedDifference(value, low, high, p_value, n, math.nan)
