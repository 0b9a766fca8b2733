"""Hold a run against expected values: ok, drift or incomparable, never a false ok.

The expectation is made from the same suite run with several seeds. A value may leave their mean by
what a further seed may, 1 in 10,000; a student that is not trained is held to the very seed.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from ddmd_bench.errors import BenchError
from ddmd_bench.files.carried import carried_folders
from ddmd_bench.files.records import SCHEMA, differing, write_json
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.suite.students import Checkpoint, Student

Status = Literal["ok", "drift", "incomparable"]

EXIT_CODES: dict[str, int] = {"ok": 0, "drift": 1, "incomparable": 2}
FALSE_ALARM = 1e-4  # of one value; a suite holds some 70
# The same draws on another CPU differ by rounding alone: AVX2 instead of AVX-512 kernels moved the
# values of the smoke suite by at most 4e-5 of themselves, trained students included.
SAME_SEED_RELATIVE = 2e-3
# Settings that may differ without a difference in what is measured.
_FREE_SETTINGS = {"name", "title", "description", "seeds", "claims", "baseline", "trackers"}


_ABSENT = {"value": None, "n": None}


class CheckResult(NamedTuple):
    """The status and, line by line, its reasons."""

    status: Status
    lines: list[str]


def find_expected(suite: str) -> Path:
    """The suite's committed expectation, in the working folder, the clone or the package."""
    folders = [Path("reference_stats"), *carried_folders("reference_stats")]
    paths = [folder / f"{suite}.expected.json" for folder in folders]
    for path in paths:
        if path.is_file():
            return path
    raise BenchError(
        f"no expected values for suite {suite!r}: {paths[0]} does not exist. "
        f"Make them with `python -m ddmd_bench expect {suite} --seeds 0,1,2`"
    )


def write_expected(records: list[dict[str, Any]], folder: Path) -> Path:
    """Write `<suite>.expected.json` from the report records of one suite, each at other seeds."""
    first = records[0]
    shared = [(record["fingerprint"], _settings(record["suite"])) for record in records]
    if any(each != shared[0] for each in shared):
        raise BenchError(
            "the seeds' runs do not share protocol and settings: run them with one version"
        )
    values = {
        student: {
            metric: [
                one["value"] for record in records for one in _by_seed(record, student, metric)
            ]
            for metric in row
        }
        for student, row in first["table"].items()
    }
    path = folder / f"{first['suite']['name']}.expected.json"
    expected = {
        "schema": SCHEMA,
        "suite": first["suite"]["name"],
        "seeds": [seed for record in records for seed in record["suite"]["seeds"]],
        "provenance": first["provenance"],
        "protocol": first["protocol"],
        "settings": _settings(first["suite"]),
        "n": {
            student: {metric: _by_seed(first, student, metric)[0]["n"] for metric in row}
            for student, row in first["table"].items()
        },
        "values": values,
        "first_updates": [row for record in records for row in record["first_updates"].values()],
    }
    write_json(path, expected)
    return path


def against_expected(record: dict[str, Any], expected: dict[str, Any]) -> CheckResult:
    """What a report's record is beside an expectation; incomparable before drift before ok."""
    if expected.get("schema") != SCHEMA:
        return CheckResult("incomparable", [f"schema: {SCHEMA}, expected {expected.get('schema')}"])
    protocol = list(differing("protocol", record["protocol"], expected["protocol"]))
    if protocol:
        return CheckResult("incomparable", protocol)
    settings = (_settings(record["suite"]), expected["settings"])
    lines = list(differing("settings", *map(_with_defaults, settings)))
    lines += _value_lines(record, expected)
    lines += _first_updates_lines(record, expected)
    return CheckResult("drift" if lines else "ok", lines)


def _by_seed(record: dict[str, Any], student: str, metric: str) -> list[dict[str, Any]]:
    """Value and n of each seed of a report, in order; absent ones for a student it lacks."""
    cell = record["table"].get(student, {}).get(metric, {}).get("all", {"by_seed": {}})
    return [cell["by_seed"].get(str(seed), _ABSENT) for seed in record["suite"]["seeds"]]


