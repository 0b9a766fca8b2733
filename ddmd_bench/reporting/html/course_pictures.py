"""What the students drew while they were trained: the pictures that their evaluations kept."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ddmd_bench.reporting.runfiles import RunFiles

MOST = 12  # evaluations whose pictures are inside the page, the first and the last among them


def course_pictures(run: RunFiles) -> dict[str, Any]:
    """{prompts, iterations, students: {name: {iteration: data URI}}} of the suite's first seed.

    Nothing where no training was evaluated by a version that keeps pictures.
    """
    kept = {name: run.first_seed(name).pictures for name in run.students}
    kept = {name: own for name, own in kept.items() if own}
    every = sorted({iteration for own in kept.values() for iteration in own})
    if not every:
        return {}
    steps = min(MOST, len(every)) - 1
    chosen = [every[k * (len(every) - 1) // max(1, steps)] for k in range(steps + 1)]
    return {
        "prompts": run.pictured,
        "iterations": chosen,
        "students": {
            name: {k: _uri(own[k]) for k in chosen if k in own} for name, own in kept.items()
        },
    }


def _uri(path: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"
