"""Where the files of published students lie, and what identifies them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.records import read_json
from ddmd_bench.hub import Remote, folder_of, remote_identity
from ddmd_bench.students.catalogue import (
    PUBLISHED,
    SDXL_BASE,
    Sampling,
    StudentWeights,
    local_weights,
)
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
        lora_scale=1.0 if given.lora_scale is None else given.lora_scale,
        resolution=given.resolution,
        base=given.repository if given.format == "pipeline" else SDXL_BASE,
        sampling=Sampling(
            given.scheduler,
            given.num_steps,
            given.timesteps,
            given.guidance_scale,
            given.embedded_guidance_scale,
            given.sigmas,
        ),
        source="the suite",
    )


def remote_of(row: StudentWeights) -> Remote:
    """The files that hold the student's own weights."""
    local = local_weights(replace(row, file=None))
    if local is not None and local.is_file():
        return Remote(str(local.parent), None, (local.name,), kind="model", what=row.title)
    files: tuple[str, ...] = (row.file,) if row.file else ("*.json", "*.safetensors", "tokenizer/*")
    if row.component is not None:
        files = (f"{row.file}/*.json", f"{row.file}/*.safetensors")
    return Remote(row.repository, row.revision, files, kind="model", what=row.title)


def weights_path(row: StudentWeights) -> Path:
    """The file or folder that a format's loader reads."""
    remote = remote_of(row)
    folder = folder_of(remote)
    return folder / remote.files[0] if row.file or len(remote.files) == 1 else folder


def reads_guidance(row: StudentWeights) -> bool | None:
    """Whether a whole UNet is told its guidance; None where its file is not here, or a pickle."""
    from safetensors import SafetensorError, safe_open

    from ddmd_bench.backends.stable_diffusion.formats import GUIDANCE_INPUT

    try:
        path = weights_path(row)
        if path.is_dir():
            return read_json(path / "config.json").get("time_cond_proj_dim") is not None
        if path.suffix != ".safetensors":
            return None
        with safe_open(path, "np") as file:
            return GUIDANCE_INPUT in file.keys()  # noqa: SIM118, it is no dict
    except (BenchError, SafetensorError, OSError, ValueError):
        return None  # absent or damaged: said with all other downloads


# A pipeline but for its network, which is a student's own; not the files of other programs at the
# top of a repository.
_REST = ("model_index.json", "scheduler/*", "text_encoder*", "tokenizer*", "vae/*")


def base_remote(row: StudentWeights) -> Remote | None:
    """What a student that is one part of a pipeline takes from its base; None for any other."""
    if row.component is None:
        return None
    assert row.base is not None, "a component has a base"
    return Remote(row.base, None, _REST, kind="model", what=f"the rest of {row.title}")


def load_whole_pipeline(row: StudentWeights, dtype: torch.dtype) -> Any:
    """A whole pipeline of diffusers, or a base's with the student's network in its place."""
    import diffusers

    base = base_remote(row)
    if base is None or row.component is None:
        return diffusers.DiffusionPipeline.from_pretrained(folder_of(remote_of(row)), dtype=dtype)
    folder = folder_of(base)
    named = read_json(folder / "model_index.json").get(row.component)
    if not named or named[0] != "diffusers":
        raise BenchError(
            f"{row.title}: {folder} names no class of diffusers for {row.component}, found {named}"
        )
    network = getattr(diffusers, named[1]).from_pretrained(
        folder_of(remote_of(row)) / (row.file or ""), dtype=dtype
    )
    part = {row.component: network}
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **part)


def inputs_of(row: StudentWeights) -> dict[str, Any]:
    """What determines a published student's images beside the backend."""
    told = {k: v for k, v in asdict(row).items() if k not in ("title", "source", "repository")}
    if row.component is None:
        del told["component"]
    base = base_remote(row)
    rest = {"base": remote_identity(base)} if base else {}
    return {"row": told, "student": remote_identity(remote_of(row)), **rest}
