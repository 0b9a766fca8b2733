"""Reports that were written, by this version or by any before it, in the form of today's.

Schema 1 has grown: the first reports were of one seed, those before `folders` cannot be a baseline,
those before `spreads` tell no power. What a reader needs of these it asks for by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.forms import MAYBE_NUMBER, NUMBER, misfit
from ddmd_bench.files.records import SCHEMA, read_versioned
from ddmd_bench.reporting.expected import PROVENANCE, SETTINGS
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.power import Spreads

_VALUE = {"value": MAYBE_NUMBER, "n": (int, type(None))}
_SUITE = {**SETTINGS, "name": str, "metrics": [str], "baseline": str}
_SPREADS = {f"{name}?": NUMBER for name in Spreads._fields}
FORMS = {
    SCHEMA: {
        "suite": {**_SUITE, "seeds?": [int], "seed?": int},
        "fingerprint": str,
        "protocol": {},
        "students": {...: {"title": str, "missing": str, "facts": {"n?": int}}},
        "table": {...: {...: {"all": _VALUE, ...: _VALUE}}},
        "differences": [{"student": str, "metric": str, "spreads?": (_SPREADS, type(None))}],
        "first_updates": {...: {}},
        "provenance": PROVENANCE,
        "clock": {...: {...: MAYBE_NUMBER}},
        "folders?": {...: str},
    }
}
# What a report of today has beyond that, and one of one seed is given.
_TODAY = {
    "suite": {"seeds": [int]},
    "table": {...: {...: {...: {"by_seed": {...: _VALUE}}}}},
    "first_updates": {...: {...: {...: MAYBE_NUMBER}}},
}
AGAIN = "Make the report again: `python -m ddmd_bench report SUITE`"


def read_report(path: Path) -> dict[str, Any]:
    """The record of a report.json, or of the folder that holds one."""
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise BenchError(f"{file}: no such report. Give a report.json, or the folder that holds it")
    record = read_versioned(file, FORMS, AGAIN)
    if "seed" in record["suite"]:
        record = _by_seed(record)
    if wrong := misfit(record, _TODAY) or next(_disagreeing(record), ""):
        raise Unreadable(f"{file}: {wrong}. {AGAIN}")
    return record


def _disagreeing(record: dict[str, Any]) -> Iterator[str]:
    """Where parts of a report do not belong together."""
    suite, students, table = (record[part] for part in ("suite", "students", "table"))
    for name in [*table, *(row["student"] for row in record["differences"]), suite["baseline"]]:
        if name not in students:
            yield f"it has no student {name!r}, of which it holds values"
    for metric in suite["metrics"]:
        if metric not in METRICS:
            yield f"this version has no metric {metric!r}"
        if lacking := [name for name, row in table.items() if metric not in row]:
            yield f"its table has no {metric} of {lacking[0]}"
    cells = (cell for row in table.values() for groups in row.values() for cell in groups.values())
    known = {str(seed) for seed in suite["seeds"]}
    if strange := {seed for cell in cells for seed in cell["by_seed"]} - known:
        yield f"it has values of the seed {min(strange)}, which is none of its suite's"
    for row in record["differences"]:
        if (spreads := row.get("spreads")) and not _are_spreads(spreads):
            yield f"spreads of {row['student']} on {row['metric']} are none of this version's"


def _are_spreads(found: dict[str, float]) -> bool:
    """Variances, and numbers of what there is at least one of."""
    least = {name: 1 if name.startswith("num_") else 0 for name in Spreads._fields}
    return found.keys() == least.keys() and all(found[name] >= least[name] for name in least)


def _by_seed(record: dict[str, Any]) -> dict[str, Any]:
    """A report of one seed as it would be of several."""
    suite = dict(record["suite"])
    seed = str(suite.pop("seed"))

    def with_seed(cell: dict[str, Any]) -> dict[str, Any]:
        return {**cell, "by_seed": {seed: {name: cell[name] for name in _VALUE}}}

    table = {
        student: {
            metric: {group: with_seed(cell) for group, cell in groups.items()}
            for metric, groups in row.items()
        }
        for student, row in record["table"].items()
    }
    suite["seeds"] = [int(seed)]
    updates = {seed: record["first_updates"]}
    return {**record, "suite": suite, "table": table, "first_updates": updates}
