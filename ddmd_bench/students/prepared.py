"""A suite's backend with what its encode stage left on disk, in place of text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.data.latents import Latents
from ddmd_bench.data.training import TrainingData
from ddmd_bench.errors import BenchError
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.records import content_key

if TYPE_CHECKING:
    from ddmd_bench.objective.terms import Cond
    from ddmd_bench.planning.plan import Plan


def backend_of(plan: Plan, student: str) -> Backend:
    """The suite's backend, or that of a student's own base; prompts cannot be encoded yet."""
    loaded = plan.loaded.get(student)
    return BACKENDS[plan.suite.backend](loaded.model if loaded else plan.suite.model)


def store_of(plan: Plan, backend: Backend) -> Store:
    """The embeddings of the backend's text encoders, of every suite under the same folder."""
    assert backend.encoders is not None, "only text encoders have a store"
    return Store(plan.embeddings / content_key(dict(backend.encoders.identity())))


def training_data_of(plan: Plan) -> TrainingData | None:
    """The suite's training data, of every suite under the same folder."""
    data = plan.suite.train_data
    if data is None:
        return None
    return TrainingData(data, backend_of(plan, "").resolution, plan.training_data)


def latents_of(plan: Plan) -> Latents:
    """Latents of the suite's real images."""
    task = plan.shared("encode")
    assert task is not None, "only a backend with encoders makes latents"
    return Latents(task.folder / "latents")


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

    backend = replace(backend, encode_prompts=encode_prompts)
    training = training_data_of(plan)
    return _with_training_data(plan, backend, training) if training else backend


def _with_training_data(plan: Plan, backend: Backend, training: TrainingData) -> Backend:
    import torch

    captions = training.draw_captions()

    def draw_prompts(num: int, generator: torch.Generator) -> list[str]:
        return [captions[k] for k in torch.randint(len(captions), (num,), generator=generator)]

    if captions:
        backend = replace(backend, draw_prompts=draw_prompts)
    latents = latents_of(plan)
    if latents.captions:
        moments = latents.moments()
        backend = replace(backend, draw_real_latents=latents.draw, real_moments=moments)
    return backend
