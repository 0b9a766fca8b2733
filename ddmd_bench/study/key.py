"""What only the maker of a study knows: whose each image is, and what every screen is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.records import read_versioned

KEY, PAGE = "key.json", "page"  # beside each other; the second alone is handed out
SCHEMA = 1
JUDGED, OBVIOUS = "judged", "obvious"
KEY_FORM = {
    "study": str,
    "suite": str,
    "title": str,
    "form": str,
    "ties": bool,
    "students": {...: {"title": str}},
    "images": {...: {"student": str, "prompt_id": str}},
    "sets": [{"kind": str, "prompt_ids": [str], "columns": [[str]]}],
    "screens": [[{"set": int, "order": [int]}]],
    "rule": {"obvious": float},
    "metrics": {...: {...: MAYBE_NUMBER}},
}


class Set(NamedTuple):
    """What one screen compares."""

    kind: str
    prompt_ids: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]  # image names, those of one student in each column


class Key(NamedTuple):
    """A study as its maker knows it."""

    record: dict[str, Any]
    sets: tuple[Set, ...]

    @property
    def students(self) -> list[str]:
        return list(self.record["students"])

    def title(self, student: str) -> str:
        """As a report names it."""
        return str(self.record["students"][student]["title"])

    def student_of(self, column: tuple[str, ...]) -> str:
        """Whose images a column has."""
        return str(self.record["images"][column[0]]["student"])


def read_key(folder: Path) -> Key:
    """The key of a study's folder."""
    path = folder / KEY
    if not path.is_file():
        raise BenchError(
            f"{folder}: no study: it has no {KEY}, which `study make` writes beside {PAGE}/"
        )
    record = read_versioned(path, {SCHEMA: {**KEY_FORM, "schema": int}})
    sets = [
        Set(row["kind"], tuple(row["prompt_ids"]), tuple(map(tuple, row["columns"])))
        for row in record["sets"]
    ]
    _require_whole(path, record, sets)
    return Key(record, tuple(sets))


def _require_whole(path: Path, record: dict[str, Any], sets: list[Set]) -> None:
    named = {name for one in sets for column in one.columns for name in column}
    if strange := sorted(named - record["images"].keys()):
        raise BenchError(f"{path}: names image {strange[0]} without saying whose it is")
    known = {*record["students"], ""}  # '': of an obvious set
    for name, row in record["images"].items():
        if row["student"] not in known:
            raise BenchError(f"{path}: {name}: {unknown('student', row['student'], known)}")
    numbers = {screen["set"] for screens in record["screens"] for screen in screens}
    if numbers and not 0 <= min(numbers) <= max(numbers) < len(sets):
        raise BenchError(f"{path}: a screen shows a set that there is not")
