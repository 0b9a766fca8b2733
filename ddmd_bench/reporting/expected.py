"""Files of expected values: found, written, and what a run's settings are beside theirs.

An expectation is made from the same suite run with several seeds. It holds who made it from which
reports and why, what it replaced, and a digest of itself, by which an edit by hand shows.
"""

from __future__ import annotations

import getpass
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.carried import carried_folders
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.records import (
    SCHEMA,
    as_json,
    canonical_json,
    json_text,
    read_versioned,
    write_json,
)
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.suite.students import Checkpoint, Student
from ddmd_bench.suite.used import FREE

# Settings that may differ without a difference in what is measured.
_FREE_SETTINGS = {
    "name", "title", "description", "seeds", "claims", "baseline", "trackers", "gate", "literature",
}  # fmt: skip
SETTINGS = {
    "train?": {},
    "model?": {},
    "students": {...: {"source": str, "train?": {}, "checkpoint?": (dict, type(None))}},
}
PROVENANCE: dict[str, Any] = {"common": {}, "varying?": {}}
FORMS = {
    SCHEMA: {
        "protocol": {},
        "settings": SETTINGS,
        "seeds": [int],
        "provenance": PROVENANCE,
        "n": {...: {...: int}},
        "values": {...: {...: [MAYBE_NUMBER]}},
        "first_updates": [{...: {...: MAYBE_NUMBER}}],
        # Since expectations keep what they replaced:
        "written?": {"who": str, "when": str, "why": str},
        "reports?": [{"seeds": [int], "sha256": str}],
        "replaced?": [{}],
        "digest?": str,
    }
}
AGAIN = "Make it again: `python -m ddmd_bench expect SUITE --seeds 0,1,2`"
_ABSENT = {"value": None, "n": None}


def find_expected(suite: str) -> Path:
    """The suite's committed expectation, in the working folder, the clone or the package."""
    folders = [Path("reference_stats"), *carried_folders("reference_stats")]
    paths = [folder / f"{suite}.expected.json" for folder in folders]
    for path in paths:
        if path.is_file():
            return path
    raise BenchError(
        f"no expected values for suite {suite!r}: {paths[0]} does not exist. "
        "Make them with `python -m ddmd_bench expect SUITE --seeds 0,1,2`"
    )


def read_expected(path: Path) -> dict[str, Any]:
    """A file of expected values, by this version or by any before it."""
    if not path.is_file():
        raise BenchError(f"{path}: no such file of expected values")
    expected = read_versioned(path, FORMS, AGAIN)
    num, values = len(expected["seeds"]), expected["values"]
    same = all(
        row.keys() == expected["n"].get(student, {}).keys()
        and student in expected["settings"]["students"]
        and all(len(of_seeds) == num for of_seeds in row.values())
        for student, row in values.items()
    )
    if not same or num < 2 or len(expected["first_updates"]) != num:
        raise Unreadable(f"{path}: its values, counts, seeds and students do not agree. {AGAIN}")
    return expected


def write_expected(records: Sequence[dict[str, Any]], where: Path, why: str = "") -> Path:
    """Write the expectation from the report records of one suite, each at other seeds.

    where: its file, or the folder for `<suite>.expected.json`. What stood there is kept in it.
    """
    expected = expectation(records, why)
    path = where if where.suffix == ".json" else where / f"{expected['suite']}.expected.json"
    if path.is_file():
        expected["replaced"] = _history(read_expected(path))
    write_json(path, {**expected, "digest": digest_of(expected)})
    return path


