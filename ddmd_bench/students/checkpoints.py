"""Where the files of published students lie, and what identifies them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.backends.weight_files import CONFIG, PICKLED
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.files.tensors import SUFFIX, open_safetensors
from ddmd_bench.hub import Layout, Remote, folder_of, remote_identity, variant_of
from ddmd_bench.students.catalogue import (
    SDXL_BASE,
    Sampling,
    StackedLora,
    StudentWeights,
)
from ddmd_bench.students.places import FILES, remote_of_weights
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.suite.students import Checkpoint, Student

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ddmd_bench.backends import Backend, Loras

LORA = "lora"  # the format of what is stacked


def row_of(student: Student) -> StudentWeights | None:
    """The row behind a student of a suite; None for one that is no loaded student."""
    if student.source == "published":
        if student.published not in PUBLISHED:
            raise BenchError(unknown("published student", student.published or "", PUBLISHED))
        row = PUBLISHED[student.published]
    elif student.checkpoint is not None:
        row = _row(student.checkpoint, student.title)
    else:
        return None
    on_top = tuple(StackedLora(**dict(one)) for one in student.adapters)
    return replace(row, adapters=row.adapters + on_top)


def _row(given: Checkpoint, title: str) -> StudentWeights:
    return StudentWeights(
        title or given.file or given.repository,
        backend="pipeline" if given.format == "pipeline" else "",
        format=given.format,
        repository=given.repository,
        revision=given.revision,
        file=given.file,
        variant=given.variant,
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
    )


def remote_of(row: StudentWeights) -> Remote:
    """The files that hold the student's own weights."""
    if row.format in FILES:
        return remote_of_weights(row.repository, row.revision, row.file, row.format, row.title)
    if in_one_file(row):
        assert row.file is not None
        return Remote(row.repository, row.revision, (row.file,), "model", row.title)
    part = (row.file,) if row.component is not None and row.file else None
    whole = Layout(part, variant=row.variant)
    return Remote(row.repository, row.revision, (), "model", row.title, whole)


def in_one_file(row: StudentWeights) -> bool:
    """Whether a pipeline's part is a state dict, whose configuration is the base's."""
    return row.component is not None and Path(row.file or "").suffix in (SUFFIX, *PICKLED)


def lora_remotes(row: StudentWeights) -> list[Remote]:
    """The files of the LoRAs on top of a student's own weights, in their order."""
    return [
        remote_of_weights(
            one.repository, one.revision, one.file, LORA, f"{row.title}, LoRA {number}"
        )
        for number, one in enumerate(row.adapters, start=1)
    ]


def lora_paths(row: StudentWeights) -> list[tuple[Path, float]]:
    """Where those LoRAs lie, each with its scale."""
    scales = [one.scale for one in row.adapters]
    return list(zip(map(_first, lora_remotes(row)), scales, strict=True))


def _first(remote: Remote) -> Path:
    return folder_of(remote) / remote.files[0]


def load_network(row: StudentWeights, backend: Backend) -> nn.Module:
    """A student's network in the backend's own frame, with all its LoRAs fused."""
    assert backend.load_student is not None, "plan refuses a backend without"
    return backend.load_student(*weights_of(row, backend))


def weights_of(row: StudentWeights, backend: Backend) -> tuple[Path | None, Loras]:
    """A whole network's file or folder, None for the base's own; the LoRAs to fuse into it."""
    own = _first(remote_of(row))
    if backend.formats[row.format]:
        # A folder is read with its configuration.
        return own.parent if own.name == CONFIG else own, lora_paths(row)
    return None, [(own, row.lora_scale), *lora_paths(row)]


def reads_guidance(row: StudentWeights, backend: Backend) -> bool | None:
    """Whether a network is told its guidance; None where its file is not here, or a pickle."""
    from ddmd_bench.backends.stable_diffusion.formats import GUIDANCE_INPUT

    try:
        path, _ = weights_of(row, backend)
        if path is None:
            return False
        if path.is_dir():
            return read_record(path / CONFIG).get("time_cond_proj_dim") is not None
        if path.suffix != SUFFIX:
            return None
        with open_safetensors(path, "np") as file:
            return GUIDANCE_INPUT in file.keys()  # noqa: SIM118, it is no dict
    except BenchError:
        return None  # absent or damaged: said with all other downloads


def base_remote(row: StudentWeights) -> Remote | None:
    """What a student that is one part of a pipeline takes from its base; None for any other."""
    if row.component is None:
        return None
    assert row.base is not None, "a component has a base"
    rest = Layout(without=(row.component,), variant=row.variant)
    what = f"the rest of {row.title}"
    config = (f"{row.component}/{CONFIG}",) if in_one_file(row) else ()
    return Remote(row.base, row.base_revision, config, kind="model", what=what, layout=rest)


def load_whole_pipeline(row: StudentWeights, dtype: torch.dtype) -> Any:
    """A whole pipeline of diffusers, or a base's with the student's network in its place."""
    import diffusers

    base = base_remote(row)
    whole = base or remote_of(row)
    folder, told = folder_of(whole), {"variant": variant_of(whole)}
    if base is None or row.component is None:
        return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **told)
    named = read_record(folder / "model_index.json", remedy=FETCH_AGAIN).get(row.component)
    if not named or named[0] != "diffusers":
        raise BenchError(
            f"{row.title}: {folder} names no class of diffusers for {row.component}, found {named}"
        )
    place = folder_of(remote_of(row)) / (row.file or "")
    if in_one_file(row):
        network = _filled(named[1], folder / row.component, place, dtype)
    else:
        network = getattr(diffusers, named[1]).from_pretrained(place, dtype=dtype)
    part = {row.component: network}
    return diffusers.DiffusionPipeline.from_pretrained(folder, dtype=dtype, **told, **part)


def _filled(class_name: str, base: Path, place: Path, dtype: torch.dtype) -> Any:
    """A state dict in one file, in the architecture of a base's folder; strict."""
    from ddmd_bench.backends.network_class import NetworkClass
    from ddmd_bench.backends.weights import read_config
    from ddmd_bench.backends.whole_networks import load_whole

    kind = NetworkClass(class_name, base.name, lambda network: {}, free_settings=frozenset())
    return load_whole(kind, read_config(base), place, dtype).eval()


def inputs_of(row: StudentWeights) -> dict[str, Any]:
    """What determines a published student's images beside the backend."""
    left_out = ("title", "seen_in", "repository", "adapters")
    told = {k: v for k, v in asdict(row).items() if k not in left_out}
    for name in ("component", "max_sequence_length"):  # no part of earlier keys
        if told[name] is None:
            del told[name]
    if row.adapters:
        loras = zip(row.adapters, lora_remotes(row), strict=True)
        told["adapters"] = [
            {"scale": one.scale, "file": one.file, "weights": remote_identity(remote)}
            for one, remote in loras
        ]
    base = base_remote(row)
    rest = {"base": remote_identity(base)} if base else {}
    return {"row": told, "student": remote_identity(remote_of(row)), **rest}
