"""Suite files: found by path or name, overridden from the command line, read, checked, explained.

suite = load_suite("suites/shapes.yaml", ["train.num_iterations=20"])
same = load_suite("reports/shapes")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.carried import carried_folders
from ddmd_bench.files.lines import read_text
from ddmd_bench.files.records import differing, read_record
from ddmd_bench.files.yaml_text import Parsed, parse_yaml
from ddmd_bench.suite.schema import Suite

# A problem between parts is the whole suite's, and begins with one of them: claims[0] is about ...,
# students.dmd.train: batch_size: ...
_PART = re.compile(r"(\w[\w.\[\]]*)(?:: (\w+): )?")
_STEP = re.compile(r"\[(\d+)\]|(\w+)")
SUFFIXES = (".yaml", ".yml")
REPORT = "report.json"  # it holds the suite that it is of
# Keys that were, and what says the same now.
GONE = {
    "gradient_accumulation": (
        "batch_size is what an update sees in all: multiply it by gradient_accumulation, and set "
        "samples_at_once to what batch_size was"
    ),
    "warmup_iterations": "it is warmup_updates now, each network's own",
}


def find_suite(name: str) -> Path:
    """A suite by path, by the name of one that the package carries, or the report that holds it."""
    path = Path(name)
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise BenchError(f"{name}: no such suite file. {_carried_hint(path.stem)}")
        return path
    carried = carried_suites()
    if name in carried:
        return carried[name]
    report = path / REPORT if path.is_dir() else path
    if report.name == REPORT and report.is_file():
        return report
    ends = f" A path must end in .yaml, or be that of a {REPORT}."
    raise BenchError(unknown("suite", name, carried) + ends)


def carried_suites() -> dict[str, Path]:
    """The suites that the package carries, by name."""
    folders = reversed(carried_folders("suites"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _carried_hint(near: str) -> str:
    return f"By name: {unknown('suite', near, carried_suites())}"


def load_suite(name: str, overrides: Sequence[str] = ()) -> Suite:
    """Read, override (`key.path=value`) and check a suite; every problem is named at once."""
    path = find_suite(name)
    record = read_record(path, {"suite": {}, "asked?": {}}) if path.name == REPORT else None
    parsed = parse_yaml(read_text(path), str(path)) if record is None else _asked(path, record)
    data = parsed.data
    if not isinstance(data, dict):
        raise BenchError(f"{path}: expected a mapping with a name, prompts and students")
    for override in overrides:
        _apply(data, override)
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        lines = [
            f"{_source(path, overrides, location)}: {_explain(item)}"
            + _in_line(parsed, location, overrides)
            for item in error.errors()
            for location in [_location(item)]
        ]
        raise BenchError("\n".join(lines)) from error
    if record is not None and not overrides:
        _require_its_defaults(path, suite, record["suite"])
    return suite


def _asked(path: Path, record: dict[str, Any]) -> Parsed:
    """The suite that a report is of, as its file said it."""
    if "asked" not in record:
        raise BenchError(f"{path}: reports kept no suite file when it was made. Name the suite's")
    return Parsed(record["asked"], None)


def _require_its_defaults(path: Path, suite: Suite, said: dict[str, Any]) -> None:
    """Raise where this version reads another suite than the report was made of."""
    now = _like(suite.model_dump(mode="json"), said)
    if others := list(differing("suite", now, said)):
        raise BenchError(
            f"{path}: this version of the package has other defaults than the one that wrote it: "
            f"{others[0]}. Name the suite's file"
        )


def _like(now: Any, said: Any) -> Any:
    """Of what is said now that of which the report knew: later versions have more settings."""
    if isinstance(now, dict) and isinstance(said, dict):
        return {key: _like(part, said[key]) for key, part in now.items() if key in said}
    return now


def _apply(data: dict[str, Any], override: str) -> None:
    path, separator, value = override.partition("=")
    if not separator or not path:
        raise BenchError(f"--set {override}: expected key=value, e.g. train.num_iterations=20")
    *parents, last = path.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise BenchError(f"--set {override}: {parent!r} holds a value, not a mapping")
    data[last] = parse_yaml(value, f"--set {override}").data


def _by_override(overrides: Sequence[str], location: Sequence[str | int]) -> str:
    """The override that a value came by; '' where it is the file's."""
    steps = tuple(map(str, location))
    for override in overrides:
        one = tuple(override.partition("=")[0].split("."))
        if steps and steps[: len(one)] == one[: len(steps)]:
            return override
    return ""


def _source(path: Path, overrides: Sequence[str], location: Sequence[str | int]) -> str:
    override = _by_override(overrides, location)
    return f"--set {override}" if override else str(path)


def _in_line(parsed: Parsed, location: Sequence[str | int], overrides: Sequence[str]) -> str:
    """The line of a problem; nothing where the value is the command line's, or of no one part."""
    if _by_override(overrides, location) or parsed.node is None or not location:
        return ""
    return f" (line {parsed.line_of(location)})"


def _location(item: Any) -> tuple[str | int, ...]:
    """Where in the file a problem is; () where it is of no one part."""
    message = item["msg"].removeprefix("Value error, ")
    found = _PART.match(message)
    if item["loc"] or found is None:
        return tuple(item["loc"])
    steps = _STEP.findall(".".join(filter(None, found.groups())))
    location = tuple(name or int(index) for index, name in steps)
    return location if location[0] in Suite.model_fields else ()


def _known_keys(location: Sequence[str | int]) -> list[str]:
    """Keys of the part of a suite that a location in the file points into."""
    part: Any = Suite
    for step in location:
        container, inner = get_origin(part), get_args(part)
        if container is dict:
            part = inner[1]
        elif container in (list, tuple):
            part = inner[0]
        else:
            part = part.model_fields[step].annotation
        if get_origin(part) in (UnionType, Union):  # it may be left out
            part = next(kind for kind in get_args(part) if kind is not NoneType)
    return list(part.model_fields)


def _explain(item: Any) -> str:
    location = tuple(item["loc"])
    where = ".".join(str(k) for k in location) or "suite"
    if item["type"] == "extra_forbidden":
        known, key = _known_keys(location[:-1]), str(location[-1])
        parent = ".".join(str(k) for k in location[:-1]) or "suite"
        if key in GONE:
            return f"{parent}: there is no {key!r} any more: {GONE[key]}"
        return f"{parent}: " + unknown("key", key, known)
    if item["type"] == "missing":
        return f"{where}: is missing"
    message = item["msg"].removeprefix("Value error, ")
    found = item["input"]
    shown = f" (found {found!r})" if isinstance(found, str | int | float | list) else ""
    return f"{where}: {message}{shown}"
