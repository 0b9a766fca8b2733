"""Whole pipelines of diffusers as students: what their small files say, and how they are called.

What a suite asks of a pipeline is held against those files by `check_pipeline`, before any work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddmd_bench.backends.schedulers import explicit_steps, make_scheduler, new_scheduler
from ddmd_bench.errors import BenchError
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.hub.cache import find
from ddmd_bench.students.catalogue import Sampling, StudentWeights
from ddmd_bench.students.checkpoints import base_remote, in_one_file, remote_of

INDEX = "model_index.json"
NETWORKS = ("transformer", "unet")  # by these names diffusers' pipelines call what denoises
# What every pipeline that draws from a prompt takes.
COMMON = ("prompt", "height", "width", "num_inference_steps", "generator", "output_type")


@dataclass(frozen=True)
class PipelineFiles:
    """A pipeline's class and the configurations of its parts; {} for a part without one."""

    class_name: str
    network_name: str
    network: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    vae: Mapping[str, Any]


def read_files(row: StudentWeights) -> PipelineFiles | None:
    """What the pipeline's small files say; None while they are not on this machine."""
    remote = base_remote(row) or remote_of(row)
    folder = find(remote).folder
    if folder is None:
        return None
    if not (folder / INDEX).is_file():
        raise BenchError(f"{remote.place} has no {INDEX}: no pipeline in diffusers' format")
    index = read_record(folder / INDEX, remedy=FETCH_AGAIN)
    network_name = row.component or next((n for n in NETWORKS if n in index), NETWORKS[0])
    network = folder / network_name
    if row.component is not None:
        own = find(remote_of(row)).folder
        if own is None:
            return None
        if not in_one_file(row):
            network = own / (row.file or "")
    return PipelineFiles(
        str(index.get("_class_name")),
        network_name,
        _config(network / "config.json"),
        _scheduler(folder, index),
        _config(folder / "vae" / "config.json"),
    )


def _config(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_record(path, remedy=FETCH_AGAIN) if path.is_file() else {}
    return found


def _scheduler(folder: Path, index: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scheduler's configuration; its class is the index's to say, as for `from_pretrained`."""
    config = _config(folder / "scheduler" / "scheduler_config.json")
    named = index.get("scheduler")
    return {**config, "_class_name": named[1]} if config and named else config


def check_pipeline(row: StudentWeights) -> None:
    """Hold a row against its pipeline's files, as far as they are here: BenchError in words."""
    files = read_files(row)
    if files is not None:
        call_options(row, files)


def call_options(row: StudentWeights, files: PipelineFiles) -> dict[str, Any]:
    """Arguments of the pipeline's call that are alike for all images."""
    import diffusers

    assert row.resolution is not None, "the plan gives it"
    kind = getattr(diffusers, files.class_name, None)
    if kind is None:
        raise BenchError(
            f"{INDEX} names the class {files.class_name!r}, which diffusers "
            f"{diffusers.__version__} does not have"
        )
    known = inspect.signature(kind.__call__).parameters
    steps = explicit_steps(row.sampling.timesteps, row.sampling.sigmas)
    read = row.max_sequence_length
    options = {
        "num_inference_steps": row.sampling.num_inference_steps,
        "height": row.resolution,
        "width": row.resolution,
        "output_type": "pt",
        **({} if read is None else {"max_sequence_length": read}),
        **steps,
        **_guidance(row.sampling, files, "true_cfg_scale" in known),
    }
    if lacking := sorted({*options, *COMMON} - known.keys()):
        other = {"timesteps": "sigmas", "sigmas": "timesteps"}
        hint = [
            f"; give {other[kind]}" for kind in steps if kind in lacking and other[kind] in known
        ]
        raise BenchError(f"{files.class_name} takes no {', '.join(lacking)}{''.join(hint)}")
    _check_size(files, row.resolution)
    _check_scheduler(row.sampling, files)
    return options


def _guidance(sampling: Sampling, files: PipelineFiles, has_true_cfg: bool) -> dict[str, Any]:
    """Guidance in the pipeline's own words.

    A network that is told its guidance takes the call's guidance_scale for that; real guidance, a
    second pass, is true_cfg_scale then, where the pipeline has one.
    """
    scale, told = sampling.guidance_scale, sampling.embedded_guidance_scale
    reads = bool(
        files.network.get("guidance_embeds") or files.network.get("time_cond_proj_dim") is not None
    )
    if files.network and reads != (told is not None):
        raise BenchError(
            f"its {files.network_name} is told its guidance: set embedded_guidance_scale"
            if reads
            else f"its {files.network_name} is told no guidance; leave embedded_guidance_scale out"
        )
    if has_true_cfg:
        return {"true_cfg_scale": scale, **({} if told is None else {"guidance_scale": told})}
    if told is not None:
        if scale != 1:
            raise BenchError(
                f"{files.class_name} has no guidance beside what the network is told, and "
                f"guidance_scale is {scale:g}; leave it out"
            )
        return {"guidance_scale": told}
    # 1 is no guidance here; a pipeline skips its second pass at any value up to 1, and Z-Image's
    # only at 0.
    return {"guidance_scale": 0.0 if scale == 1 else scale}


def _check_size(files: PipelineFiles, resolution: int) -> None:
    """Whole latents and, of a transformer, whole patches, which are 2 x 2 at least."""
    blocks = files.vae.get("block_out_channels")
    if blocks is None:  # another kind of VAE: its pipeline will tell
        return
    patch = files.network.get("patch_size")
    patches = max(2, patch if isinstance(patch, int) else 1) if files.network_name != "unet" else 1
    pixels = 2 ** (len(blocks) - 1) * patches
    if resolution % pixels:
        near = pixels * max(1, round(resolution / pixels))
        raise BenchError(
            f"resolution: {resolution} is no multiple of the {pixels} pixels that "
            f"{files.class_name} draws at once. Take {near}"
        )


def _check_scheduler(sampling: Sampling, files: PipelineFiles) -> None:
    """What can be said of the scheduler without the pipeline."""
    steps = explicit_steps(sampling.timesteps, sampling.sigmas)
    if sampling.scheduler == "own" and not steps:
        return
    if not files.scheduler:
        raise BenchError(f"{files.class_name} has no scheduler_config.json; leave scheduler out")
    made = new_scheduler(sampling.scheduler, files.scheduler)
    if made.config.get("use_dynamic_shifting"):
        return  # its levels depend on what the pipeline alone computes
    num_steps = sampling.num_inference_steps
    make_scheduler(sampling.scheduler, files.scheduler, num_steps, **steps)
