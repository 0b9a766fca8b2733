"""LoRAs on a whole pipeline of diffusers, by the pipeline's own loader, which is held to be strict.

That loader passes over what it does not know with a warning: each tensor of a file must be found
again in one of the pipeline's parts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from ddmd_bench.backends.weight_files import lora_file
from ddmd_bench.backends.weights import read_shapes, read_weights
from ddmd_bench.errors import BenchError

# What every loader drops, of files that are more than a LoRA.
DROPPED = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_")


def fuse_into_pipeline(pipeline: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Fuse LoRAs into all parts of a pipeline that they change, each at its scale, in order."""
    if not loras:
        return
    check_pipeline_loras(type(pipeline), loras)
    names = []
    for number, (place, _) in enumerate(loras):
        names.append(f"lora_{number}")
        with _quiet():
            _load(pipeline, _file_of(place), names[-1])
    pipeline.set_adapters(names, [scale for _, scale in loras])
    try:
        pipeline.fuse_lora(adapter_names=names, safe_fusing=True)
    except ValueError as error:  # NaN or infinity in the sum
        raise BenchError(f"{loras[-1][0]}: cannot be fused: {error}") from error
    pipeline.unload_lora_weights()


def check_pipeline_loras(kind: type, loras: Sequence[tuple[Path, float]]) -> None:
    """Raise what can be said of LoRAs on a class of pipelines before one is loaded."""
    if not hasattr(kind, "load_lora_weights"):
        raise BenchError(
            f"adapters: {kind.__name__} has no loader of LoRAs in diffusers. Save the pipeline "
            "with its LoRAs fused, and name that"
        )
    for place, _ in loras:
        path = _file_of(place)
        dropped = [k for k in read_shapes(path) if any(part in k for part in DROPPED)]
        if dropped:
            raise BenchError(f"{path}: not a plain LoRA: {dropped[0]!r}")


def _file_of(place: Path) -> Path:
    return lora_file(place) if place.is_dir() else place


@contextmanager
def _quiet() -> Iterator[None]:
    """While a LoRA loads: it need not change every part, nor be the first."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            yield
    finally:
        logging.set_verbosity(level)


def _load(pipeline: Any, path: Path, name: str) -> None:
    from diffusers.utils import convert_unet_state_dict_to_peft

    state = read_weights(path)
    options = {"weight_name": path.name, "local_files_only": True}
    try:
        read = pipeline.lora_state_dict(str(path.parent), **options, **_unet_config(pipeline))
        pipeline.load_lora_weights(str(path.parent), adapter_name=name, **options)
    except (ValueError, KeyError, IndexError, RuntimeError, TypeError) as error:
        raise BenchError(
            f"{path}: not a LoRA that {type(pipeline).__name__} can read: {error}"
        ) from error
    converted = read[0] if isinstance(read, tuple) else read
    num_alphas = sum(key.endswith(".alpha") for key in state)
    loaded = _loaded(pipeline, name)
    # A converter splits what a pipeline keeps apart, so that it may give more than the file has.
    if len(loaded) != len(converted) or len(converted) < len(state) - num_alphas:
        keys = convert_unet_state_dict_to_peft(converted)
        unknown = [key for key in keys if key not in loaded] or ["all"]
        raise BenchError(
            f"{path}: {type(pipeline).__name__} uses {len(loaded)} of its "
            f"{len(state) - num_alphas} tensors, not {', '.join(unknown[:3])}"
        )


def _unet_config(pipeline: Any) -> dict[str, Any]:
    """What SDXL's loader needs to tell the blocks of kohya's files."""
    unet = getattr(pipeline, "unet", None)
    return {} if unet is None else {"unet_config": unet.config}


def _loaded(pipeline: Any, name: str) -> set[str]:
    """Names of all tensors of an adapter in the pipeline's parts, as peft's keys."""
    return {
        f"{component}.{key.replace(f'.{name}.', '.')}"
        for component, part in pipeline.components.items()
        if isinstance(part, nn.Module)
        for key in part.state_dict()
        if f".{name}." in key
    }
