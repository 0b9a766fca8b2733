"""Real images of the suite's prompts, seen through the scorers: what distributions compare with."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ddmd_bench.backends import BACKENDS
from ddmd_bench.data.images import ImageId, as_pictures, image_ids
from ddmd_bench.files import ranks
from ddmd_bench.files.arrays import write_npy
from ddmd_bench.files.records import mark_done, write_jsonl
from ddmd_bench.measuring.feature_parts import (
    FEATURES,
    RealImage,
    Source,
    extract,
    extract_own,
    rows_of,
)
from ddmd_bench.measuring.reference import extractors_of
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.students.drawing import DrawReal, draw_reference

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


def reference(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write the reference's features, the same for every seed of the suite.

    A reference that was stopped goes on at the part. Ranks deal the parts among themselves, and the
    first one joins them.
    """
    suite = plan.suite
    draw_real = BACKENDS[suite.backend](suite.model).draw_real
    assert draw_real is not None, "plan refuses a backend without real images"
    start = time.perf_counter()
    per_set = dict.fromkeys(suite.prompts, suite.reference.images_per_prompt)
    images = image_ids(plan.prompts, per_set)
    extractors, num = extractors_of(suite.metrics), len(images)
    folder, source = task.folder / "parts", Source(partial(_drawn, draw_real, images))
    wanted = folder, extractors, source, num, "cpu", lambda done: progress(done, num)
    if ranks.num() > 1:
        extract_own(*wanted)
        if not ranks.is_first():
            return
    parts = extract(*wanted)
    for name in extractors:
        features = np.concatenate(list(rows_of(parts[name], FEATURES)))
        write_npy(task.folder / f"features_{name}.npy", features)
    write_jsonl(
        task.folder / "metadata.jsonl",
        ({"prompt_id": i.prompt.prompt_id, "prompt_set": i.prompt.prompt_set} for i in images),
    )
    record = {"key": task.key, "n": num, "seconds": time.perf_counter() - start}
    features_files = (f"features_{name}.npy" for name in extractors)
    mark_done(task.folder, record, [*features_files, "metadata.jsonl"])
    shutil.rmtree(folder, ignore_errors=True)  # there is none where no metric has an extractor


def _drawn(draw_real: DrawReal, images: Sequence[ImageId], first: int) -> Iterator[RealImage]:
    for k, image in enumerate(images[first:], first):
        levels, prompt = draw_reference(draw_real, image), image.prompt.text
        (picture,) = as_pictures(levels[None])
        item = Item.in_memory(f"image {k} of prompt {prompt!r}", prompt, picture)
        yield item, hashlib.sha256(levels.numpy().tobytes()).hexdigest()
