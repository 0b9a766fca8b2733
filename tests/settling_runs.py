"""A suite that draws until its comparisons are settled, and runs of it in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ddmd_bench.files.numerics import numerics
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.task import Task
from ddmd_bench.run import settling, tasks
from ddmd_bench.run.tasks import Outcome
from ddmd_bench.stats import sequential
from ddmd_bench.suite.schema import Suite

STAGES = ("doctor", "encode", "reference", "train", "generate", "score")
TEACHER = {"source": "teacher", "guidance_scale": 1, "num_inference_steps": 2}
SUITE: dict[str, Any] = {
    "name": "settling",
    "title": "Settling",
    "backend": "shapes",
    "prompts": {
        "seen": {"source": "shapes/seen", "num_prompts": 24, "images_per_prompt": 1},
        "new": {"source": "shapes/held_out", "num_prompts": 12, "images_per_prompt": 1},
    },
    "students": {
        "real": {"source": "real"},
        "two": {**TEACHER, "title": "Two steps"},
        "one": {**TEACHER, "num_inference_steps": 1},  # far from it
        "same": TEACHER,  # never to be told from it
    },
    "baseline": "two",
    "metrics": ["std", "mean", "saturation"],
    "reference": {"images_per_prompt": 1},
    "until_settled": {"metrics": ["std"], "block": 12},
}


@contextmanager
def speaking_early() -> Iterator[None]:
    """Sequences that speak after a block, so that little need be drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "FIRST", 12)
        patch.setattr(sequential, "FEWEST_VARYING", 2.0)
        yield


def suite_of(**changes: Any) -> Suite:
    return Suite.model_validate({**SUITE, **changes})


def plan_of(folder: Path, **changes: Any) -> Plan:
    return make_plan(suite_of(**changes), folder / "runs", folder / "reports")


def do_here(plan: Plan, todo: Sequence[Task], on_event: Any, workers: int = 0) -> Outcome:
    """What workers do, in this process."""
    for task in todo:
        stage = getattr(import_module(f"ddmd_bench.stages.{task.stage}"), task.stage)
        with numerics():
            stage(plan, task, lambda done, total: None)
    return Outcome(len(todo), [])


def run_here(plan: Plan, on_event: Any = lambda event: None, do: Any = do_here) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        for module in (settling, tasks):
            patch.setattr(module, "run_these", do)
        return settling.run_suite(plan, STAGES, on_event)
