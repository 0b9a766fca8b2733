"""Students of one report against students of another, where both share the protocol.

Values are compared seed by seed, as within a report over several seeds: what both seeds share
(prompts, noise) cancels. A report does not hold its prompts' values: the interval is over the seeds
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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

# Of two reports neither is what was expected.
_SAID = "{found!r} in the first, {expected!r} in the second"
BESIDE_CODE = ("weights_sha256", "cpu_count", "dirty")
MOST = 8  # lines of what made them


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
        lines = differing("protocol", first["protocol"], second["protocol"], _SAID)
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


def said_before(
    first: dict[str, Any], second: dict[str, Any], rows: Sequence[Row]
) -> Iterator[str]:
    """What is to be known before any number: over what, made by what, and how much is the same."""
    seeds = sorted({seed for row in rows for seed in row.difference.by_seed})
    yield (
        f"First minus second, over the seeds {', '.join(map(str, seeds))} that both have; "
        f"t-intervals over the seeds. Protocol {first['fingerprint']}."
    )
    if lines := list(differing("made by", _made_by(first), _made_by(second), _SAID)):
        lines = [line.removeprefix("made by.") for line in lines]
        more = f"; {len(lines) - MOST} more lines" if len(lines) > MOST else ""
        yield f"What made them differs: {'; '.join(lines[:MOST])}{more}."
    num_equal = sum(map(is_equal, rows))
    if num_equal == len(rows):
        yield f"Identical: all {len(rows)} values are the same on every seed, to the last digit."
    elif num_equal:
        yield f"The same on every seed, and not listed: {num_equal} of {len(rows)} values."


def _made_by(record: dict[str, Any]) -> dict[str, Any]:
    common = record["provenance"]["common"]
    return {key: _short(value) for key, value in common.items() if key not in BESIDE_CODE}


def _short(value: Any) -> Any:
    """A hash by its first digits."""
    return value[:12] if isinstance(value, str) and len(value) > 32 else value


def is_equal(row: Row) -> bool:
    """Whether both have the same value on every seed."""
    values = row.difference.by_seed.values()
    return bool(values) and not any(values)


def labels_of(records: Sequence[dict[str, Any]], places: Sequence[str]) -> list[str]:
    """What each report is called: as its suite where no other is of it, else by its place."""
    names = [record["suite"]["name"] for record in records]
    return [n if names.count(n) == 1 else place for n, place in zip(names, places, strict=True)]


def between_table(
    labels: tuple[str, str], rows: Sequence[Row]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows in display units, of values that are not the same."""
    header = ("student", "other", "metric", *labels, "difference", "95 % interval", "p (Holm)", "")
    return header, [_cells(row) for row in rows if not is_equal(row)]


def between_markdown(
    first: dict[str, Any], second: dict[str, Any], labels: tuple[str, str], rows: Sequence[Row]
) -> str:
    """The same for a file."""
    header, cells = between_table(labels, rows)
    named = [in_markdown(name) for name in header]
    told = [[in_markdown(a), in_markdown(b), *rest] for a, b, *rest in cells]
    parts = [
        f"# {named[3]} against {named[4]}",
        *map(in_markdown, said_before(first, second, rows)),
        *([markdown_table(named, told)] if told else []),
    ]
    return "\n\n".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    metric, d = row.metric, row.difference
    known = [
        None if math.isnan(v) else v for v in (*row.values, d.value, d.low, d.high, row.p_holm)
    ]
    return (
        row.student,
        row.other,
        METRICS[metric].title,
        metric_shown(metric, known[0]),
        metric_shown(metric, known[1]),
        metric_shown(metric, known[2], sign=True),
        interval_shown(metric, known[3], known[4], sign=True),
        p_shown(known[5]),
        d.missing or outcome_of(metric, d, row.p_holm),
    )
