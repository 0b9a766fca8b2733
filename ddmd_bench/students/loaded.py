"""Students that are not trained here, as a plan sees them: where they come from, what keys them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.schedulers import SCHEDULERS, make_scheduler
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.students.catalogue import PIPELINE, SDXL_BASE, StudentWeights
from ddmd_bench.students.checkpoints import lora_remotes, reads_guidance, remote_of, row_of
from ddmd_bench.students.pipeline_calls import check_pipeline
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model
from ddmd_bench.suite.students import FILL_IN, Student


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
            _require_filled_in(name, student)
            if (row := row_of(student)) is not None:
                published = student.source == "published"
                found[name] = _loaded(suite, row, published=published)
        except BenchError as error:
            problems.append(f"students.{name}: {error}")
    return found, problems


def _require_filled_in(name: str, student: Student) -> None:
    """Refuse weights that a suite leaves to its user while they are not named."""
    file = "./my_lora.safetensors"
    left = [
        (f"adapters[{k}].repository", f"adapters=[{{repository: {file}}}]")
        for k, one in enumerate(student.adapters)
        if one.repository == FILL_IN
    ]
    if student.checkpoint is not None and student.checkpoint.repository == FILL_IN:
        left.append(("checkpoint.repository", f"checkpoint.repository={file}"))
    if left:
        place, example = left[0]
        raise BenchError(
            f"{place}: {FILL_IN} stands where weights of yours belong. Write their file or folder, "
            "or owner/name on the Hub: in a copy of the suite, or by --set "
            f"'students.{name}.{example}'"
        )


def _loaded(suite: Suite, row: StudentWeights, *, published: bool) -> LoadedStudent:
    backend = BACKENDS[suite.backend](suite.model)
    if row.sampling.scheduler not in SCHEDULERS:
        raise BenchError(unknown("scheduler", row.sampling.scheduler, SCHEDULERS))
    for places in (remote_of, lora_remotes):
        places(row)  # raises what is wrong with one
    row = replace(row, resolution=row.resolution or backend.resolution)
    if row.format == PIPELINE:
        check_pipeline(row)
        return LoadedStudent(row, suite.model)
    if row.backend not in ("", suite.backend):
        raise BenchError(
            f"{row.title} is a student of backend {row.backend}, and this is a suite of "
            f"{suite.backend}. Put it in a suite with backend: {row.backend}"
        )
    if not backend.formats:
        raise BenchError(f"backend {suite.backend} loads no published weights")
    if row.format not in backend.formats:
        known = (*backend.formats, PIPELINE)
        raise BenchError(unknown(f"format of backend {suite.backend}", row.format, known))
    model = _model_of(suite, row, backend.resolution)
    own = BACKENDS[suite.backend](model)
    if published and own.prediction_type != "epsilon":
        raise BenchError(
            f"{row.title} was trained to predict eps, and {model.repository} has prediction_type: "
            f"{own.prediction_type}, by which it would be sampled. Put it in a suite of SDXL base "
            "1.0"
        )
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


def _check_sampling(row: StudentWeights, backend: Backend) -> None:
    """The scheduler and what the network is told, as far as the files that say so are here."""
    sampling, told = row.sampling, row.sampling.embedded_guidance_scale
    if (config := _scheduler_config(backend)) is not None:
        levels = sampling.timesteps, sampling.sigmas
        make_scheduler(sampling.scheduler, config, sampling.num_inference_steps, *levels)
    reads = reads_guidance(row, backend)
    if reads is not None and reads != (told is not None):
        raise BenchError(
            "its network is told its guidance scale: set embedded_guidance_scale"
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
