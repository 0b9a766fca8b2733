"""A card for each student: what it is, where its terms re-noise, what it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ddmd_bench.objective.methods import BELOW_T, METHODS, Method
from ddmd_bench.reporting.numbers import metric_shown, shown, unit_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import Suite

SOURCES = {
    "train": "Trained here",
    "teacher": "The teacher itself",
    "real": "Real images of the same prompts",
    "published": "Published by its authors",
    "checkpoint": "From a checkpoint",
    "images": "Images that were there",
}
SIDE = 100.0  # of a schedule's picture; t to the right, tau upwards


class Schedule(NamedTuple):
    """Where a term may add noise again: tau for each t, as points of a picture and in words."""

    term: str
    points: str
    words: str


# The kinds of students that draw; executed by a test.
SNIPPET = """\
from pathlib import Path
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.stages.generate import drawn_first
from ddmd_bench.suite.files import load_suite

plan = make_plan(load_suite("path/to/this/report"), Path("runs"), Path("reports"))
drawn_first(plan, {name!r}, {seed}).save("first.png")
"""


def cards(record: dict[str, Any], suite: Suite) -> dict[str, dict[str, Any]]:
    """By student, in the suite's order."""
    return {
        name: {
            "what": ", ".join(_what(suite, name)),
            "values": list(_values(record, name)),
            "cost": ", ".join(_cost(record, name)),
            "levels": _levels(suite, name),
            "schedules": list(_schedules(suite, name)),
            "settings": list(_settings(suite, name)),
            "snippet": _snippet(suite, name),
        }
        for name in suite.students
    }


def _what(suite: Suite, name: str) -> Iterator[str]:
    student = suite.students[name]
    yield SOURCES[student.source]
    if student.method:
        method = METHODS[student.method]
        yield f"method {method.title}"
        yield from _beside(method)
    if student.published:
        yield student.published
    if student.checkpoint:
        yield student.checkpoint.repository
    for adapter in student.adapters:
        yield f"with {adapter.repository}"


def _beside(method: Method) -> Iterator[str]:
    if method.shared_draw:
        yield "CA and DM at one level with one noise"
    if method.mean_variance:
        yield "beside it the mean-variance KL"
    if method.gan:
        yield "beside it a GAN loss"


def _values(record: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    for metric in record["suite"]["metrics"]:
        value = record["table"][name].get(metric, {}).get("all", {}).get("value")
        if value is not None:
            yield METRICS[metric].title, metric_shown(metric, value) + unit_of(metric)


def _cost(record: dict[str, Any], name: str) -> Iterator[str]:
    facts, clock = record["students"][name]["facts"], record["clock"][name]
    if evaluations := facts.get("network_evaluations"):
        yield f"{evaluations} network evaluations an image"
    if rate := clock.get("images_per_s"):
        yield f"{shown(1 / rate, 3)} s an image"
    if seconds := clock.get("train_seconds"):
        yield f"{facts.get('num_iterations')} updates in {shown(seconds, 0)} s"
    if memory := clock.get("peak_memory_gib"):
        yield f"{shown(memory, 2)} GiB at most while it was trained"


def _levels(suite: Suite, name: str) -> list[float]:
    """The noise levels of the student's steps, in the picture's width."""
    if suite.students[name].method is None:
        return []
    return [SIDE * t for t in suite.train_settings(name).t_list]


def _schedules(suite: Suite, name: str) -> Iterator[Schedule]:
    """As `objective.schedules.tau_of` draws them."""
    method = METHODS[suite.students[name].method or ""] if suite.students[name].method else None
    if method is None:
        return
    low, high = suite.train_settings(name).tau_range
    for term, schedule in (("CA", method.tau_ca), ("DM", method.tau_dm)):
        if schedule is None:
            yield Schedule(term, "", "absent")
        elif schedule == BELOW_T:
            corners = [(low, low), (high, high), (1, high), (1, low)]
            yield Schedule(term, _points(corners), f"τ from {low:g} up to t")
        else:
            corners = [(0, low), (0, high), (1, high), (1, low)]
            yield Schedule(term, _points(corners), f"τ from {low:g} to {high:g}")


def _snippet(suite: Suite, name: str) -> str:
    """Lines that draw the student's first image again, with the run's files and packages."""
    if suite.students[name].source in ("real", "images"):
        return ""
    return SNIPPET.format(name=name, seed=suite.seeds[0])


def _points(corners: list[tuple[float, float]]) -> str:
    return " ".join(f"{SIDE * t:g},{SIDE * (1 - tau):g}" for t, tau in corners)


def _settings(suite: Suite, name: str) -> Iterator[tuple[str, str, str]]:
    """What was set otherwise than for the baseline: key, its value, the baseline's."""
    if not all(suite.students[one].source == "train" for one in (name, suite.baseline)):
        return
    own, theirs = (
        suite.train_settings(one).model_dump(mode="json") for one in (name, suite.baseline)
    )
    yield from ((key, str(own[key]), str(theirs[key])) for key in own if own[key] != theirs[key])
