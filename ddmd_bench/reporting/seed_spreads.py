"""How far a further seed may lie from the few that are known: spreads of seeds, and their limits.

A seed's prompts' noise, first weights and batches are the same for all students, so their values
go up and down together and nine students of three seeds are not 18 independent deviations. What
students share is therefore taken apart: each student's contrast to the mean of all students, whose
spreads are then alike enough to know one another (an empirical-Bayes variance), and that mean
itself, of which k seeds know no more than k - 1 degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.ends import Array

_FRECHET = ("frechet", "frechet_wide", "frechet_infinity")
_LEAST = 1e-6  # of a Fréchet distance, before its logarithm


class Scale(NamedTuple):
    """Where a metric's spread does not hang on its level; `back` gives values from there."""

    to: Callable[[Any], Any]
    back: Callable[[Any], Any]


class Spreads(NamedTuple):
    """Of one metric of students that belong together, on its scale."""

    # [G] standard deviation of a student's contrast to the mean of all, moderated; of one student
    # alone, which has no contrast, that of its values.
    own: Array
    own_df: float
    common: float  # standard deviation of that mean between seeds
    common_df: int


def scale_of(metric: str) -> Scale:
    """Shares by the arcsine of their root, Fréchet distances by the logarithm, others as they are.

    The first makes a binomial spread constant (Anscombe 1948); a Fréchet distance's is nearly
    proportional to it.
    """
    row = METRICS.get(metric)
    if row is not None and row.unit == "%":
        # Beyond the ends of its range the sine would come back.
        return Scale(
            lambda x: np.arcsin(np.sqrt(np.clip(x, 0, 1))),
            lambda x: np.sin(np.clip(x, 0, math.pi / 2)) ** 2,
        )
    if row is not None and row.distance in _FRECHET:
        return Scale(lambda x: np.log(np.maximum(x, _LEAST)), np.exp)
    return Scale(lambda x: x, lambda x: x)


def spreads_of(known: Sequence[Array]) -> list[Spreads]:
    """Spreads of each array [G, k] of values on their scale, students by seeds, k at least 2.

    The variance of a student's contrast has k - 1 degrees of freedom of its own. It is drawn to
    that of the others of its metric as far as the students' variances are alike (Smyth 2004), and
    has no more of them than contrasts that go together leave (Huynh and Feldt 1976). How alike and
    how independent students are is told over all metrics: one alone has too few of them.
    """
    variances = [(values - values.mean(0)).var(1, ddof=1) for values in known]
    prior_df = _prior_df(variances, known)
    sizes = {len(values) for values in known}
    most_df = {n: _most_df([values for values in known if len(values) == n]) for n in sizes}
    return [
        _spreads(v, values, prior_df, most_df[len(values)])
        for v, values in zip(variances, known, strict=True)
    ]


def _spreads(variances: Array, values: Array, prior_df: float, most_df: float) -> Spreads:
    num, df = len(values), values.shape[1] - 1
    common = float(values.mean(0).std(ddof=1))
    if num == 1:
        return Spreads(np.array([common]), df, common, df)
    if math.isinf(prior_df):
        own, own_df = np.full(num, variances.mean()), math.inf
    else:
        prior = _prior_variance(variances, df, prior_df)
        own = (prior_df * prior + df * variances) / (prior_df + df)
        own_df = prior_df + df
    return Spreads(np.sqrt(own), min(own_df, most_df), common, df)


def _most_df(known: Sequence[Array]) -> float:
    """Degrees of freedom of a variance pooled over the contrasts of all students [G, k] each.

    (tr S)^2 / tr S^2 of their covariance S, from estimates without bias, times k - 1: between
    k - 1 where all contrasts go together and (G - 1) (k - 1), since they sum to nothing.
    """
    num, df = len(known[0]), known[0].shape[1] - 1
    if df < 2 or num < 3:
        return float(df)
    squared, squares = 0.0, 0.0  # of (tr S)^2 and of tr S^2, each in units of the former
    for values in known:
        contrasts = values - values.mean(0)
        contrasts -= contrasts.mean(1, keepdims=True)
        inner = contrasts.T @ contrasts  # [k, k], of the same trace as the covariance [G, G]
        if (trace := float(np.trace(inner))) > _tiny(values):
            unit = float(np.square(inner / trace).sum())
            of_square = df**2 / ((df - 1) * (df + 2)) * (unit - 1 / df)
            squares += of_square
            squared += 1 - 2 / df * of_square
    effective = squared / squares if squares > 0 else math.inf
    return float(df * min(max(effective, 1.0), num - 1))


def _prior_df(variances: Sequence[Array], known: Sequence[Array]) -> float:
    """Degrees of freedom that the other students' variances are worth: infinite where all are
    alike but for chance, by the variance of their logarithms (Smyth 2004, section 6.2)."""
    from scipy.special import polygamma

    squares, chance, num = 0.0, 0.0, 0
    for found, values in zip(variances, known, strict=True):
        # Two students have one contrast; without a spread a coarse value says nothing.
        positive = found[found > _tiny(values)]
        if len(values) > 2 and len(positive) > 1:
            logs = np.log(positive)
            squares += float(((logs - logs.mean()) ** 2).sum())
            num += len(positive) - 1
            chance += (len(positive) - 1) * float(polygamma(1, (values.shape[1] - 1) / 2))
    excess = (squares - chance) / num if num else 0.0
    return 2 * _trigamma_inverse(excess) if excess > 0 else math.inf


def _tiny(values: Array) -> float:
    """Variance that rounding alone may leave."""
    return float(1e-24 * np.square(values).max())


def _prior_variance(variances: Array, df: int, prior_df: float) -> float:
    from scipy.special import digamma

    positive = variances[variances > 0]
    if len(positive) == 0:
        return 0.0
    logs = np.log(positive) - digamma(df / 2) + math.log(df / 2)
    shift = float(digamma(prior_df / 2)) - math.log(prior_df / 2)
    return math.exp(float(logs.mean()) + shift)


def _trigamma_inverse(value: float) -> float:
    """x with trigamma(x) = value > 0; it falls in x, and 1 / x < trigamma(x) < 1 / x + 1 / x^2."""
    from scipy.optimize import brentq
    from scipy.special import polygamma

    low, high = 1 / (value + math.sqrt(value) + 1), 1 / value + 1
    while float(polygamma(1, low)) < value:
        low /= 2
    return float(brentq(lambda x: float(polygamma(1, x)) - value, low, high))


def limit(spread: float, df: float, num_seeds: float, alpha: float) -> float:
    """How far a further seed lies from the mean of `num_seeds` others but for alpha, two-sided.

    With one seed: how far two that differ by chance lie from each other.
    """
    from scipy.stats import t as student_t

    return float(student_t.isf(alpha / 2, df)) * math.sqrt(1 + 1 / num_seeds) * spread
