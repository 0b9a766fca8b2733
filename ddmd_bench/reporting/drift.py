"""Hold a run against expected values: ok, drift or incomparable, never a false ok.

A student that is not trained is held to the very seed. A trained one is held to its value at the
same seed, within what trainings differ in by their seeds: rounding, all that may move it with
nothing changed, brings about less. At a further seed it may leave the known ones by what a seed
may, beside what all students share (`reporting.seed_spreads`): `FALSE_ALARMS` of such runs with
nothing changed are drift, which `benchmarks.gate` measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np

from ddmd_bench.files.records import SCHEMA, differing
from ddmd_bench.reporting.checked import Checked, Held, Status
from ddmd_bench.reporting.expected import (
    by_seed,
    edited,
    report_sha256,
    settings_of,
    with_defaults,
)
from ddmd_bench.reporting.numbers import apart, significant
from ddmd_bench.reporting.seed_spreads import Spreads, limit, scale_of, spreads_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.ends import Array

FALSE_ALARMS = 0.02  # share of runs at a further seed with nothing changed
# The same draws on another CPU differ by rounding alone: AVX2 instead of AVX-512 kernels moved the
# values of the smoke suite by at most 4e-5 of themselves, trained students included.
SAME_SEED_RELATIVE = 2e-3
ROUNDING = 1e-6
# Of provenance: what says nothing of values.
_IDLE = {"cpu_count", "sources"}


class _Group(NamedTuple):
    """Students whose values of a metric belong together: the trained ones, or the others."""

    metric: str
    trained: bool
    students: list[str]
    known: Array  # [G, seeds of the expectation], on the metric's scale


def against_expected(record: dict[str, Any], expected: dict[str, Any]) -> Checked:
    """What a report's record is beside an expectation; incomparable before drift before ok."""
    if expected.get("schema") != SCHEMA:
        text = f"{SCHEMA}, expected {expected.get('schema')}"
        return Checked("incomparable", [_plainly("protocol", "schema", text)], [])
    protocol = [*_differing("protocol", record["protocol"], expected["protocol"])]
    if protocol:
        return Checked("incomparable", protocol, [])
    settings = map(with_defaults, (settings_of(record["suite"]), expected["settings"]))
    held = [
        *_differing("settings", *settings),
        *_first_updates(record, expected),
        *_values(record, expected),
    ]
    status: Status = "drift" if any(one.status != "ok" for one in held) else "ok"
    return Checked(status, held, _notes(record, expected, held))


def _plainly(part: str, name: str, text: str) -> Held:
    return Held(part, name, "failed", text, math.inf)


def _status(beyond: float) -> Literal["ok", "failed"]:
    return "failed" if beyond > 1 else "ok"


def _differing(part: str, found: Any, expected: Any) -> Iterator[Held]:
    for line in differing(part, found, expected):
        name, text = line.split(": ", 1)
        yield _plainly(part, name, text)


def _seed_shown(record: dict[str, Any], seed: int) -> str:
    return f", seed {seed}" if len(record["suite"]["seeds"]) > 1 else ""


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric


# First updates


def _first_updates(record: dict[str, Any], expected: dict[str, Any]) -> Iterator[Held]:
    """The first updates at the same seeds: nothing has diverged yet, so they show any change."""
    for seed in sorted({*record["suite"]["seeds"]} & {*expected["seeds"]}):
        known = expected["first_updates"][expected["seeds"].index(seed)]
        found = record["first_updates"].get(str(seed), {})
        for student, row in known.items():
            for series, value in row.items():
                ours = found.get(student, {}).get(series)
                beyond = _rounding(ours, value)
                name = f"{student}, {series}{_seed_shown(record, seed)}"
                told = f"{significant(ours, 6)}, expected {significant(value, 6)}"
                yield Held("first updates", name, _status(beyond), told, beyond)


def _rounding(found: float | None, expected: float | None) -> float:
    """How many times what rounding may do two values lie apart that should be the same."""
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    allowed = max(SAME_SEED_RELATIVE * max(abs(found), abs(expected)), ROUNDING)
    return abs(found - expected) / allowed


# Values


def _values(record: dict[str, Any], expected: dict[str, Any]) -> Iterator[Held]:
    groups = list(_groups(record, expected))
    spreads = spreads_of([group.known for group in groups])
    # One for each student and one for what all share: together they are wrong so often.
    num = sum(len(group.students) + 1 for group in groups) * len(record["suite"]["seeds"])
    alpha = FALSE_ALARMS / max(num, 1)
    yield from _lacking(record, expected)
    for group, spread in zip(groups, spreads, strict=True):
        for seed in record["suite"]["seeds"]:
            yield from _of_seed(record, expected, seed, group, spread, alpha)


def _groups(record: dict[str, Any], expected: dict[str, Any]) -> Iterator[_Group]:
    """Of each metric the trained students and the others, those with a value at every seed."""
    values = expected["values"]
    for metric in dict.fromkeys(metric for row in values.values() for metric in row):
        for trained in (True, False):
            students = [
                name
                for name, row in values.items()
                if _is_trained(expected, name) == trained and None not in row.get(metric, [None])
            ]
            if students:
                known = np.array([values[name][metric] for name in students], np.float64)
                yield _Group(metric, trained, students, scale_of(metric).to(known))


def _is_trained(expected: dict[str, Any], student: str) -> bool:
    return bool(expected["settings"]["students"][student]["source"] == "train")


