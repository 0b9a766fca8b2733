"""Values from the literature beside the run's own, and what differs between the two protocols.

For a record: values raw, nothing rounded. No verdict rests on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ddmd_bench.literature.values import PROTOCOL_FIELDS, Stated, Table, Value, literature_tables
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import LiteratureRows, PromptSet, Suite

# Those of one metric's own: they say nothing of a value that is not there.
OF_THE_METRIC = ("reference", "num_reference", "resize", "version", "text_prefix")
NOT_STATED, NOT_RECORDED = "not stated", "not recorded"


class Cell(NamedTuple):
    """One of our students on one published column."""

    student: str
    row: str
    column: str
    metric: str
    group: str | None  # of our prompts, None where the run has no such part
    theirs: Value | None
    ours: dict[str, Any]  # value, low, high, missing


def literature_beside(
    run: RunFiles, table: dict[str, Any], students: dict[str, Any]
) -> list[dict[str, Any]]:
    """One entry for each published table that the suite names, from the record's own parts."""
    tables = literature_tables()
    return [
        _beside(tables[beside.table], beside, run, table, students)
        for beside in run.suite.literature
    ]


def _beside(
    printed: Table,
    beside: LiteratureRows,
    run: RunFiles,
    table: dict[str, Any],
    students: dict[str, Any],
) -> dict[str, Any]:
    cells = list(_cells(printed, beside, run.suite, table, students))
    both = [c for c in cells if c.theirs and c.ours["value"] is not None]
    # Where nothing was measured on both sides, what the protocols share still tells them apart.
    compared = both or [c for c in cells if c.theirs]
    return {
        "table": printed.id,
        "title": printed.title,
        "source": str(printed.source),
        "notes": list(printed.notes),
        "columns": {
            key: {
                "metric": printed.metric(key),
                **column.model_dump(include={"category", "label", "scale"}),
            }
            for key, column in printed.columns.items()
        },
        "rows": [
            {
                "student": student,
                "row": row,
                "label": printed.rows[row].label,
                "note": printed.rows[row].note,
                "source": str(source) if (source := printed.rows[row].source) else None,
                "cells": {c.column: _plain(c) for c in cells if c.student == student},
            }
            for student, row in beside.rows.items()
        ],
        "compared": len(both),
        "differences": _differences(printed, compared, bool(both), run, students),
    }


def _plain(cell: Cell) -> dict[str, Any]:
    theirs = cell.theirs
    return {
        "group": cell.group,
        "ours": cell.ours,
        "theirs": theirs.raw if theirs else None,
        "printed": theirs.printed if theirs else None,
        "uncertain": bool(theirs and theirs.uncertain),
        "note": theirs.note if theirs else "",
    }


def _cells(
    printed: Table,
    beside: LiteratureRows,
    suite: Suite,
    table: dict[str, Any],
    students: dict[str, Any],
) -> Iterator[Cell]:
    for student, row in beside.rows.items():
        for key, column in printed.columns.items():
            metric = printed.metric(key)
            prompts = printed.protocol_of(row, key).get("prompts")
            group = _group(suite, metric, column.category, prompts.value if prompts else None)
            found = table[student].get(metric, {}).get(group) or {}
            value = found.get("value")
            missing = _missing(suite, metric, group, column.category, students[student]["missing"])
            ours = {
                "value": None if missing else value,
                "low": found.get("low"),
                "high": found.get("high"),
                "missing": missing or ("not scored" if value is None else ""),
            }
            yield Cell(student, row, key, metric, group, printed.value(row, key), ours)


def _asked(suite: Suite, metric: str) -> list[str]:
    """The prompt sets that a metric is for."""
    return [name for name, metrics in suite.metrics_of().items() if metric in metrics]


def _group(suite: Suite, metric: str, category: str | None, prompts: str | None) -> str | None:
    """The part of our prompts that is nearest to a column's: the prompt set with its category's
    name, else the only one of the metric's with its source, else all."""
    asked = _asked(suite, metric)
    if category is not None:
        return category if category in asked else None
    same = [name for name in asked if suite.prompts[name].source == prompts]
    return same[0] if len(same) == 1 else "all"