def expectation(records: Sequence[dict[str, Any]], why: str = "") -> dict[str, Any]:
    """What a file of expected values holds of some records, but for its history and digest."""
    first = records[0]
    shared = [(record["fingerprint"], settings_of(record["suite"])) for record in records]
    if any(each != shared[0] for each in shared):
        raise BenchError(
            "the seeds' runs do not share protocol and settings: run them with one version"
        )
    return {
        "schema": SCHEMA,
        "suite": first["suite"]["name"],
        "seeds": [seed for record in records for seed in record["suite"]["seeds"]],
        "written": {
            "who": os.environ.get("GITHUB_ACTOR") or _user(),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "why": why,
        },
        "reports": [
            {"seeds": record["suite"]["seeds"], "sha256": report_sha256(record)}
            for record in records
        ],
        "provenance": first["provenance"],
        "protocol": first["protocol"],
        "settings": settings_of(first["suite"]),
        "n": {
            student: {metric: by_seed(first, student, metric)[0]["n"] for metric in row}
            for student, row in first["table"].items()
        },
        "values": {
            student: {
                metric: [
                    one["value"] for record in records for one in by_seed(record, student, metric)
                ]
                for metric in row
            }
            for student, row in first["table"].items()
        },
        "first_updates": [row for record in records for row in record["first_updates"].values()],
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return "unknown"


def _history(previous: dict[str, Any]) -> list[dict[str, Any]]:
    """What an expectation replaced, oldest first, and itself."""
    older = previous.get("replaced", [])
    return [*older, {k: v for k, v in previous.items() if k not in ("replaced", "digest")}]


def report_sha256(record: dict[str, Any]) -> str:
    """sha256 of the `report.json` that holds a record."""
    return hashlib.sha256(json_text(record).encode()).hexdigest()


def digest_of(expected: Mapping[str, Any]) -> str:
    """sha256 of all that an expectation holds but the digest itself."""
    own = {key: value for key, value in expected.items() if key != "digest"}
    # As a reader has it: keys that are numbers have become text.
    return hashlib.sha256(canonical_json(as_json(own)).encode()).hexdigest()


def edited(expected: Mapping[str, Any]) -> bool:
    """Whether a file was changed after it was written; one without a digest cannot tell."""
    return "digest" in expected and expected["digest"] != digest_of(expected)


def by_seed(record: dict[str, Any], student: str, metric: str) -> list[dict[str, Any]]:
    """Value and n of each seed of a report, in order; absent ones for a student it lacks."""
    cell = record["table"].get(student, {}).get(metric, {}).get("all", {"by_seed": {}})
    return [cell["by_seed"].get(str(seed), _ABSENT) for seed in record["suite"]["seeds"]]


def settings_of(suite: dict[str, Any]) -> dict[str, Any]:
    """All of a suite that determines what is measured."""
    return {key: value for key, value in suite.items() if key not in _FREE_SETTINGS}


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """What must be alike: an option younger than the expectation had its default, which changes
    nothing, and how a training is computed, or what a student is called, moves no value."""
    settings = settings_of(settings)  # an older expectation holds what has become free
    younger = {
        key: value
        for key, value in _defaults(Suite).items()
        if key not in _FREE_SETTINGS | settings.keys()
    }
    parts = {
        key: {**part().model_dump(mode="json"), **settings.get(key, {})}
        for key, part in {"train": TrainSettings, "model": Model}.items()
    }
    parts["train"] = _without_free(parts["train"])
    parts["model"].pop("images_at_once")
    students = {name: _student_with_defaults(row) for name, row in settings["students"].items()}
    return {**younger, **settings, **parts, "students": students}


def _without_free(train: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in train.items() if name not in FREE}


def _student_with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    whole = {**_defaults(Student), **row}
    whole["train"] = _without_free(whole["train"])
    whole.pop("title")
    if whole["checkpoint"] is not None:
        whole["checkpoint"] = {**_defaults(Checkpoint), **whole["checkpoint"]}
    return whole


def _defaults(part: type[BaseModel]) -> dict[str, Any]:
    """Of the options that have one, as JSON has them."""
    found = {
        key: field.get_default(call_default_factory=True)
        for key, field in part.model_fields.items()
        if not field.is_required()
    }
    return {key: _in_json(value) for key, value in found.items()}


def _in_json(default: Any) -> Any:
    if isinstance(default, BaseModel):
        return default.model_dump(mode="json")
    return list(default) if isinstance(default, tuple) else default
