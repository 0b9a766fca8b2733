"""Students that are not trained here, as a plan sees them: where they come from, what keys them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.schedulers import SCHEDULERS
from ddmd_bench.data.image_folders import read_listing
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote, remote_identity
from ddmd_bench.students.catalogue import SDXL, StudentWeights
from ddmd_bench.students.checkpoints import base_remote, inputs_of, remote_of, row_of
from ddmd_bench.suite.schema import Student, Suite
from ddmd_bench.suite.settings import Model

PIPELINE = "pipeline"  # of an architecture of its own: sampled by its own rules


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
    if row.format == PIPELINE:
        return
    if row.backend not in ("", suite.backend):
        raise BenchError(
            f"{row.title} is a student of backend {row.backend}, and this is a suite of "
            f"{suite.backend}. Put it in a suite with backend: {row.backend}"
        )
    if BACKENDS[suite.backend](suite.model).load_checkpoint is None:
        raise BenchError(f"backend {suite.backend} loads no published weights")


def _model_of(suite: Suite, row: StudentWeights) -> Model:
    """The suite's model; or the student's own base, with its text encoders and VAE."""
    if row.format == PIPELINE or row.base in (None, SDXL):
        return suite.model
    own: dict[str, Any] = {
        "repository": row.base,
        "revision": row.revision,
        "resolution": row.resolution,
        "variant": "fp16" if ".fp16." in (row.file or "") else None,
    }
    kept = suite.model.model_dump(include={"dtype", "images_at_once"}, exclude_unset=True)
    return Model(**{k: v for k, v in own.items() if v is not None}, **kept)


def sampled_inputs(
    student: Student, world: dict[str, Any], loaded: LoadedStudent | None
) -> dict[str, Any]:
    """What determines the images of a student that is not trained here, beside its seed."""
    if loaded is not None:
        whole = loaded.row.format == PIPELINE
        return {**({"dtype": world["dtype"]} if whole else world), **inputs_of(loaded.row)}
    if student.images is not None:
        return {"images": remote_identity(folder_remote(student.images))}
    facts = student.model_dump(mode="json", include={"num_inference_steps", "guidance_scale"})
    return {**world, "source": student.source, **facts, **student.teacher_options()}


def folder_remote(folder: str) -> Remote:
    """A folder of images as a source of files."""
    place = folder if folder.startswith(("/", "./", "../", "~")) else f"./{folder}"
    return Remote(place, None, ("*",), kind="dataset", what="images")


def image_problems(suite: Suite, prompts: tuple[Prompt, ...]) -> list[str]:
    """Folders of images that lack some of the suite's prompts."""
    problems = []
    for name, student in suite.students.items():
        if student.images is not None:
            try:
                read_listing(Path(student.images), prompts, suite.images_per_prompt())
            except BenchError as error:
                problems.append(f"students.{name}: {error}")
    return problems


def remotes_of(
    backend: Backend, loaded: dict[str, LoadedStudent], backend_name: str
) -> list[Remote]:
    """All that must be on this machine before a run, each once."""
    found = list(backend.remotes)
    for one in loaded.values():
        found.append(remote_of(one.row))
        if (base := base_remote(one.row)) is not None:
            found.append(base)
        if one.row.format != PIPELINE:
            found += BACKENDS[backend_name](one.model).remotes
    return list(dict.fromkeys(found))
