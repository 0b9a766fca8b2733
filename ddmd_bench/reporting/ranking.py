"""Who is ahead: the suite's headline metrics, and the best student on each metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ddmd_bench.reporting.runfiles import real_in, trained_in
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import headline_of
from ddmd_bench.suite.schema import Suite


def headline_metric(suite: Suite, kind: str) -> str | None:
    """The suite's first metric of a kind that has a better direction."""
    return headline_of(suite.metrics, kind)


Table = dict[str, dict[str, dict[str, dict[str, Any]]]]  # student, metric, group -> cell


def value_of(table: Table, student: str, metric: str) -> float | None:
    """A student's value over all prompts, None where it is missing."""
    value: float | None = table[student][metric]["all"]["value"]
    return value


def _best(names: Iterable[str], table: Table, metric: str, target: float | None) -> str | None:
    """The best of some students that have a value; where neither direction is better, the one
    nearest to the target."""
    known = {n: v for n in names if (v := value_of(table, n, metric)) is not None}
    better = METRICS[metric].better
    if better != "reference":
        sign = 1 if better == "lower" else -1
        return min(known, key=lambda name: sign * known[name], default=None)
    if target is None:
        return None
    return min(known, key=lambda name: abs(known[name] - target), default=None)


def best_students(suite: Suite, table: Table) -> dict[str, str | None]:
    """For each metric the best trained student; where neither direction is better, the one nearest
    to the real scenes."""
    real, names = real_in(suite), trained_in(suite)
    targets = {m: value_of(table, real, m) if real else None for m in suite.metrics}
    best = {metric: _best(names, table, metric, target) for metric, target in targets.items()}
    if suite.until_settled is None:
        return best
    # Of other numbers of images distances of sets tell nothing of who is ahead.
    return {m: None if METRICS[m].kind == "distribution" else name for m, name in best.items()}


def challenger_of(suite: Suite, table: Table) -> str | None:
    """The best trained student on the first image metric, the baseline aside; where none of them
    has a value, the best other one that is not real images."""
    metric = headline_metric(suite, "image")
    if metric is None:
        return None
    others = [n for n, s in suite.students.items() if n != suite.baseline and s.source != "real"]
    trained = [name for name in trained_in(suite) if name in others]
    return _best(trained, table, metric, None) or _best(others, table, metric, None)
