"""Intervals of several seeds: over the seeds, and over the prompts that all of them share.

A value of seed s and prompt p is a mean, what the seed adds, what the prompt adds with every seed,
and the rest. The spread of the seeds' means shows the first and the last; that of what the prompts
add is the covariance of the seeds over prompts. Their half widths are added as squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array, Ends, Part, p_of_parts, t_ends, t_quantile
from ddmd_bench.stats.intervals import UNBOUNDED, Bounds, Interval


class OfPrompts(NamedTuple):
    """Of the mean of all seeds, the variance by the choice of prompts; unknown with none."""

    variance: float = 0.0
    num_prompts: int = 0
    of_one_seed: float = 0.0  # the same of one seed's mean: 0 where all its prompts are alike


NO_PROMPTS = OfPrompts()


def by_prompt(by_seed: Sequence[tuple[Array, NDArray[Any]]]) -> tuple[Array, Array, Array]:
    """Means, numbers and sums of squares [seeds, P] of the images of each prompt.

    From values [n] and prompts [n] of each of one seed or more, NaN skipped; only prompts with a
    value of every seed are there.
    """
    known = [(v[~np.isnan(v)], g[~np.isnan(v)]) for v, g in by_seed]
    listed = [np.unique(groups, return_inverse=True) for _, groups in known]
    shared = reduce(np.intersect1d, (prompts for prompts, _ in listed))
    rows = []
    for (values, _), (prompts, index) in zip(known, listed, strict=True):
        kept = np.isin(prompts, shared)
        sums = [np.bincount(index, w)[kept] for w in (values, np.square(values))]
        counts = np.bincount(index).astype(np.float64)[kept]
        rows.append((sums[0] / counts, counts, sums[1]))
    means, counts, squares = (np.stack(column) for column in zip(*rows, strict=True))
    return means, counts, squares


def of_prompts(means: Array) -> OfPrompts:
    """From prompts' means [seeds, P], as `by_prompt` has them.

    The covariance of two seeds is without bias for the variance of what a prompt adds to both,
    whatever each of them adds; never below 0.
    """
    k, num_prompts = means.shape
    if k < 2 or num_prompts < 2:
        return NO_PROMPTS
    covariances = np.cov(means)
    own = float(np.trace(covariances))
    shared = (float(covariances.sum()) - own) / (k * (k - 1))
    return OfPrompts(max(shared, 0.0) / num_prompts, num_prompts, own / k / num_prompts)


def seed_interval(
    values: Sequence[float], prompts: OfPrompts = NO_PROMPTS, bounds: Bounds | None = None
) -> Interval:
    """Mean of the values, one of each seed, with its 95 % interval, never beyond a bound.

    Without prompts the seeds' t-interval; it is never narrower than that. Simulated with three
    seeds it holds 94 to 99 %, whichever of seeds and prompts has the larger part.

    Several equal values show no spread to judge by, as coarse ones may by chance; like a single
    value they have no interval: low and high are NaN.
    """
    n = len(values)
    value = math.fsum(values) / n if n else math.nan
    low, high = _ends(value, _of_seeds(values), n, prompts)
    lowest, highest = bounds or UNBOUNDED
    return Interval(value, _at_least(low, lowest), -_at_least(-high, -highest), n)


def _at_least(end: float, bound: float) -> float:
    return end if math.isnan(end) else max(end, bound)


def _of_seeds(values: Sequence[float]) -> float:
    """Variance of the mean by the seeds; NaN where they show no spread."""
    n = len(values)
    if n < 2:
        return math.nan
    variance = float(np.var(values, ddof=1)) / n
    return variance if variance > 1e-24 * float(np.mean(values)) ** 2 else math.nan


def _ends(value: float, of_seeds: float, n: int, prompts: OfPrompts) -> Ends:
    half = math.sqrt(of_seeds) * t_quantile(n)
    if prompts.variance:
        half = math.hypot(half, math.sqrt(prompts.variance) * t_quantile(prompts.num_prompts))
    return value - half, value + half


def paired_t(
    differences: Sequence[float], prompts: OfPrompts = NO_PROMPTS
) -> tuple[float, float, float, float]:
    """Mean of the seeds' differences, its `seed_interval`, and p: 1 less the level at which that
    reaches 0, without prompts the paired t-test's.

    Several that are all 0, as coarse ones may be by chance, tell no more than one of them: p is 1,
    the interval one seed's t over prompts. From what the seeds share it would hold 17 to 65 %. It
    is 0 where no prompt differs on any seed, and of distances, which no prompt has a value of.
    """
    value, low, high, n = seed_interval(differences, prompts)
    if n > 1 and not np.any(differences):
        error = math.sqrt(prompts.of_one_seed)
        return 0.0, *(t_ends(0.0, error, prompts.num_prompts) if error else (0.0, 0.0)), 1.0
    return value, low, high, _p_value(value, _of_seeds(differences), n, prompts)


def _p_value(value: float, of_seeds: float, n: int, prompts: OfPrompts) -> float:
    if math.isnan(of_seeds):
        return math.nan
    return p_of_parts(value, [Part(of_seeds, n), Part(prompts.variance, prompts.num_prompts)])
