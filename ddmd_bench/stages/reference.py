"""Real images of the suite's prompts, seen through the scorers: what distributions compare with."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS
from ddmd_bench.data.images import as_pictures, image_ids
from ddmd_bench.files.arrays import write_npy
from ddmd_bench.files.records import mark_done, write_jsonl
from ddmd_bench.measuring.features import features_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.students.drawing import draw_reference

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


def reference(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write the reference's features, the same for every seed of the suite."""
    import torch

    suite = plan.suite
    draw_real = BACKENDS[suite.backend](suite.model).draw_real
    assert draw_real is not None, "plan refuses a backend without real images"
    start = time.perf_counter()
    shutil.rmtree(task.folder, ignore_errors=True)
    task.folder.mkdir(parents=True)
    per_set = dict.fromkeys(suite.prompts, suite.reference.images_per_prompt)
    images = image_ids(plan.prompts, per_set)
    pixels = []
    for k, image in enumerate(images):
        pixels.append(draw_reference(draw_real, image))
        if k % 100 == 0:
            progress(k, len(images))
    extractors = sorted({m.extractor for name in suite.metrics if (m := METRICS[name]).extractor})
    prompts = [image.prompt.text for image in images]
    found = features_of(as_pictures(torch.stack(pixels)), prompts, extractors)
    for name, features in found.items():
        write_npy(task.folder / f"features_{name}.npy", features)
    write_jsonl(
        task.folder / "metadata.jsonl",
        ({"prompt_id": i.prompt.prompt_id, "prompt_set": i.prompt.prompt_set} for i in images),
    )
    progress(len(images), len(images))
    record = {"key": task.key, "n": len(images), "seconds": time.perf_counter() - start}
    mark_done(task.folder, record)
