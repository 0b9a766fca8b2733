"""Intervals from influences: what each image adds to a value, to first order.

A value that depends smoothly on the distribution of the images moves, where image i gets a little
more weight, by its influence (Hampel 1974). The variance of their sum over prompts is the variance
of the value for large n (the infinitesimal jackknife, Efron 1982), at the price of one evaluation.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array, correlation_of, difference_ends, share_ends
from ddmd_bench.stats.intervals import (
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


def _sums(influence: Array, groups: NDArray[Any]) -> Array:
    """What each prompt's images add: [P]."""
    return per_prompt(influence - influence.mean(), groups)[0]


def estimate_interval(estimate: Estimate, groups: NDArray[Any], extra: float = 0.0) -> Interval:
    """95 % t-interval over prompts; `extra` is a standard error of another source, independent."""
    sums, n = _sums(estimate.influence, groups), len(estimate.influence)
    return t_interval(estimate.value, math.hypot(standard_error(sums, n), extra), len(sums), n)


def estimate_difference(
    a: Estimate, b: Estimate, groups: NDArray[Any], extra: float = 0.0
) -> PairedDifference:
    """a - b over images of the same prompts: t-interval over prompts and the t-test's p.

    There is no value of one prompt, so `wins` is NaN.
    """
    from scipy.stats import t as student_t

    sums, n = _sums(a.influence - b.influence, groups), len(a.influence)
    error = math.hypot(standard_error(sums, n), extra)
    value, low, high, _ = t_interval(a.value - b.value, error, len(sums), n)
    p_value = two_sided_p(value, error, lambda x: 2 * float(student_t.sf(x, len(sums) - 1)))
    return PairedDifference(value, low, high, p_value, n, math.nan)


def share_interval(estimate: Estimate, groups: NDArray[Any]) -> Interval:
    """Of a value in [0, 1] that is no mean over images: within it, as `share_ends` has it."""
    sums, n = _sums(estimate.influence, groups), len(estimate.influence)
    if len(sums) < 2:
        return Interval(estimate.value, math.nan, math.nan, n)
    # A value at the bound may have influences all the same: as if it were half a prompt away.
    half = 1 / (2 * len(sums))
    inner = min(max(estimate.value, half), 1 - half)
    variance = standard_error(sums, n) ** 2
    number = inner * (1 - inner) / variance if variance else float(len(sums))
    return Interval(estimate.value, *share_ends(estimate.value, number, len(sums)), n)


def share_difference(a: Estimate, b: Estimate, groups: NDArray[Any]) -> PairedDifference:
    """a - b of two such values, in [-1, 1]: from either's interval, with the t-test's p."""
    found = estimate_difference(a, b, groups)
    if math.isnan(found.low):
        return found
    sums = (_sums(one.influence, groups) for one in (a, b))
    first, second = (share_interval(one, groups) for one in (a, b))
    low, high = difference_ends(first[:3], second[:3], correlation_of(*sums))
    return found._replace(low=max(low, -1.0), high=min(high, 1.0))
