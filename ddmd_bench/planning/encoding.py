"""What is encoded once, before anything else: prompts, captions and real images to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from math import prod
from typing import Any

from ddmd_bench.backends import BACKENDS
from ddmd_bench.data.prompt_sources import prompt_remotes
from ddmd_bench.data.prompts import prompts_key
from ddmd_bench.data.training_checks import data_problems, num_enlarged
from ddmd_bench.errors import BenchError
from ddmd_bench.files.versions import backend_versions, versions
from ddmd_bench.planning.models import encoder_identity
from ddmd_bench.planning.part import Asked, Cost, Downloads, Part, TaskKind, Work
from ddmd_bench.planning.sizes import DTYPE_BYTES, FLOAT32, RECORD, png_bytes
from ddmd_bench.planning.task import Tasks
from ddmd_bench.students.catalogue import PIPELINE
from ddmd_bench.students.prepared import image_encoder_identity

_SHARED: TaskKind = ("encode", "")


def training_data_inputs(asked: Asked) -> dict[str, Any]:
    """What determines the captions and real images that students train on."""
    if asked.backend.encoders is None or asked.suite.train_data is None:
        return {}
    return {"train_data": dict(asked.training_data)}


def _problems(asked: Asked) -> Iterable[str]:
    """What training data lack, or keeps them from being the same in every run."""
    data = asked.suite.train_data
    return data_problems(data) if data is not None else ()


def enlarged_lines(asked: Asked) -> Iterator[str]:
    """A warning where real images to train on have fewer pixels than the students' images."""
    images = asked.suite.train_data.images if asked.suite.train_data else None
    if asked.backend.encoders is None or images is None:
        return
    side, num = asked.backend.resolution, 0
    with suppress(BenchError):  # which is among the problems
        num = num_enlarged(images, side)
    if num:
        yield (
            f"train_data.images: {num} of {images.num_images} images of {images.source} are "
            f"smaller than {side} pixels a side and are enlarged"
        )


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite, backend = asked.suite, asked.backend
    prompts = prompts_key(asked.prompts)
    computed = versions("encode") | backend_versions(suite.backend)
    if backend.encoders is not None:
        inputs = {"text": encoder_identity(backend), "prompts": prompts}
        inputs |= training_data_inputs(asked)
        if "images" in inputs.get("train_data", {}):
            inputs |= image_encoder_identity(backend)
        tasks.add("encode", inputs, computed)
    for name, one in asked.loaded.items():
        own = encoder_identity(BACKENDS[suite.backend](one.model))
        if one.row.format != PIPELINE and own != encoder_identity(backend):
            tasks.add("encode", {"text": own, "prompts": prompts}, computed, name)


def _downloads(asked: Asked) -> Downloads:
    captions = asked.suite.train_data.prompts if asked.suite.train_data else None
    return Downloads(tuple(prompt_remotes([captions])) if captions else ())


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    """Embeddings of all prompts, once for each text encoder; real images and their latents."""
    backend, data = asked.backend, asked.suite.train_data
    if backend.encoders is None:
        return {}
    of_prompt = asked.facts().prompt_values * DTYPE_BYTES[backend.dtype] + RECORD
    captions = data.prompts.num_prompts if data and data.prompts else 0
    num_images = data.images.num_images if data and data.images else 0
    others = {one.model for one in asked.loaded.values()} - {asked.suite.model}
    embeddings = asked.num_prompts * (1 + len(others)) + captions + num_images
    side = backend.resolution
    of_image = png_bytes(side, side) + RECORD + prod(backend.latent_shape) * FLOAT32
    return {_SHARED: Cost(disk=embeddings * of_prompt + num_images * of_image)}


def _work(asked: Asked) -> Mapping[TaskKind, Work]:
    images = asked.suite.train_data.images if asked.suite.train_data else None
    if asked.backend.encoders is None or images is None:
        return {}
    operations = images.num_images * asked.facts().flops.encode
    return {_SHARED: Work(operations, asked.backend.dtype)}


ENCODING = Part(_problems, add_tasks=_add_tasks, downloads=_downloads, costs=_costs, work=_work)
