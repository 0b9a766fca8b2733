"""Evaluation while training: what can be known early to go wrong, and what it adds to a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ddmd_bench.data.prompts import head_in_proportion, prompts_key
from ddmd_bench.errors import unknown
from ddmd_bench.files.versions import scorer_versions, versions
from ddmd_bench.measuring.reference import extractors_of, statistics_inputs, statistics_problems
from ddmd_bench.planning.part import Asked, Part
from ddmd_bench.scorers import (
    METRICS,
    SCORERS,
    Metric,
    needed_scorers,
    weights_sha256,
    why_no_value,
)
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.suite.schema import Evaluation


def _problems(asked: Asked) -> Iterator[str]:
    settings = asked.suite.evaluation
    if settings is None:
        return
    for name in settings.metrics:
        if name not in METRICS:
            yield "evaluation.metrics: " + unknown("metric", name, METRICS)
            continue
        metric = METRICS[name]
        if name == settings.keep_best and metric.better == "reference":
            yield (
                f"evaluation.keep_best: {name} is best where real images have it, so that neither "
                "a higher nor a lower value is better; name another metric"
            )
        if metric.kind == "prompt" and settings.images_per_prompt < 2:
            yield (
                f"evaluation.metrics: {name} compares the images of one prompt; set "
                f"evaluation.images_per_prompt (now {settings.images_per_prompt}) to 2 or more"
            )
        texts = [p.text for p in head_in_proportion(asked.prompts, settings.num_prompts)]
        if reason := why_no_value(name, texts):
            yield f"evaluation.metrics: {name}: {reason}. Leave it out, or take other prompts"
        if metric.kind == "distribution":
            yield from _distance_problems(asked, settings, name, metric)


def _distance_problems(
    asked: Asked, settings: Evaluation, name: str, metric: Metric
) -> Iterator[str]:
    suite, backend, statistics = asked.suite, asked.backend, asked.suite.reference.statistics
    if backend.draw_real is None and statistics is None:
        problem = f"{name} compares with real images, and backend {suite.backend} draws none"
        yield f"evaluation.metrics: {problem}; leave it out"
        return
    num_features = SCORERS[metric.extractor or ""].num_features
    assert num_features is not None, f"{metric.extractor} gives features"
    fewest = DISTANCES[metric.distance or ""].fewest(num_features)
    sides = [("a student's", "evaluation.images_per_prompt", settings.images_per_prompt)]
    if statistics is None:
        sides.append(("real", "reference.images_per_prompt", suite.reference.images_per_prompt))
    else:
        yield from statistics_problems(statistics, [name])
    for what, key, per_prompt in sides:
        found = settings.num_prompts * per_prompt
        if found < fewest:
            yield (
                f"evaluation.metrics: {name} compares {num_features} features, which "
                f"takes {fewest} images or more, found {found} {what} "
                f"({settings.num_prompts} prompts x {per_prompt}). Raise evaluation.num_prompts or "
                f"{key}, or leave it out"
            )


def evaluation_inputs(asked: Asked) -> dict[str, Any]:
    """What determines the evaluations of a training, beside what determines the training."""
    settings, reference = asked.suite.evaluation, asked.suite.reference
    if settings is None:
        return {}
    scorers = needed_scorers(settings.metrics)
    inputs = {
        **settings.model_dump(mode="json"),
        "prompts": prompts_key(head_in_proportion(asked.prompts, settings.num_prompts)),
        "scorers": weights_sha256(scorers),
        "versions": versions("evaluation") | scorer_versions(scorers),
        "dtype": asked.backend.dtype,
    }
    inputs |= statistics_inputs(reference.statistics, settings.metrics)
    if reference.statistics is None and extractors_of(settings.metrics):
        inputs["reference_images_per_prompt"] = reference.images_per_prompt
    return {"evaluation": inputs}


EVALUATION = Part(_problems)
