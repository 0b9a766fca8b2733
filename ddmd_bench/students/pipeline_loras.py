"""LoRAs on a whole pipeline of diffusers: strict, whatever its class.

A network of a class that the backends know is given its LoRAs as theirs are. All else goes through
the pipeline's own loader, which passes over what it does not know with a warning: each tensor of a
file must be found again in one of the pipeline's parts. It also gives layers another alpha than
their own where a file states several: what is loaded must be as large as what the file states.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends.lora_files import LoraFile, read_lora_file
from ddmd_bench.backends.loras import ENDS, fuse_lora, read_lora
from ddmd_bench.backends.lumina2.backend import TRANSFORMER
from ddmd_bench.backends.stable_diffusion.formats import UNET
from ddmd_bench.backends.weight_files import lora_file
from ddmd_bench.backends.weights import read_shapes, read_weights
from ddmd_bench.errors import BenchError

KNOWN = (UNET, TRANSFORMER)
# What every loader drops, of files that are more than a LoRA.
DROPPED = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_")


def fuse_into_pipeline(pipeline: Any, loras: Sequence[tuple[Path, float]]) -> None:
    """Fuse LoRAs into all parts of a pipeline that they change, each at its scale, in order."""
    known = next((k for k in KNOWN if _class_of(pipeline, k.component) == k.name), None)
    for place, scale in loras:
        if known is not None and not _changes_text(place):
            fuse_lora(getattr(pipeline, known.component), known, place, scale)
        else:
            _check_loader(type(pipeline), place)
            _fuse_by_pipeline(pipeline, place, scale)


def _class_of(pipeline: Any, component: str) -> str:
    return type(getattr(pipeline, component, None)).__name__


def _changes_text(place: Path) -> bool:
    """Whether a LoRA is of the pipeline's text encoders too."""
    return any(key.startswith(("text_encoder", "lora_te")) for key in read_shapes(_file_of(place)))


def _fuse_by_pipeline(pipeline: Any, place: Path, scale: float) -> None:
    name = "student"
    with _quiet():
        _load(pipeline, _file_of(place), name)
    pipeline.set_adapters([name], [scale])
    try:
        pipeline.fuse_lora(adapter_names=[name], safe_fusing=True)
    except ValueError as error:  # NaN or infinity in the sum
        raise BenchError(f"{place}: cannot be fused: {error}") from error
    pipeline.unload_lora_weights()


def check_pipeline_loras(
    kind: type, network: Mapping[str, Any], loras: Sequence[tuple[Path, float]]
) -> None:
    """Raise what can be said of LoRAs on a class of pipelines before one is loaded.

    network: the configuration of what denoises.
    """
    known = next((k for k in KNOWN if k.name == network.get("_class_name")), None)
    for place, _ in loras:
        if known is not None and not _changes_text(place):
            read_lora(known.empty(network), known, place)
        else:
            _check_loader(kind, place)


def _check_loader(kind: type, place: Path) -> None:
    """Raise where a pipeline's own loader is not there, or would drop a part of the file."""
    if not hasattr(kind, "load_lora_weights"):
        raise BenchError(
            f"adapters: {kind.__name__} has no loader of LoRAs in diffusers. Save the pipeline "
            "with its LoRAs fused, and name that"
        )
    path = _file_of(place)
    dropped = [k for k in read_shapes(path) if any(part in k for part in DROPPED)]
    if dropped:
        raise BenchError(f"{path}: not a plain LoRA: {dropped[0]!r}")


def _file_of(place: Path) -> Path:
    return lora_file(place) if place.is_dir() else place


@contextmanager
def _quiet() -> Iterator[None]:
    """While a LoRA loads: it need not change every part."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            # What that makes of the weights is looked at.
            warnings.filterwarnings("ignore", "The following alpha_pattern keys")
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
    _require_sizes(pipeline, path, state, name)


def _require_sizes(pipeline: Any, path: Path, state: Mapping[str, Tensor], name: str) -> None:
    """Refuse where alpha / rank * up @ down of the layers are not as large as the file states them.

    A loader renames layers and may scale a factor by alpha: neither changes that. Where it splits
    some, all must have one alpha / rank for their sum to tell anything.
    """
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    layers: list[Any] = [layer for part in parts for layer in part.modules()]
    loaded = [
        (layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])
        for layer in layers
        if name in getattr(layer, "lora_A", ())  # a layer of attention has a scaling too
    ]
    stated = list(_stated(pipeline.components, path, state))
    found, meant = (sorted(_squared(*one) for one in both) for both in (loaded, stated))
    if len(found) != len(meant) and len({scaling for _, _, scaling in stated}) == 1:
        found, meant = [sum(found)], [sum(meant)]
    tolerance = max(torch.finfo(down.dtype).eps for down, _, _ in loaded)
    alike = (
        math.isclose(*both, rel_tol=max(tolerance, 1e-4))
        for both in zip(found, meant, strict=False)
    )
    if len(found) != len(meant) or not all(alike):
        raise BenchError(
            f"{path}: {type(pipeline).__name__} does not scale each layer by its own alpha / rank. "
            "Save the pipeline with its LoRAs fused by what made them, and name that"
        )


def _stated(
    components: Collection[str], path: Path, state: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Both factors of each layer of a file, and what their product is multiplied with."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if end := next((end for end in ENDS if key.endswith(end)), ""):
            layers.setdefault(key.removesuffix(end), {})[ENDS[end]] = tensor
    files: dict[str, LoraFile] = {}
    for layer, sides in layers.items():
        component = part if (part := layer.partition(".")[0]) in components else ""
        if component not in files:
            files[component] = read_lora_file(path, component)
        down, alpha = sides["down"], sides.get("alpha")
        own = None if alpha is None else float(alpha)
        scaling = files[component].scaling(layer.removeprefix(f"{component}."), len(down), own)
        yield down, sides["up"], scaling


def _squared(down: Tensor, up: Tensor, scaling: float) -> float:
    """The sum of squares of scaling * up @ down, without the product."""
    a, b = down.detach().flatten(1).double(), up.detach().flatten(1).double()
    return float(scaling**2 * ((b.T @ b) * (a @ a.T)).sum())


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
