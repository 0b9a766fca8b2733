"""Students that are not trained here, as a plan sees them: where they come from, what keys them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.schedulers import SCHEDULERS, make_scheduler
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.students.catalogue import PIPELINE, SDXL_BASE, StudentWeights
from ddmd_bench.students.checkpoints import reads_guidance, row_of
from ddmd_bench.students.pipeline_calls import check_pipeline
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model


@dataclass(frozen=True)
class LoadedStudent:
    """A student that is loaded, with the backend that it is sampled in."""

    row: StudentWeights
    model: Model  # the suite's, or another base's


def loaded_students(suite: Suite) -> tuple[dict[str, LoadedStudent], list[str]]:
    """Every published or given checkpoint of the suite by name, and what is wrong with others.

    Of a row without a size of its own, the suite's is put in.
    """
    found, problems = {}, []
    for name, student in suite.students.items():
        try:
            if (row := row_of(student)) is not None:
                found[name] = _loaded(suite, row)
        except BenchError as error:
            problems.append(f"students.{name}: {error}")
    return found, problems


def _loaded(suite: Suite, row: StudentWeights) -> LoadedStudent:
    backend = BACKENDS[suite.backend](suite.model)
    if row.sampling.scheduler not in SCHEDULERS:
        raise BenchError(unknown("scheduler", row.sampling.scheduler, SCHEDULERS))
    row = replace(row, resolution=row.resolution or backend.resolution)
    if row.format == PIPELINE:
        check_pipeline(row)
        return LoadedStudent(row, suite.model)
    if row.backend not in ("", suite.backend):
        raise BenchError(
            f"{row.title} is a student of backend {row.backend}, and this is a suite of "
            f"{suite.backend}. Put it in a suite with backend: {row.backend}"
        )
    if backend.load_checkpoint is None:
        raise BenchError(f"backend {suite.backend} loads no published weights")
    model = _model_of(suite, row, backend.resolution)
    own = BACKENDS[suite.backend](model)
    check_size(own)
    _check_sampling(row, own)
    return LoadedStudent(row, model)


def _model_of(suite: Suite, row: StudentWeights, resolution: int) -> Model:
    """The suite's model; at a size of the student's own; or its own base, text encoders and VAE."""
    if row.base in (None, SDXL_BASE):
        own_size = {} if row.resolution == resolution else {"resolution": row.resolution}
        return suite.model.model_copy(update=own_size)
    own: dict[str, Any] = {
        "repository": row.base,
        "revision": row.revision,
        "resolution": row.resolution,
        "variant": "fp16" if ".fp16." in (row.file or "") else None,
    }
    kept = suite.model.model_dump(include={"dtype", "images_at_once"}, exclude_unset=True)
    return Model(**{k: v for k, v in own.items() if v is not None}, **kept)


def check_size(backend: Backend) -> None:
    """A side that is no whole number of latents is an error: the images would be smaller."""
    side = backend.latent_shape[-1]
    pixels = backend.resolution // max(1, side)
    if side * pixels != backend.resolution:
        near = pixels * max(1, round(backend.resolution / pixels))
        raise BenchError(
            f"resolution: {backend.resolution} is no multiple of the {pixels} pixels that a latent "
            f"stands for. Take {near}"
        )


def _check_sampling(row: StudentWeights, backend: Backend) -> None:
    """The scheduler and what the network is told, as far as the files that say so are here."""
    sampling, told = row.sampling, row.sampling.embedded_guidance_scale
    if (config := _scheduler_config(backend)) is not None:
        levels = sampling.timesteps, sampling.sigmas
        make_scheduler(sampling.scheduler, config, sampling.num_inference_steps, *levels)
    reads = reads_guidance(row) if row.format == "unet" else False
    if reads is not None and reads != (told is not None):
        raise BenchError(
            "its UNet is told its guidance scale: set embedded_guidance_scale"
            if reads
            else "its network has no guidance input; leave embedded_guidance_scale out"
        )


def _scheduler_config(backend: Backend) -> dict[str, Any] | None:
    """Of the base; None while its files are not on this machine."""
    assert backend.scheduler_config is not None, "a backend that loads weights has one"
    try:
        return backend.scheduler_config()
    except BenchError:
        return None  # what is missing is said with all other downloads
