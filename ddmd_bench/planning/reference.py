"""What distributions compare with: real images that the backend draws, or statistics of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddmd_bench.data.prompts import prompts_key
from ddmd_bench.files.versions import backend_versions, scorer_versions, versions
from ddmd_bench.measuring.reference import (
    build_command,
    statistics_inputs,
    statistics_problems,
)
from ddmd_bench.planning.models import network_inputs
from ddmd_bench.planning.part import Asked, Cost, Part, TaskKind
from ddmd_bench.planning.scoring import bytes_of_answers, known_metrics
from ddmd_bench.planning.task import DOCTOR, Tasks
from ddmd_bench.scorers import METRICS, needed_scorers, weights_sha256


def _problems(asked: Asked) -> Iterator[str]:
    suite, metrics = asked.suite, known_metrics(asked.suite.metrics)
    if suite.reference.statistics is not None:
        yield from statistics_problems(suite.reference.statistics, metrics)
    elif asked.backend.draw_real is None:
        for name in metrics:
            if extractor := METRICS[name].extractor:
                yield (
                    f"metrics: {name} compares with real images, and backend {suite.backend} draws "
                    f"none. Set reference.statistics; {build_command(suite.name, [extractor])} "
                    "makes them"
                )


def _protocol(asked: Asked) -> Mapping[str, Any]:
    reference = asked.suite.reference
    statistics = statistics_inputs(reference.statistics, asked.suite.metrics)
    return {"reference_images_per_prompt": reference.images_per_prompt, **statistics}


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite, backend = asked.suite, asked.backend
    if backend.draw_real is not None:
        scorers = needed_scorers(suite.metrics)
        inputs = {
            **network_inputs(suite.backend, backend),
            "prompts": prompts_key(asked.prompts),
            "images_per_prompt": suite.reference.images_per_prompt,
            "scorers": weights_sha256(scorers),
        }
        computed = versions("reference") | backend_versions(suite.backend)
        tasks.add("reference", inputs, computed | scorer_versions(scorers), needs=[DOCTOR])


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    if asked.backend.draw_real is None:
        return {}
    num_images = asked.num_prompts * asked.suite.reference.images_per_prompt
    return {("reference", ""): Cost(disk=num_images * bytes_of_answers(asked))}


REFERENCE = Part(_problems, _protocol, _add_tasks, costs=_costs)
