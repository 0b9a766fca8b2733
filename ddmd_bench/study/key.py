"""What only the maker of a study knows: whose each image is, and what every screen is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.reading import refuse
from ddmd_bench.files.records import read_versioned

KEY, PAGE = "key.json", "page"  # beside each other; the second alone is handed out
SCHEMA = 1
FORMS = ("ranking", "pairs", "side-by-side")
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
    """Raise where a part does not fit the others."""
    if record["form"] not in FORMS:
        raise refuse(path, f"form {record['form']!r}", f"one of {', '.join(FORMS)}")
    for number, one in enumerate(sets):
        if wrong := _wrong_in(one, record):
            raise refuse(path, f"set {number} {wrong}", "a whole set")
    for screens in record["screens"]:
        for screen in screens:
            number, order = screen["set"], screen["order"]
            if not 0 <= number < len(sets):
                raise refuse(path, f"a screen of set {number}", f"one of {len(sets)} sets")
            if sorted(order) != list(range(len(sets[number].columns))):
                raise refuse(path, f"order {order} of set {number}", "each of its columns once")


def _wrong_in(one: Set, record: dict[str, Any]) -> str:
    images, students = record["images"], record["students"]
    if one.kind not in (JUDGED, OBVIOUS):
        return f"is of kind {one.kind!r}"
    if not one.prompt_ids or len(one.columns) < 2:
        return f"has {len(one.prompt_ids)} prompts and {len(one.columns)} columns"
    for column in one.columns:
        if len(column) != len(one.prompt_ids):
            return f"has {len(column)} images of {len(one.prompt_ids)} prompts"
        if lost := [name for name in column if name not in images]:
            return f"names image {lost[0]} without saying whose it is"
    shown = [{images[name]["student"] for name in column} for column in one.columns]
    if one.kind == JUDGED:
        names = [name for own in shown for name in own]
        if len(names) != len(shown) or len({*names}) != len(names) or {*names} - students.keys():
            return f"shows images of {sorted(names)}, not of a student in each column"
    return ""
