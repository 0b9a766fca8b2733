"""A suite's backend with what its encode stage left on disk, in place of text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.embeddings import Store
from ddmd_bench.errors import BenchError
from ddmd_bench.records import content_key

if TYPE_CHECKING:
    from ddmd_bench.distill.terms import Cond
    from ddmd_bench.plan import Plan


def backend_of(plan: Plan, student: str) -> Backend:
    """The suite's backend, or that of a student's own base; prompts cannot be encoded yet."""
    loaded = plan.loaded.get(student)
    return BACKENDS[plan.suite.backend](loaded.model if loaded else plan.suite.model)


def store_of(plan: Plan, backend: Backend) -> Store:
    """The embeddings of the backend's text encoders, of every suite under the same folder."""
    assert backend.encoders is not None, "only text encoders have a store"
    return Store(plan.embeddings / content_key(dict(backend.encoders.identity())))


def open_backend(plan: Plan, student: str) -> Backend:
    """The backend as training and drawing use it."""
    backend = backend_of(plan, student)
    if backend.encoders is None:
        return backend
    task = plan.shared("encode", student)
    if task is None or not task.complete():
        raise BenchError("the prompts are not encoded yet. Run the encode stage first")
    store, collate = store_of(plan, backend), backend.encoders.collate

    def encode_prompts(prompts: Sequence[str]) -> Cond:
        return collate(store.rows(prompts))

    return replace(backend, encode_prompts=encode_prompts)
