"""Draw every image of a student: the same prompts with the same noise for all.

A drawing that was stopped goes on at the image; what is whole stays, whoever drew it. One that ends
when comparisons are settled is of so many prompts by now, and not finished by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ddmd_bench.data.image_folders import read_image
from ddmd_bench.data.image_writer import METADATA, ImageWriter
from ddmd_bench.files.device import default_device
from ddmd_bench.files.made import LIST
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import DONE, SO_FAR, mark_done
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
    folder = task.folder / "images"
    images, goes_on = plan.images_of(task.student), plan.suite.until_settled is not None
    at_once = AtOnce(backend.images_at_once, "images")
    with ImageWriter(folder, len(images), torch.get_num_threads()) as writer:
        left = writer.missing
        for drawn in iter_drawn(source.draw, [images[k] for k in left], at_once):
            num = len(drawn.rows)
            for row in drawn.rows:
                row["seconds"] = drawn.seconds / num
                if source.clipped:
                    row["out_of_range"] = None
            writer.add(left[:num], drawn.rows, drawn.levels)
            left = left[num:]
            progress(len(images) - len(left), len(images))
        rows = writer.finish(goes_on)
    seconds = sum(row["seconds"] for row in rows)
    record = {
        "key": task.key,
        "n": len(rows),
        "num_inference_steps": source.num_inference_steps,
        "network_evaluations": source.network_evaluations,
        "sampled": source.sampled,
        "resolution": list(read_image(folder / rows[0]["file_name"]).shape[:2]),
        "images_at_once": at_once.size,  # fewer than asked for where memory ran out
        "seconds": seconds,
        "images_per_s": len(rows) / seconds,
        "provenance": provenance(backend.dtype),
    }
    files = [f"{folder.name}/{METADATA}", LIST]
    mark_done(task.folder, record, files, SO_FAR if goes_on else DONE)
