"""A suite's backend with what its encode stage left on disk, in place of text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.embeddings import Store
from ddmd_bench.errors import BenchError

if TYPE_CHECKING:
    from ddmd_bench.distill.terms import Cond
    from ddmd_bench.plan import Plan


def open_backend(plan: Plan) -> Backend:
    """The backend as training, drawing and scoring use it."""
    backend = BACKENDS[plan.suite.backend](plan.suite.model)
    if backend.encoders is None:
        return backend
    if not plan.task("encode").complete():
        raise BenchError("the prompts are not encoded yet. Run the encode stage first")
    store, collate = Store(plan.embeddings), backend.encoders.collate

    def encode_prompts(prompts: Sequence[str]) -> Cond:
        return collate(store.rows(prompts))

    return replace(backend, encode_prompts=encode_prompts)
