"""Where the files of published students lie, and what identifies them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.records import read_json
from ddmd_bench.hub import Layout, Remote, folder_of, remote_identity, variant_of
from ddmd_bench.students.catalogue import (
    PIPELINE,
    SDXL_BASE,
    Sampling,
    StudentWeights,
    local_weights,
)
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.suite.students import Checkpoint, Student

if TYPE_CHECKING:
    import torch


def row_of(student: Student) -> StudentWeights | None:
    """The row behind a student of a suite; None for one that is no loaded student."""
    if student.source == "published":
        if student.published not in PUBLISHED:
            raise BenchError(unknown("published student", student.published or "", PUBLISHED))
        return PUBLISHED[student.published]
    return _row(student.checkpoint, student.title) if student.checkpoint else None


def _row(given: Checkpoint, title: str) -> StudentWeights:
    return StudentWeights(
        title or given.file or given.repository,
        backend="pipeline" if given.format == "pipeline" else "",
        format=given.format,
        repository=given.repository,
        revision=given.revision,
        file=given.file,
        variant=given.variant,
        lora_scale=given.lora_scale,
        base=given.repository if given.format == "pipeline" else SDXL_BASE,
        sampling=Sampling(
            given.scheduler,
            given.num_inference_steps,
            given.timesteps,
            given.guidance_scale,
            given.embedded_guidance_scale,
        ),
    )


def remote_of(row: StudentWeights) -> Remote:
    """The files that hold the student's own weights."""
    if row.format == PIPELINE:
        part = (row.file,) if row.component is not None and row.file else None
        whole = Layout(part, variant=row.variant)
        return Remote(row.repository, row.revision, (), "model", row.title, whole)
    local = local_weights(replace(row, file=None))
    if local is not None and local.is_file():
        return Remote(str(local.parent), None, (local.name,), kind="model", what=row.title)
    files = (row.file,) if row.file else ("*.json", "*.safetensors")
    return Remote(row.repository, row.revision, files, kind="model", what=row.title)


def weights_path(row: StudentWeights) -> Path:
    """The file or folder that a format's loader reads."""
    remote = remote_of(row)
    folder = folder_of(remote)
    return folder / remote.files[0] if row.file or len(remote.files) == 1 else folder


def base_remote(row: StudentWeights) -> Remote | None:
    """What a student that is one part of a pipeline takes from its base; None for any other."""
    if row.component is None:
        return None
    assert row.base is not None, "a component has a base"
    rest = Layout(without=(row.component,), variant=row.variant)
    what = f"the rest of {row.title}"
    return Remote(row.base, row.base_revision, (), kind="model", what=what, layout=rest)


def load_whole_pipeline(row: StudentWeights, dtype: torch.dtype) -> Any:
    """A whole pipeline of diffusers, or a base's with the student's network in its place."""
    import diffusers

    base = base_remote(row)
    folder, told = (
        folder_of(base or remote_of(row)),
        {"variant": variant_of(base or remote_of(row))},
    )
    if base is None or row.component is None:
        return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **told)
    named = read_json(folder / "model_index.json").get(row.component)
    if not named or named[0] != "diffusers":
        raise BenchError(
            f"{row.title}: {folder} names no class of diffusers for {row.component}, found {named}"
        )
    network = getattr(diffusers, named[1]).from_pretrained(
        folder_of(remote_of(row)) / (row.file or ""), dtype=dtype
    )
    part = {row.component: network}
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **told, **part)


def inputs_of(row: StudentWeights) -> dict[str, Any]:
    """What determines a published student's images beside the backend."""
    told = {k: v for k, v in asdict(row).items() if k not in ("title", "seen_in", "repository")}
    if row.component is None:
        del told["component"]
    base = base_remote(row)
    rest = {"base": remote_identity(base)} if base else {}
    return {"row": told, "student": remote_identity(remote_of(row)), **rest}
