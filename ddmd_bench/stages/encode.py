"""Encode every prompt and every real image of a suite once, then let the encoders go.

Ranks deal the shards among themselves; the first one collects what training reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.backends import Backend, Encoders
from ddmd_bench.data.latents import encode_missing
from ddmd_bench.data.training import TrainingData, read_square
from ddmd_bench.files import ranks
from ddmd_bench.files.device import default_device, memory_shown
from ddmd_bench.files.embeddings import SHARD_SIZE, Store
from ddmd_bench.files.memory import AtOnce, refusing_out_of_memory, return_memory
from ddmd_bench.files.provenance import provenance
from ddmd_bench.files.records import mark_done
from ddmd_bench.files.shards import verify_shards
from ddmd_bench.students.prepared import Prepared

if TYPE_CHECKING:
    from torch import Tensor

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

BATCH_SIZE = 32
Progress = Callable[[int, int], None]


def encode(plan: Plan, task: Task, progress: Progress) -> None:
    """Add what the stores do not hold yet; an interrupted stage goes on."""
    start = time.perf_counter()
    prepared = plan.prepared()
    backend = prepared.backend(task.student)
    assert backend.encoders is not None, "plan has this task only for a backend with encoders"
    store = prepared.store(backend)
    ranks.by_first(store.verify)
    # '' stands for no prompt: what the unconditional branch is given.
    wanted = ["", *(prompt.text for prompt in plan.prompts)]
    num_images, collected = 0, prepared.collected()
    if collected is not None and not task.student:  # trained students have the suite's own encoders
        captions, images = ranks.by_first(partial(_collected, collected, progress))
        wanted += [*captions, *(caption for caption, _ in images)]
        if images:
            num_images = _encode_images(prepared, backend, images, progress)
    with refusing_out_of_memory(partial(_too_large, "the text encoders with a single prompt")):
        num_encoded = _encode_prompts(store, wanted, backend.encoders, progress)
    return_memory()
    record = {
        "key": task.key,
        "n": len(set(wanted)),
        "encoded": num_encoded,
        "encoded_images": num_images,
        "seconds": time.perf_counter() - start,
        "provenance": provenance(backend.dtype),
    }
    ranks.by_first(partial(mark_done, task.folder, record))


def _collected(data: TrainingData, progress: Progress) -> tuple[list[str], list[tuple[str, Path]]]:
    """The training's captions, and the real images with theirs."""
    return data.collect_captions(progress), data.collect_images(progress)


def _encode_images(
    prepared: Prepared, backend: Backend, images: Sequence[tuple[str, Path]], progress: Progress
) -> int:
    """How many real images had to be encoded."""
    latents = prepared.real_latents()
    assert latents is not None, "the suite names real images"
    assert backend.encoders is not None
    ranks.by_first(partial(verify_shards, latents.folder))
    at_once = AtOnce(backend.images_at_once, "images")
    load = partial(backend.encoders.load_image_encoder, default_device())
    with refusing_out_of_memory(partial(_too_large, "the VAE with a single real image")):
        return encode_missing(latents.folder, images, read_square, load, at_once, progress)


def _encode_prompts(
    store: Store, prompts: Sequence[str], encoders: Encoders, progress: Progress
) -> int:
    """How many prompts had to be encoded; the text encoders are gone when it returns."""
    if not ranks.told(store.missing(prompts)):
        return 0
    with store.writing_together():
        missing = ranks.told(store.missing(prompts))  # another may have encoded some meanwhile
        shards = [missing[k : k + SHARD_SIZE] for k in range(0, len(missing), SHARD_SIZE)]
        if own := ranks.dealt(shards):
            encode_prompts = encoders.load_prompt_encoder(default_device())
            at_once, done = AtOnce(BATCH_SIZE, "prompts"), 0

            def encoded(prompts: Sequence[str]) -> list[dict[str, Tensor]]:
                return [row for _, rows in at_once.batches(prompts, encode_prompts) for row in rows]

            for shard in own:
                store.add(shard, encoded, SHARD_SIZE)
                done += len(shard) * ranks.num()  # the others are as far, or nearly
                progress(min(done, len(missing)), len(missing))
    return len(missing)


def _too_large(what: str) -> str:
    return (
        f"{what} does not fit into the memory of {memory_shown()}. End what else fills it, take "
        "fewer --workers, or set model.dtype to bfloat16"
    )
