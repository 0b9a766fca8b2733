"""Examine the scorers before anything costly is done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ddmd_bench.files.device import default_device
from ddmd_bench.files.records import mark_done
from ddmd_bench.measuring.doctor import require_healthy
from ddmd_bench.measuring.turns import let_go
from ddmd_bench.scorers import outside_scorers

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


def doctor(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write what was found; raises where a scorer cannot be believed."""
    scorers = outside_scorers(plan.suite.all_metrics)
    findings = []
    for k, name in enumerate(scorers, 1):
        findings += require_healthy(
            [name], default_device(), getattr(torch, plan.suite.scoring.dtype)
        )
        let_go()  # training may need the memory next
        progress(k, len(scorers))
    record = {"key": task.key, "n": len(scorers), "findings": [f._asdict() for f in findings]}
    mark_done(task.folder, record)
