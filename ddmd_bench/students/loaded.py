"""Students that are not trained here, as a plan sees them: where they come from, what keys them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddmd_bench.backends import BACKENDS
from ddmd_bench.backends.schedulers import SCHEDULERS
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.students.catalogue import PIPELINE, SDXL_BASE, StudentWeights
from ddmd_bench.students.checkpoints import lora_remotes, remote_of, row_of
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model


@dataclass(frozen=True)
class LoadedStudent:
    """A student that is loaded, with the backend that it is sampled in."""

    row: StudentWeights
    model: Model  # the suite's, or another base's


def loaded_students(suite: Suite) -> tuple[dict[str, LoadedStudent], list[str]]:
    """Every published or given checkpoint of the suite by name, and what is wrong with others."""
    found, problems = {}, []
    for name, student in suite.students.items():
        try:
            row = row_of(student)
            if row is not None:
                _check(suite, row)
                found[name] = LoadedStudent(row, _model_of(suite, row))
        except BenchError as error:
            problems.append(f"students.{name}: {error}")
    return found, problems


def _check(suite: Suite, row: StudentWeights) -> None:
    if row.sampling.scheduler not in SCHEDULERS:
        raise BenchError(unknown("scheduler", row.sampling.scheduler, SCHEDULERS))
    for places in (remote_of, lora_remotes):
        places(row)  # raises what is wrong with one
    if row.format == PIPELINE:
        return
    if row.backend not in ("", suite.backend):
        raise BenchError(
            f"{row.title} is a student of backend {row.backend}, and this is a suite of "
            f"{suite.backend}. Put it in a suite with backend: {row.backend}"
        )
    backend = BACKENDS[suite.backend](suite.model)
    if not backend.formats:
        raise BenchError(f"backend {suite.backend} loads no published weights")
    if row.format not in backend.formats:
        known = (*backend.formats, PIPELINE)
        raise BenchError(unknown(f"format of backend {suite.backend}", row.format, known))
    if row.lora_scale != 1 and backend.formats[row.format]:
        raise BenchError(
            f"lora_scale: {row.lora_scale} with format {row.format}, a whole network, which has "
            "none. LoRAs on top of it have a scale each, under adapters"
        )


def _model_of(suite: Suite, row: StudentWeights) -> Model:
    """The suite's model; or the student's own base, with its text encoders and VAE."""
    if row.format == PIPELINE or row.base in (None, SDXL_BASE):
        return suite.model
    own: dict[str, Any] = {
        "repository": row.base,
        "revision": row.revision,
        "resolution": row.resolution,
        "variant": "fp16" if ".fp16." in (row.file or "") else None,
    }
    kept = suite.model.model_dump(include={"dtype", "images_at_once"}, exclude_unset=True)
    return Model(**{k: v for k, v in own.items() if v is not None}, **kept)