def _missing(
    suite: Suite, metric: str, group: str | None, category: str | None, student: str
) -> str:
    """Why the run has no value, or ''."""
    if metric not in METRICS:
        return "not measured by ddmd_bench"
    if metric not in suite.metrics:
        return "not among this suite's metrics"
    if group is None:
        return f"no prompt set {category}"
    return student


def _differences(
    printed: Table,
    cells: Sequence[Cell],
    measured: bool,
    run: RunFiles,
    students: dict[str, Any],
) -> list[dict[str, Any]]:
    """What differs, each with the students and columns it is true of; none named: of all."""
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        ours = _protocol_here(run, students[cell.student]["facts"], cell)
        for field, theirs in printed.protocol_of(cell.row, cell.column).items():
            if (field in OF_THE_METRIC and not measured) or (field == "gan" and "gan" not in ours):
                continue
            if pair := _differing(theirs, ours.get(field)):
                found.setdefault((field, *pair), []).append(cell)
    everyone, everything = ({getattr(c, k) for c in cells} for k in ("student", "column"))

    def named(names: list[str], whole: set[str]) -> list[str]:
        return [] if set(names) == whole else list(dict.fromkeys(names))

    return [
        {
            "field": field,
            "theirs": theirs,
            "ours": ours,
            "students": named([c.student for c in where], everyone),
            "columns": named([c.column for c in where], everything),
        }
        for (field, theirs, ours), where in sorted(
            found.items(), key=lambda item: PROTOCOL_FIELDS.index(item[0][0])
        )
    ]


def _differing(theirs: Stated, ours: Any) -> tuple[str, str] | None:
    """Both sides in words where they differ, or where they may."""
    if theirs.value is not None and theirs.value == ours and not theirs.inferred:
        return None
    text = NOT_STATED if theirs.value is None else _words(theirs.value)
    if theirs.inferred:
        text += " (inferred, not stated)"
    return text, NOT_RECORDED if ours is None else _words(ours)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "none"


def _protocol_here(run: RunFiles, facts: dict[str, Any], cell: Cell) -> dict[str, Any]:
    """This run's protocol for one cell, in the fields of a published one; what is not known is
    None. A metric's own fields are what the protocol records under `metrics`."""
    suite, protocol = run.suite, run.protocol
    inside = [cell.group] if cell.group in suite.prompts else _asked(suite, cell.metric)
    sets = [suite.prompts[name] for name in inside]
    num_prompts = sum(p.num_prompts for p in sets)
    student = suite.students[cell.student]
    here = {
        "prompts": ", ".join(dict.fromkeys(p.source for p in sets)),
        "num_prompts": num_prompts,
        "images_per_prompt": _images_per_prompt(inside, sets),
        # A student's own size first: some are drawn at another than the suite's.
        "resolution": _side(facts.get("resolution") or protocol.get("resolution")),
        "num_inference_steps": facts.get("num_inference_steps"),
        "num_reference": _num_reference(run, cell.metric, num_prompts),
        **protocol.get("metrics", {}).get(cell.metric, {}),
    }
    if student.method is not None:
        here["gan"] = METHODS[student.method].gan
    return here


def _num_reference(run: RunFiles, metric: str, num_prompts: int) -> int | None:
    """How many real images a metric compares with; None where nobody says of how many they are."""
    if run.suite.reference.statistics is None:
        return num_prompts * run.suite.reference.images_per_prompt
    extractor = METRICS[metric].extractor if metric in METRICS else None
    real = run.reference.get(extractor or "")
    return None if real is None else real.num_images


def _images_per_prompt(names: Sequence[str], sets: Sequence[PromptSet]) -> int | str:
    counts = [p.images_per_prompt for p in sets]
    if len(set(counts)) == 1:
        return counts[0]
    return ", ".join(f"{n} {count}" for n, count in zip(names, counts, strict=True))


def _side(resolution: Any) -> Any:
    """Pixels per side of a square given as [height, width]; width x height of another."""
    if isinstance(resolution, list):
        square = len(set(resolution)) == 1
        return resolution[0] if square else " x ".join(map(str, reversed(resolution)))
    return resolution
