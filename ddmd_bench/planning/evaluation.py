"""Evaluation while training, as a plan sees it: what can be checked early, and what keys it."""

from __future__ import annotations

from typing import Any

from ddmd_bench.backends import Backend
from ddmd_bench.data.prompts import Prompt, head_in_proportion, prompts_key
from ddmd_bench.errors import unknown
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.measuring.reference import statistics_inputs, statistics_problems
from ddmd_bench.scorers import METRICS, SCORERS, Metric, needed_scorers, weights_sha256
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.suite.schema import Evaluation, Suite

_SOURCES = (
    "students/drawing.py",
    "files/decoding.py",
    "measuring/one_pass.py",
    "scorers/**/*.py",
    "stats/*.py",
    "measuring/measure.py",
    "training/evaluation.py",
)


def evaluation_problems(suite: Suite, settings: Evaluation, backend: Backend) -> list[str]:
    """What is wrong with the settings that a suite file alone does not show."""
    problems = []
    for name in settings.metrics:
        if name not in METRICS:
            problems.append("evaluation.metrics: " + unknown("metric", name, METRICS))
            continue
        metric = METRICS[name]
        if name == settings.keep_best and metric.better == "reference":
            problems.append(
                f"evaluation.keep_best: {name} is best where real images have it, so that neither "
                "a higher nor a lower value is better; name another metric"
            )
        if metric.kind == "prompt" and settings.images_per_prompt < 2:
            problems.append(
                f"evaluation.metrics: {name} compares the images of one prompt; set "
                f"evaluation.images_per_prompt (now {settings.images_per_prompt}) to 2 or more"
            )
        if metric.kind == "distribution":
            problems += _distance_problems(name, metric, suite, settings, backend)
    return problems


def _distance_problems(
    name: str, metric: Metric, suite: Suite, settings: Evaluation, backend: Backend
) -> list[str]:
    statistics = suite.reference.statistics
    if backend.draw_real is None and statistics is None:
        problem = f"{name} compares with real images, and backend {suite.backend} draws none"
        return [f"evaluation.metrics: {problem}; leave it out"]
    num_features = SCORERS[metric.extractor or ""].num_features
    assert num_features is not None, f"{metric.extractor} gives features"
    fewest = DISTANCES[metric.distance or ""].fewest(num_features)
    problems = []
    sides = [("a student's", "evaluation.images_per_prompt", settings.images_per_prompt)]
    if statistics is None:
        sides.append(("real", "reference.images_per_prompt", suite.reference.images_per_prompt))
    else:
        problems += statistics_problems(statistics, [metric.extractor or ""])
    for what, key, per_prompt in sides:
        found = settings.num_prompts * per_prompt
        if found < fewest:
            problems.append(
                f"evaluation.metrics: {name} compares {num_features} features, which "
                f"takes {fewest} images or more, found {found} {what} "
                f"({settings.num_prompts} prompts x {per_prompt}). Raise evaluation.num_prompts or "
                f"{key}, or leave it out"
            )
    return problems


def evaluation_inputs(
    suite: Suite, settings: Evaluation, prompts: tuple[Prompt, ...]
) -> dict[str, Any]:
    """What determines the evaluations of a training, beside what determines the training."""
    inputs = {
        **settings.model_dump(mode="json"),
        "prompts": prompts_key(head_in_proportion(prompts, settings.num_prompts)),
        "scorers": weights_sha256(needed_scorers(settings.metrics)),
        "sources": source_sha256(*_SOURCES),
    }
    if any(METRICS[name].kind == "distribution" for name in settings.metrics):
        inputs["reference_images_per_prompt"] = suite.reference.images_per_prompt
        inputs |= statistics_inputs(suite.reference.statistics)
    return inputs
