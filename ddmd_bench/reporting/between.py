"""Students of one report against students of another, where both share the protocol.

Values are compared seed by seed, as within a report over several seeds: what both seeds share
(prompts, noise) cancels. A report does not hold its prompts' values: the interval is over the seeds
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.records import differing
from ddmd_bench.reporting.differences import Difference, outcome_of
from ddmd_bench.reporting.escaping import in_markdown
from ddmd_bench.reporting.numbers import interval_shown, metric_shown, p_shown
from ddmd_bench.reporting.tables import markdown_table
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.intervals import holm
from ddmd_bench.stats.seeds import paired_t


class Row(NamedTuple):
    """One metric of one pair: a student of the first report minus one of the second."""

    student: str
    other: str
    metric: str
    values: tuple[float, float]  # means over the shared seeds
    difference: Difference
    p_holm: float


def between(
    first: dict[str, Any], second: dict[str, Any], pairs: Sequence[tuple[str, str]]
) -> list[Row]:
    """Every metric that both reports have, Holm's correction over all rows."""
    if first["fingerprint"] != second["fingerprint"]:
        lines = differing("protocol", first["protocol"], second["protocol"])
        raise BenchError("\n".join(["the reports measured different things:", *lines]))
    for record, names in zip((first, second), zip(*pairs, strict=True), strict=True):
        for name in names:
            if name not in record["table"]:
                suite = record["suite"]["name"]
                raise BenchError(f"report {suite}: " + unknown("student", name, record["table"]))
    metrics = [m for m in first["suite"]["metrics"] if m in second["suite"]["metrics"]]
    found = [
        (student, other, metric, _values(first, student, metric), _values(second, other, metric))
        for student, other in pairs
        for metric in metrics
    ]
    differences = [_difference(a, b) for *_, a, b in found]
    adjusted = holm([d.p_value for d in differences])
    return [
        Row(student, other, metric, (_mean(a, d), _mean(b, d)), d, p_holm)
        for (student, other, metric, a, b), d, p_holm in zip(
            found, differences, adjusted, strict=True
        )
    ]


def _values(record: dict[str, Any], student: str, metric: str) -> dict[int, float]:
    """Value by seed over all prompts, without the seeds that have none."""
    cells = record["table"][student][metric]["all"]["by_seed"]
    return {int(s): cell["value"] for s, cell in cells.items() if cell["value"] is not None}


def _difference(a: dict[int, float], b: dict[int, float]) -> Difference:
    by_seed = {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
    missing = "" if len(by_seed) > 1 else f"{len(by_seed)} seeds in both reports: no interval"
    value, low, high, p_value = paired_t(list(by_seed.values()))
    return Difference(value, low, high, p_value, 0, math.nan, missing, by_seed)


def _mean(values: dict[int, float], difference: Difference) -> float:
    shared = [values[seed] for seed in difference.by_seed]
    return math.fsum(shared) / len(shared) if shared else math.nan


def between_markdown(first: dict[str, Any], second: dict[str, Any], rows: Sequence[Row]) -> str:
    """The rows as a table, in display units."""
    names = [in_markdown(record["suite"]["name"]) for record in (first, second)]
    header = ("student", "other", "metric", *names, "difference", "95 % interval", "p (Holm)", "")
    seeds = sorted({seed for row in rows for seed in row.difference.by_seed})
    title = f"# {names[0]} against {names[1]}"
    text = (
        f"First minus second, over the seeds {', '.join(map(str, seeds))} that both have; "
        f"t-intervals over the seeds. Protocol {in_markdown(first['fingerprint'])}."
    )
    table = markdown_table(header, (_cells(row) for row in rows))
    return f"{title}\n\n{text}\n\n{table}"


def _cells(row: Row) -> tuple[str, ...]:
    metric, d = row.metric, row.difference
    known = [
        None if math.isnan(v) else v for v in (*row.values, d.value, d.low, d.high, row.p_holm)
    ]
    return (
        in_markdown(row.student),
        in_markdown(row.other),
        METRICS[metric].title,
        metric_shown(metric, known[0]),
        metric_shown(metric, known[1]),
        metric_shown(metric, known[2], sign=True),
        interval_shown(metric, known[3], known[4], sign=True),
        p_shown(known[5]),
        d.missing or outcome_of(metric, d, row.p_holm),
    )
