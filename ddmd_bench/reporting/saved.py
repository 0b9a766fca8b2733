"""Reports that were written, by this version or by any before it, in the form of today's.

Schema 1 has grown: the first reports were of one seed, those before `folders` cannot be a baseline,
those before `spreads` tell no power. What a reader needs of these it asks for by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.records import read_versioned
from ddmd_bench.scorers import METRICS

_VALUE = {"value": MAYBE_NUMBER, "n": (int, type(None))}
_CELL = {**_VALUE, "by_seed?": {...: _VALUE}}
_SUITE = {"name": str, "metrics": [str], "baseline": (str, type(None)), "students": {...: {}}}
FORMS = {
    1: {
        "suite": {**_SUITE, "seeds?": [int], "seed?": int},
        "fingerprint": str,
        "protocol": {},
        "students": {...: {"title": str, "missing": str}},
        "table": {...: {...: {"all": _CELL, ...: _CELL}}},
        "differences": [{"student": str, "metric": str, "spreads?": (dict, type(None))}],
        "first_updates": {...: {...: (dict, *MAYBE_NUMBER)}},
        "provenance": {},
        "folders?": {...: str},
    }
}
AGAIN = "Make the report again: `python -m ddmd_bench report SUITE`"


def read_report(path: Path) -> dict[str, Any]:
    """The record of a report.json, or of the folder that holds one."""
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise BenchError(f"{file}: no such report. Give a report.json, or the folder that holds it")
    record = read_versioned(file, FORMS, AGAIN)
    if wrong := next(_disagreeing(record), ""):
        raise Unreadable(f"{file}: {wrong}. {AGAIN}")
    return record if "seeds" in record["suite"] else _by_seed(record)


def _disagreeing(record: dict[str, Any]) -> Iterator[str]:
    """Where parts of a report do not belong together."""
    suite, students, table = (record[part] for part in ("suite", "students", "table"))
    if not ("seeds" in suite or "seed" in suite):
        yield "its suite has no seeds"
    for name in [*table, *(row["student"] for row in record["differences"]), suite["baseline"]]:
        if name is not None and name not in students:
            yield f"it has no student {name!r}, of which it holds values"
    for metric in suite["metrics"]:
        if metric not in METRICS:
            yield f"this version has no metric {metric!r}"
        if lacking := [name for name, row in table.items() if metric not in row]:
            yield f"its table has no {metric} of {lacking[0]}"
    cells = (cell for row in table.values() for groups in row.values() for cell in groups.values())
    for seed in {seed for cell in cells for seed in cell.get("by_seed", suite.get("seeds", ()))}:
        if not str(seed).isdecimal() or int(seed) not in suite.get("seeds", ()):
            yield f"it has values of the seed {seed}, which is none of its suite's"


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
