"""Where the files of published students lie, and what identifies them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote, folder_of, identity
from ddmd_bench.published import PUBLISHED, SDXL, Published, Sampling, local_path
from ddmd_bench.suite import Checkpoint, Student


def row_of(student: Student) -> Published | None:
    """The row behind a student of a suite; None for one that is no loaded student."""
    if student.source == "published":
        if student.published not in PUBLISHED:
            raise BenchError(unknown("published student", student.published or "", PUBLISHED))
        return PUBLISHED[student.published]
    return _row(student.checkpoint, student.title) if student.checkpoint else None


def _row(given: Checkpoint, title: str) -> Published:
    return Published(
        title or given.file or given.repository,
        backend="pipeline" if given.format == "pipeline" else "",
        format=given.format,
        repository=given.repository,
        revision=given.revision,
        file=given.file,
        lora_scale=given.lora_scale,
        base=given.repository if given.format == "pipeline" else SDXL,
        sampling=Sampling(
            given.scheduler,
            given.num_inference_steps,
            given.timesteps,
            given.guidance_scale,
            given.embedded_guidance_scale,
        ),
        source="the suite",
    )


def remote_of(row: Published) -> Remote:
    """The files that hold the student's own weights."""
    local = local_path(replace(row, file=None))
    if local is not None and local.is_file():
        return Remote(str(local.parent), None, (local.name,), kind="model", what=row.title)
    files = (row.file,) if row.file else ("*.json", "*.safetensors", "tokenizer/*")
    return Remote(row.repository, row.revision, files, kind="model", what=row.title)


def weights_path(row: Published) -> Path:
    """The file or folder that a format's loader reads."""
    remote = remote_of(row)
    folder = folder_of(remote)
    return folder / remote.files[0] if row.file or len(remote.files) == 1 else folder


def base_folder(row: Published) -> Path:
    """The folder of a whole pipeline."""
    return folder_of(remote_of(row))


def inputs_of(row: Published) -> dict[str, Any]:
    """What determines a published student's images beside the backend."""
    told = {k: v for k, v in asdict(row).items() if k not in ("title", "source", "repository")}
    return {"row": told, "student": identity(remote_of(row))}
