"""Draw every image of a student: the same prompts with the same noise for all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ddmd_bench.data.images import image_ids, save_png
from ddmd_bench.files.device import default_device
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import mark_done, write_jsonl
from ddmd_bench.students.drawing import iter_drawn
from ddmd_bench.students.sources import SOURCES

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


@torch.no_grad()
def generate(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write a student's images as PNG beside `metadata.jsonl` (an imagefolder of `datasets`)."""
    student, backend = plan.seeded(task.student, task.seed), plan.prepared().opened(task.student)
    source = SOURCES[student.row.source](student, backend, default_device())
    shutil.rmtree(task.folder, ignore_errors=True)  # a half-finished stage is redone, not patched
    folder = task.folder / "images"
    folder.mkdir(parents=True)
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    at_once = AtOnce(backend.images_at_once, "images")
    for drawn in iter_drawn(source.draw, images, at_once):
        seconds += drawn.seconds
        for row, values in zip(drawn.rows, drawn.pixels, strict=True):
            if source.clipped:
                row["out_of_range"] = None
            file_name = f"{len(rows):05d}.png"
            save_png(folder / file_name, values)
            rows.append({"file_name": file_name, **row})
        progress(len(rows), len(images))
    write_jsonl(folder / "metadata.jsonl", rows)
    record = {
        "key": task.key,
        "n": len(rows),
        "num_inference_steps": source.num_inference_steps,
        "network_evaluations": source.network_evaluations,
        "sampled": source.sampled,
        "resolution": list(drawn.pixels.shape[-2:]),
        "images_at_once": at_once.size,  # fewer than asked for where memory ran out
        "seconds": seconds,
        "images_per_s": len(rows) / seconds,
        "provenance": provenance(backend.dtype),
    }
    mark_done(task.folder, record)
