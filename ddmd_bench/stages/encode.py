"""Encode every prompt and every real image of a suite once, then let the encoders go."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ddmd_bench.backends import Encoders
from ddmd_bench.data.latents import Latents, encode_missing
from ddmd_bench.data.training import read_square
from ddmd_bench.files.device import default_device
from ddmd_bench.files.embeddings import SHARD_SIZE, Store
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import mark_done
from ddmd_bench.students.prepared import LATENTS

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

BATCH_SIZE = 32
Progress = Callable[[int, int], None]


def encode(plan: Plan, task: Task, progress: Progress) -> None:
    """Add what the stores do not hold yet; an interrupted stage goes on."""
    import torch

    start = time.perf_counter()
    prepared = plan.prepared()
    backend = prepared.backend(task.student)
    assert backend.encoders is not None, "plan has this task only for a backend with encoders"
    store = prepared.store(backend)
    store.verify()
    # '' stands for no prompt: what the unconditional branch is given.
    wanted = ["", *(prompt.text for prompt in plan.prompts)]
    collected = prepared.collected()
    if collected is not None and not task.student:  # trained students have the suite's own encoders
        wanted += collected.collect_captions(progress)
        images = collected.collect_images(progress)
        wanted += [caption for caption, _ in images]
        if images:
            latents, size = Latents(task.folder / LATENTS), backend.images_at_once
            to_latents = backend.encoders.load_image_encoder(default_device())
            encode_missing(latents, images, read_square, to_latents, size, progress)
    num_encoded = _encode_prompts(store, wanted, backend.encoders, progress)
    gc.collect()
    torch.cuda.empty_cache()
    record = {
        "key": task.key,
        "n": len(set(wanted)),
        "encoded": num_encoded,
        "seconds": time.perf_counter() - start,
        "provenance": provenance(backend.dtype),
    }
    mark_done(task.folder, record)


def _encode_prompts(
    store: Store, prompts: Sequence[str], encoders: Encoders, progress: Progress
) -> int:
    """How many prompts had to be encoded; the text encoders are gone when it returns."""
    missing = store.missing(prompts)
    if missing:
        encode_prompts = encoders.load_prompt_encoder(default_device())
        for first in range(0, len(missing), SHARD_SIZE):
            store.add(missing[first : first + SHARD_SIZE], encode_prompts, BATCH_SIZE)
            progress(min(first + SHARD_SIZE, len(missing)), len(missing))
    return len(missing)
