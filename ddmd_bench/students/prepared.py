"""A suite's backend with what its encode stage left on disk, in place of text encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.data.latents import Latents
from ddmd_bench.data.training import TrainingData
from ddmd_bench.errors import BenchError
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.records import content_key
from ddmd_bench.files.versions import backend_versions, versions
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model

if TYPE_CHECKING:
    import torch

    from ddmd_bench.objective.terms import Cond


@dataclass(frozen=True)
class Prepared:
    """What the models of a suite read beside their weights, and where it is kept."""

    suite: Suite
    models: Mapping[str, Model]  # of the students with a base of their own, by name
    embeddings: Path  # of prompts, for every suite: a folder for each text encoder
    training_data: Path  # captions and real images, for every suite: a folder for each source
    latents: Path  # of real images, for every suite: a folder for each source and VAE
    # What the encode stages left, by student, '' for the suite's own; None: not finished.
    encoded: Mapping[str, Path | None]

    def backend(self, student: str = "") -> Backend:
        """The suite's backend, or that of a student's own base; prompts cannot be encoded yet."""
        return BACKENDS[self.suite.backend](self.models.get(student, self.suite.model))

    def store(self, backend: Backend) -> Store:
        """The embeddings of the backend's text encoders."""
        assert backend.encoders is not None, "only text encoders have a store"
        made_by = versions("encode") | backend_versions(self.suite.backend)
        return Store(self.embeddings / content_key([dict(backend.encoders.identity()), made_by]))

    def real_latents(self) -> Latents | None:
        """Of the suite's real images, as far as they are encoded; None where it names none."""
        collected, backend = self.collected(), self.backend()
        if collected is None or collected.data.images is None:
            return None
        made_by = versions("encode") | backend_versions(self.suite.backend)
        told = [collected.items("images"), image_encoder_identity(backend), made_by]
        return Latents(self.latents / content_key(told), collected.data.images.num_images)

    def collected(self) -> TrainingData | None:
        """The suite's training data, where it names any."""
        data = self.suite.train_data
        if data is None:
            return None
        return TrainingData(data, self.backend().resolution, self.training_data)

    def opened(self, student: str) -> Backend:
        """The backend as training and drawing use it."""
        backend = self.backend(student)
        if backend.encoders is None:
            return backend
        own = self.encoded[student if student in self.encoded else ""]
        shared = self.encoded[""]
        if own is None or shared is None:
            raise BenchError("the prompts are not encoded yet. Run the encode stage first")
        store, collate = self.store(backend), backend.encoders.collate

        def encode_prompts(prompts: Sequence[str]) -> Cond:
            return collate(store.rows(prompts))

        backend = replace(backend, encode_prompts=encode_prompts)
        collected = self.collected()
        return _with(backend, collected, self.real_latents()) if collected else backend


def image_encoder_identity(backend: Backend) -> dict[str, str]:
    """What determines an image's latent, beside the versions of the code."""
    return {"vae": backend.weights()["vae"], "dtype": backend.dtype}


def _with(backend: Backend, collected: TrainingData, latents: Latents | None) -> Backend:
    import torch

    captions = collected.collect_captions()

    def draw_prompt(generator: torch.Generator) -> str:
        return captions[int(torch.randint(len(captions), (), generator=generator))]

    if captions:
        backend = replace(backend, draw_prompt=draw_prompt)
    if latents is not None:
        moments = latents.moments()
        backend = replace(backend, draw_real_latents=latents.draw, real_moments=moments)
    return backend
