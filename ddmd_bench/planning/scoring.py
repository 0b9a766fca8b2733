"""What is measured: the metrics and their scorers, examined first, then asked about every image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from ddmd_bench.errors import unknown
from ddmd_bench.files.versions import scorer_versions, versions
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
    why_no_value,
)
from ddmd_bench.suite.schema import Scoring, Suite


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
    of_sets = asked.suite.metrics_of()
    for name in asked.suite.metrics:
        if name not in METRICS:
            yield unknown("metric", name, METRICS)
            continue
        fewest = max(
            (SCORERS[scorer].fewest_pixels for scorer in needed_scorers([name])), default=1
        )
        if asked.backend.resolution < fewest:
            yield (
                f"metrics: {name} takes images of {fewest} pixels a side at least, the suite's "
                f"have {asked.backend.resolution}. Leave it out, or set model.resolution"
            )
        texts = [p.text for p in asked.prompts if name in of_sets[p.prompt_set]]
        if reason := why_no_value(name, texts):
            yield f"metrics: {name}: {reason}. Leave it out, or take other prompts"
        per_prompt = [n for of, n in asked.suite.images_per_prompt().items() if name in of_sets[of]]
        if METRICS[name].kind == "prompt" and max(per_prompt, default=2) < 2:
            yield (
                f"metrics: {name} compares the images of one prompt, and each of its prompts has "
                "one. Leave it out, or set images_per_prompt of a prompt set to 2 or more"
            )


def _protocol(asked: Asked) -> Mapping[str, Any]:
    suite = asked.suite
    protocol: dict[str, Any] = {
        "scorers": weights_sha256(needed_scorers(suite.metrics)),
        **_of_sets(suite),
    }
    if facts := {name: dict(METRICS[name].facts) for name in suite.metrics if METRICS[name].facts}:
        protocol["metrics"] = facts
    if suite.scoring.dtype != Scoring().dtype:
        protocol["scoring_dtype"] = suite.scoring.dtype
    return protocol


def _of_sets(suite: Suite) -> dict[str, Any]:
    """The metrics of each prompt set, where not all are for all."""
    of_sets = {name: sorted(metrics) for name, metrics in suite.metrics_of().items()}
    alike = all(metrics == sorted(suite.metrics) for metrics in of_sets.values())
    return {} if alike else {"metrics_of": of_sets}


def _compared(asked: Asked) -> dict[str, Any]:
    """Which images are those of one prompt, where a list holds a text twice: once they were those
    of one text."""
    scorers = needed_scorers(m for m in asked.suite.metrics if METRICS[m].kind == "prompt")
    texts = [prompt.text for prompt in asked.prompts]
    alike = len({*texts}) < len(texts) and any(SCORERS[name].prompt_columns for name in scorers)
    return {"compared": "images of one prompt id"} if alike else {}


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite = asked.suite
    if examined := outside_scorers(suite.all_metrics):
        asked_of = {"dtype": suite.scoring.dtype, "scorers": weights_sha256(examined)}
        tasks.add("doctor", asked_of, versions("doctor") | scorer_versions(examined))
    scorers = needed_scorers(suite.metrics)
    computed = versions("score") | scorer_versions(scorers)
    shared: dict[str, Any] = {
        **statistics_inputs(suite.reference.statistics, suite.metrics),
        "scorers": weights_sha256(scorers),
        "dtype": suite.scoring.dtype,
        "metrics": sorted(suite.metrics),
        **_of_sets(suite),
        **_compared(asked),
        "intervals_over": suite.intervals_over,
    }
    if (reference := tasks.key("reference")) is not None:
        shared["reference"] = reference
    for name, seed in product(suite.students, suite.seeds):
        inputs = {**shared, "images": tasks.key("generate", name, seed)}
        needs = [REFERENCE, ("generate", name, seed)]
        tasks.add("score", inputs, computed, name, seed, needs=needs)


def _downloads(asked: Asked) -> Downloads:
    metrics = known_metrics(asked.suite.all_metrics)
    return Downloads(tuple(scorer_remotes(metrics)), tuple(scorer_weights(metrics)))


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    cost = Cost(disk=asked.num_images * bytes_of_answers(asked))
    return {("score", name): cost for name in asked.suite.students}


SCORING = Part(_problems, _protocol, _add_tasks, downloads=_downloads, costs=_costs)
