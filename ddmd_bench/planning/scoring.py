"""What is measured: the metrics and their scorers, examined first, then asked about every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from ddmd_bench.errors import unknown
from ddmd_bench.measuring.reference import statistics_inputs
from ddmd_bench.planning.part import Asked, Cost, Downloads, Part, TaskKind
from ddmd_bench.planning.sizes import FLOAT32, RECORD
from ddmd_bench.planning.task import REFERENCE, Tasks
from ddmd_bench.scorers import (
    METRICS,
    SCORERS,
    needed_scorers,
    outside_scorers,
    scorer_remotes,
    scorer_weights,
    weights_sha256,
)
from ddmd_bench.suite.schema import Scoring

# Files of the package that determine what scorers say.
MEASURING_SOURCES = (
    "files/decoding.py",
    "files/memory.py",
    "measuring/one_pass.py",
    "measuring/sheets.py",
    "measuring/encoded_prompts.py",
    "scorers/**/*.py",
    "measuring/measure.py",
    "measuring/features.py",
    "measuring/aggregates.py",
)
_DOCTOR_SOURCES = (*MEASURING_SOURCES, "measuring/doctor.py", "stages/doctor.py")
_SOURCES = ("files/records.py", *MEASURING_SOURCES, "stats/*.py", "stages/score.py")


def known_metrics(metrics: Iterable[str]) -> list[str]:
    """Those that there are."""
    return [name for name in metrics if name in METRICS]


def bytes_of_answers(asked: Asked) -> int:
    """What the scorers' answers take on disk for one image."""
    scorers = needed_scorers(known_metrics(asked.suite.metrics))
    # Kept with each scorer's answers, and beside the values.
    features = 2 * FLOAT32 * sum(SCORERS[name].num_features or 0 for name in scorers)
    return features + RECORD


def _problems(asked: Asked) -> Iterator[str]:
    for name in asked.suite.metrics:
        if name not in METRICS:
            yield unknown("metric", name, METRICS)


def _protocol(asked: Asked) -> Mapping[str, Any]:
    suite = asked.suite
    protocol: dict[str, Any] = {"scorers": weights_sha256(needed_scorers(suite.metrics))}
    if facts := {name: dict(METRICS[name].facts) for name in suite.metrics if METRICS[name].facts}:
        protocol["metrics"] = facts
    if suite.scoring.dtype != Scoring().dtype:
        protocol["scoring_dtype"] = suite.scoring.dtype
    return protocol


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite = asked.suite
    if examined := outside_scorers(suite.all_metrics):
        asked_of = {"dtype": suite.scoring.dtype, "scorers": weights_sha256(examined)}
        tasks.add("doctor", asked_of, _DOCTOR_SOURCES)
    shared: dict[str, Any] = {
        **statistics_inputs(suite.reference.statistics),
        "scorers": weights_sha256(needed_scorers(suite.metrics)),
        "dtype": suite.scoring.dtype,
        "metrics": sorted(suite.metrics),
        "intervals_over": suite.intervals_over,
    }
    if (reference := tasks.key("reference")) is not None:
        shared["reference"] = reference
    for name, seed in product(suite.students, suite.seeds):
        inputs = {**shared, "images": tasks.key("generate", name, seed)}
        needs = [REFERENCE, ("generate", name, seed)]
        tasks.add("score", inputs, _SOURCES, name, seed, needs=needs)


def _downloads(asked: Asked) -> Downloads:
    metrics = known_metrics(asked.suite.all_metrics)
    return Downloads(tuple(scorer_remotes(metrics)), tuple(scorer_weights(metrics)))


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    cost = Cost(disk=asked.num_images * bytes_of_answers(asked))
    return {("score", name): cost for name in asked.suite.students}


SCORING = Part(_problems, _protocol, _add_tasks, downloads=_downloads, costs=_costs)