def _lacking(record: dict[str, Any], expected: dict[str, Any]) -> Iterator[Held]:
    """Values of another number of images, and those that are missing on one side."""
    for student, row in expected["values"].items():
        for metric, known in row.items():
            n = expected["n"][student][metric]
            cells = by_seed(record, student, metric)
            for seed, found in zip(record["suite"]["seeds"], cells, strict=True):
                name = f"{student}, {_title(metric)}{_seed_shown(record, seed)}"
                if found["n"] != n:
                    yield _plainly("values", name, f"n {found['n']}, expected {n}")
                elif {found["value"], *known} != {None} and None in (found["value"], *known):
                    text = f"{found['value']}, expected {known}: a value is missing"
                    yield _plainly("values", name, text)


def _of_seed(
    record: dict[str, Any],
    expected: dict[str, Any],
    seed: int,
    group: _Group,
    spread: Spreads,
    alpha: float,
) -> Iterator[Held]:
    """A group's values at one seed of the run."""
    metric, shown = group.metric, _seed_shown(record, seed)
    place = record["suite"]["seeds"].index(seed)
    cells = [by_seed(record, student, metric)[place] for student in group.students]
    asked = [expected["n"][student][metric] for student in group.students]
    rows = [g for g, c in enumerate(cells) if c["n"] == asked[g] and c["value"] is not None]
    if not rows:
        return
    names = [f"{group.students[g]}, {_title(metric)}{shown}" for g in rows]
    values = [float(cells[g]["value"]) for g in rows]
    if seed in expected["seeds"]:
        column, num_seeds, df = expected["seeds"].index(seed), 1, math.inf
        if not group.trained:
            same = [expected["values"][group.students[g]][metric][column] for g in rows]
            yield from map(_the_same, [metric] * len(rows), names, values, same)
            return
        centres = group.known[rows, column]
    else:
        num_seeds, df = group.known.shape[1], spread.own_df
        centres = group.known[rows].mean(1)
        if len(group.students) > 1:
            found = scale_of(metric).to(np.array(values, np.float64))
            half = limit(spread.common, spread.common_df, num_seeds, alpha)
            yield _together(metric, shown, found, centres, half, group.trained)
            centres = centres + (found - centres).mean()
    for g, name, value, centre in zip(rows, names, values, centres, strict=True):
        half = limit(float(spread.own[g]), df, num_seeds, alpha)
        yield _within(metric, name, value, float(centre), half)


def _the_same(metric: str, name: str, value: float, same: float) -> Held:
    beyond = _rounding(value, same)
    text = apart(metric, value, same)
    told = f"{text[0]}, expected {text[1]} at this seed"
    return Held("values", name, _status(beyond), told, beyond)


def _within(metric: str, name: str, value: float, centre: float, half: float) -> Held:
    """A value beside the range centre +- half of its scale; rounding alone is never beyond it."""
    scale = scale_of(metric)
    middle = float(scale.back(np.float64(centre)))
    low, high = (float(scale.back(np.float64(centre + s * half))) for s in (-1, 1))
    text = apart(metric, value, low, high)
    told = f"{text[0]}, expected {text[1]} to {text[2]}"
    rounding = _rounding(value, middle)
    off = abs(float(scale.to(np.float64(value))) - centre)
    beyond = off / half if half > 0 else rounding
    if rounding <= 1:
        beyond = min(beyond, rounding)
    return Held("values", name, _status(beyond), told, beyond)


def _together(
    metric: str, shown: str, found: Array, means: Array, half: float, trained: bool
) -> Held:
    """What all students of a group moved by together."""
    scale = scale_of(metric)
    name = f"all {'trained' if trained else 'other'} students, {_title(metric)}{shown}"
    now, then = (float(scale.back(x.mean())) for x in (found, means))
    low, high = (float(scale.back(means.mean() + s * half)) for s in (-1, 1))
    text = apart(metric, now, low, high)
    beyond = _rounding(now, then)
    if beyond > 1:
        beyond = abs(float(found.mean() - means.mean())) / half if half > 0 else beyond
    told = f"{text[0]} on average, expected {text[1]} to {text[2]}"
    return Held("values", name, _status(beyond), told, beyond)


# Notes


def _notes(record: dict[str, Any], expected: dict[str, Any], held: list[Held]) -> list[str]:
    notes = []
    if any(one.part == "first updates" and one.status != "ok" for one in held):
        notes.append("first updates differ: that is not chance. Code, weights or libraries changed")
    if edited(expected):
        notes.append("the file of expected values was edited by hand: its digest is of others")
    if any(one["sha256"] == report_sha256(record) for one in expected.get("reports", [])):
        notes.append("this very report is one of those that the expected values were made from")
    ours, theirs = record["provenance"], expected["provenance"]
    if changes := list(changed_since(ours, theirs)):
        notes.append(f"changed since the expected values were made: {'; '.join(changes)}")
    elif known := theirs.get("common"):
        commits = known.get("commit"), ours.get("common", {}).get("commit")
        same = "packages, device and weights are those of the expected values"
        notes.append(same if None in commits else f"commit, {same}")
    return notes


def changed_since(found: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """What made a run beside what made an expectation, where that is known of both."""
    theirs, ours = (dict(_flat("", each.get("common", {}))) for each in (known, found))
    for key in sorted(theirs):
        if key.split(".")[0] in found.get("varying", {}):
            yield f"{key} differs between the run's tasks, was {_short(theirs[key])}"
        elif None not in (theirs[key], ours.get(key)) and ours[key] != theirs[key]:
            yield f"{key} {_short(theirs[key])}, now {_short(ours[key])}"


def _flat(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in _IDLE:
                yield from _flat(f"{where}.{key}" if where else key, inner)
    else:
        yield where, value


def _short(value: Any) -> str:
    """Hashes by their first digits."""
    text = str(value)
    return text[:10] if len(text) in (40, 64) and " " not in text else text
