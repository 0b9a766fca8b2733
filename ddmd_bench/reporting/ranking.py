"""Who is ahead: the suite's headline metrics, and the best student on each metric."""

from __future__ import annotations

from typing import Any

from ddmd_bench.reporting.runfiles import real_in, trained_in
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import Suite


def headline_metric(suite: Suite, kind: str) -> str | None:
    """The suite's first metric of a kind that has a better direction."""
    rows = [m for m in suite.metrics if METRICS[m].kind == kind]
    return next((m for m in rows if METRICS[m].better != "reference"), None)


Table = dict[str, dict[str, dict[str, dict[str, Any]]]]  # student, metric, group -> cell


def value_of(table: Table, student: str, metric: str) -> float | None:
    """A student's value over all prompts, None where it is missing."""
    value: float | None = table[student][metric]["all"]["value"]
    return value


def best_students(suite: Suite, table: Table) -> dict[str, str | None]:
    """For each metric the best trained student; where neither direction is better, the one nearest
    to the real scenes."""
    real = real_in(suite)
    best: dict[str, str | None] = {}
    for metric in suite.metrics:
        target = value_of(table, real, metric) if real else None
        values = {
            name: value
            for name in trained_in(suite)
            if (value := value_of(table, name, metric)) is not None
        }
        better = METRICS[metric].better
        loss = {"higher": lambda v: -v, "lower": lambda v: v}.get(better)
        if loss is None and target is not None:
            loss = lambda v, target=target: abs(v - target)  # noqa: E731
        best[metric] = min(values, key=lambda n: loss(values[n])) if loss and values else None
    return best


def challenger_of(suite: Suite, table: Table) -> str | None:
    """The best trained student on the first image metric, the baseline aside."""
    metric = headline_metric(suite, "image")
    if metric is None:
        return None
    values = {
        name: value
        for name in trained_in(suite)
        if name != suite.baseline and (value := value_of(table, name, metric)) is not None
    }
    sign = -1 if METRICS[metric].better == "lower" else 1
    return max(values, key=lambda n: sign * values[n], default=None)
