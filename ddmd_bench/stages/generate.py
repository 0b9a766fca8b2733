"""Draw every image of a student: the same prompts with the same noise for all.

A drawing that was stopped goes on at the image; what is whole stays, whoever drew it. One that ends
when comparisons are settled is of so many prompts by now, and not finished by itself. Several ranks
deal the batches among themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ddmd_bench.data.image_folders import read_image
from ddmd_bench.data.image_writer import METADATA, ImageWriter
from ddmd_bench.data.images import as_picture
from ddmd_bench.files import ranks
from ddmd_bench.files.device import default_device
from ddmd_bench.files.made import LIST
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import DONE, SO_FAR, mark_done
from ddmd_bench.students.drawing import iter_drawn
from ddmd_bench.students.sources import SOURCES, ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

    from ddmd_bench.backends import Backend
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


@torch.no_grad()
def generate(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write a student's images as PNG beside `metadata.jsonl` (an imagefolder of `datasets`)."""
    with ranks.together():
        backend, source = _opened(plan, task.student, task.seed)
    folder = task.folder / "images"
    images, goes_on = plan.images_of(task.student), plan.suite.until_settled is not None
    at_once = AtOnce(backend.images_at_once, "images")
    with ImageWriter(folder, len(images), torch.get_num_threads()) as writer:
        kept, left = len(images) - len(writer.missing), _own(writer.missing, at_once.size)
        num_drawn = 0
        for drawn in iter_drawn(source.draw, [images[k] for k in left], at_once):
            num = len(drawn.rows)
            for row in drawn.rows:
                row["seconds"] = drawn.seconds / num
                if source.clipped:
                    row["out_of_range"] = None
            writer.add(left[num_drawn : num_drawn + num], drawn.rows, drawn.levels)
            num_drawn += num
            # The other ranks are as far, or nearly.
            progress(min(kept + num_drawn * ranks.num(), len(images)), len(images))
        rows = writer.finish(goes_on)
    with ranks.together():
        if ranks.is_first():
            _mark_done(task, rows, source, at_once, backend.dtype, SO_FAR if goes_on else DONE)


def _opened(plan: Plan, name: str, seed: int) -> tuple[Backend, ImageSource]:
    student, backend = plan.seeded(name, seed), plan.prepared().opened(name)
    return backend, SOURCES[student.row.source](student, backend, default_device())


@torch.no_grad()
def drawn_first(plan: Plan, name: str, seed: int) -> Image:
    """A student's first image, drawn again by itself: that of its run, to the rounding of a batch.

    It must be trained, its weights must be here.
    """
    with numerics():
        _, source = _opened(plan, name, seed)
        (drawn,) = iter_drawn(source.draw, plan.images_of(name)[:1], AtOnce(1, "images"))
    return as_picture(drawn.levels[0])


def _mark_done(
    task: Task,
    rows: Sequence[dict[str, Any]],
    source: ImageSource,
    at_once: AtOnce,
    dtype: str,
    name: str,
) -> None:
    seconds = sum(row["seconds"] for row in rows)  # of all ranks
    images = task.folder / "images"
    record = {
        "key": task.key,
        "n": len(rows),
        "num_inference_steps": source.num_inference_steps,
        "network_evaluations": source.network_evaluations,
        "sampled": source.sampled,
        "resolution": list(read_image(images / rows[0]["file_name"]).shape[:2]),
        "images_at_once": at_once.size,  # fewer than asked for where memory ran out
        "seconds": seconds,
        "images_per_s": len(rows) / seconds,
        "provenance": provenance(dtype),
    }
    mark_done(task.folder, record, [f"{images.name}/{METADATA}", LIST], name)


def _own(missing: Sequence[int], size: int) -> list[int]:
    """The images that this rank draws: whole batches, made as one rank alone would make them."""
    batches = [missing[k : k + size] for k in range(0, len(missing), size)]
    return [k for batch in ranks.dealt(batches) for k in batch]