def _settings(suite: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in suite.items() if key not in _FREE_SETTINGS}


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """An option younger than the expectation had its default, which changes nothing."""
    younger = {
        key: field.get_default()
        for key, field in Suite.model_fields.items()
        if not field.is_required() and key not in _FREE_SETTINGS | settings.keys()
    }
    parts = {
        key: {**part().model_dump(mode="json"), **settings.get(key, {})}
        for key, part in {"train": TrainSettings, "model": Model}.items()
    }
    students = {name: _student_with_defaults(row) for name, row in settings["students"].items()}
    return {**younger, **settings, **parts, "students": students}


def _student_with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    whole = {**_defaults(Student), **row}
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
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def _value_lines(record: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    lines = []
    metrics = {metric for row in expected["values"].values() for metric in row}
    for metric in sorted(metrics):
        rows = {student: row[metric] for student, row in expected["values"].items()}
        spread = _pooled_relative_spread(rows)
        for student, known in rows.items():
            n = expected["n"][student][metric]
            cells = _by_seed(record, student, metric)
            for seed, found in zip(record["suite"]["seeds"], cells, strict=True):
                name = f"{student} {metric}{_seed_shown(record, seed)}"
                if found["n"] != n:
                    lines.append(f"{name}: n {found['n']}, expected {n}")
                elif found["value"] is None or None in known:
                    if found["value"] is not None or set(known) != {None}:
                        lines.append(
                            f"{name}: {found['value']}, expected {known}: a value is missing"
                        )
                else:
                    paired = _paired(record, expected, student, seed)
                    lines += _one_value(name, found["value"], known, spread, paired)
    return lines


def _seed_shown(record: dict[str, Any], seed: int) -> str:
    return f", seed {seed}" if len(record["suite"]["seeds"]) > 1 else ""


def _paired(
    record: dict[str, Any], expected: dict[str, Any], student: str, seed: int
) -> int | None:
    """Position of a seed among the expected, for a student without training."""
    trained = record["suite"]["students"][student]["source"] == "train"
    return None if trained or seed not in expected["seeds"] else expected["seeds"].index(seed)


def _one_value(
    name: str, value: float, known: list[float], spread: float, paired: int | None
) -> list[str]:
    if paired is not None:
        same = known[paired]
        if not math.isclose(value, same, rel_tol=SAME_SEED_RELATIVE, abs_tol=1e-4):
            return [f"{name}: {value:.5g}, expected {same:.5g} at this seed"]
        return []
    mean, tolerance = _mean(known), _tolerance(known, spread)
    if abs(value - mean) <= tolerance:
        return []
    return [f"{name}: {value:.5g}, expected {mean:.5g} within {tolerance:.2g}"]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _std(values: list[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _pooled_relative_spread(rows: dict[str, list[float | None]]) -> float:
    """Median over students of standard deviation over mean: one seed spread for a metric.

    Three seeds alone know a spread badly; all students together know it better.
    """
    relative = sorted(
        _std(known) / abs(_mean(known))
        for values in rows.values()
        if len(known := [v for v in values if v is not None]) > 1 and _mean(known)
    )
    return relative[len(relative) // 2] if relative else 0.0


def _tolerance(known: list[float], relative_spread: float) -> float:
    """Half-width in which a further seed's value falls but for `FALSE_ALARM`."""
    from scipy.stats import norm

    spread = max(_std(known), relative_spread * abs(_mean(known)))
    width = float(norm.isf(FALSE_ALARM / 2)) * math.sqrt(1 + 1 / len(known))
    return width * spread


def _first_updates_lines(record: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The first updates at the same seeds: nothing has diverged yet, so they show any change."""
    lines = []
    for seed in sorted({*record["suite"]["seeds"]} & {*expected["seeds"]}):
        known = expected["first_updates"][expected["seeds"].index(seed)]
        found = record["first_updates"].get(str(seed), {})
        for student, row in known.items():
            for series, value in row.items():
                ours = found.get(student, {}).get(series)
                if not _alike(ours, value):
                    name = f"{student} {series}{_seed_shown(record, seed)}"
                    lines.append(f"{name} in the first updates: {ours}, expected {value}")
    return lines


def _alike(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=SAME_SEED_RELATIVE, abs_tol=1e-6)
