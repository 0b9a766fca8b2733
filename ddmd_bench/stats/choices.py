"""Strengths of things that people have ranked: Bradley and Terry's of pairs, Plackett and Luce's.

A ranking is a row of choices: the first of all, then the first of what is left, down to the last
two. Each is made with a probability in proportion to exp(strength) of what is offered (Plackett,
1975; Luce, 1959); of two things that is the model of Bradley and Terry (1952).
"""

from __future__ import annotations

from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array

ITERATIONS, TOLERANCE = 100, 1e-10


class Strengths(NamedTuple):
    """Log-strengths [K], their mean 0; NaN where they are not finite, with the reason."""

    values: Array
    influence: Array  # [n, K]: by how much each ranking moves them, times n
    missing: str = ""


class _Stages(NamedTuple):
    """Every choice of some patterns of ranks."""

    pattern: NDArray[np.int64]  # [S]
    offered: NDArray[np.bool_]  # [S, K]
    chosen: NDArray[np.int64]  # [S]
    weight: Array  # [S], those of a tie share one


def strengths_of(ranks: Array) -> Strengths:
    """The most likely strengths of K things from rankings [n, K].

    1 is best, equal ranks are a tie, NaN was not shown. A tie counts as all orders of those who
    share it, in equal parts. Where some were never ranked below the others, no finite strengths
    are the most likely (Ford, 1957).
    """
    n, num = ranks.shape
    shown = np.nan_to_num(ranks, nan=0.0)
    patterns, index = np.unique(shown, axis=0, return_inverse=True)
    index = index.reshape(-1)
    missing = _apart(patterns)
    if missing:
        return Strengths(np.full(num, np.nan), np.full((n, num), np.nan), missing)
    stages = _stages(patterns)
    counts = np.bincount(index).astype(np.float64)
    values = np.zeros(num)
    for _ in range(ITERATIONS):
        scores, information = _derivatives(stages, counts, values, len(patterns))
        # The sum of all strengths is free: the step keeps it.
        step = np.linalg.pinv(information, hermitian=True) @ (counts @ scores)
        values += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if float(np.abs(step).max()) < TOLERANCE:
            break
    scores, information = _derivatives(stages, counts, values, len(patterns))
    influence = n * scores @ np.linalg.pinv(information, hermitian=True)
    return Strengths(values - values.mean(), influence[index])


def _derivatives(
    stages: _Stages, counts: Array, values: Array, num_patterns: int
) -> tuple[Array, Array]:
    """The gradient of each pattern's log-likelihood, and the information of all rankings."""
    shifted = np.where(stages.offered, values, -np.inf)
    odds = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    shares = odds / odds.sum(axis=1, keepdims=True)
    residuals = -shares * stages.weight[:, None]
    residuals[np.arange(len(shares)), stages.chosen] += stages.weight
    scores = np.zeros((num_patterns, len(values)))
    np.add.at(scores, stages.pattern, residuals)
    weights = stages.weight * counts[stages.pattern]
    information = np.diag(weights @ shares) - (shares * weights[:, None]).T @ shares
    return scores, information


def _stages(patterns: Array) -> _Stages:
    """Each pattern [K] of ranks, 0 where nothing was shown, as choices."""
    rows = []
    for k, ranks in enumerate(patterns):
        shown = np.flatnonzero(ranks)
        groups = [shown[ranks[shown] == rank] for rank in np.unique(ranks[shown])]
        orders = [np.concatenate(one) for one in product(*(map(list, map(permutations, groups))))]
        for order in orders:
            for place in range(len(order) - 1):
                offered = np.zeros(len(ranks), np.bool_)
                offered[order[place:]] = True
                rows.append((k, offered, order[place], 1 / len(orders)))
    return _Stages(*(np.array(column) for column in zip(*rows, strict=True)))


def _apart(patterns: Array) -> str:
    """Why no finite strengths are the most likely; '' where some are."""
    from scipy.sparse.csgraph import connected_components

    above = np.zeros((patterns.shape[1],) * 2)
    for ranks in patterns:
        shown = ranks > 0
        both = shown[:, None] & shown[None, :]
        above += both & (ranks[:, None] <= ranks[None, :])
    if connected_components(above, directed=True, connection="strong")[0] == 1:
        return ""
    return "some were always ranked above others: no finite strengths"
