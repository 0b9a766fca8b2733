"""Encode every prompt of a suite once, then let the text encoders go."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ddmd_bench.embeddings import SHARD_SIZE
from ddmd_bench.provenance import provenance
from ddmd_bench.records import mark_done
from ddmd_bench.world import backend_of, store_of

if TYPE_CHECKING:
    from ddmd_bench.plan import Plan
    from ddmd_bench.tasks import Task

BATCH_SIZE = 32


def encode(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Add the prompts that the store does not hold yet; an interrupted stage goes on."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    backend = backend_of(plan, task.student)
    assert backend.encoders is not None, "plan has this task only for a backend with encoders"
    store = store_of(plan, backend)
    store.verify()
    # '' stands for no prompt: what the unconditional branch is given.
    wanted = ["", *(prompt.text for prompt in plan.prompts)]
    missing = store.missing(wanted)
    if missing:
        encode_prompts = backend.encoders.load_prompt_encoder(device)
        for first in range(0, len(missing), SHARD_SIZE):
            store.add(missing[first : first + SHARD_SIZE], encode_prompts, BATCH_SIZE)
            progress(min(first + SHARD_SIZE, len(missing)), len(missing))
        del encode_prompts
        gc.collect()
        torch.cuda.empty_cache()
    record = {
        "key": task.key,
        "n": len(set(wanted)),
        "encoded": len(missing),
        "seconds": time.perf_counter() - start,
        "provenance": provenance(),
    }
    mark_done(task.folder, record)
