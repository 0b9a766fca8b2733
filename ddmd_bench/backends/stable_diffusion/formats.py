"""Published SDXL students, as files, into a plain `UNet2DConditionModel`.

Strict: a tensor that has no place, or a place without its tensor, is an error, never a warning.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.weights import read_config, read_weights
from ddmd_bench.errors import BenchError, unknown

UNet = Any  # diffusers' UNet2DConditionModel
NUM_NAMED = 3  # differences that an error spells out
# Settings of a UNet that change no output, or that this loader sets itself.
FREE_SETTINGS = frozenset({"sample_size", "time_cond_proj_dim"})
GUIDANCE_INPUT = "time_embedding.cond_proj.weight"
LORA_FILE = "pytorch_lora_weights.safetensors"


def load_unet(base_unet: UNet, weights_path: Path, format: str, scale: float = 1.0) -> UNet:
    """The student that the weights make of `base_unet`, which stays as it is.

    format: a key of `FORMATS`. scale: of a LoRA. In the base's dtype, on its device, frozen.
    """
    if format not in FORMATS:
        raise BenchError(unknown("format of SDXL weights", format, FORMATS))
    unet = FORMATS[format](base_unet, weights_path, scale)
    return unet.requires_grad_(False).eval()


def guidance_embedding(unet: UNet, guidance_scale: float | None, num: int) -> Tensor | None:
    """What a UNet with a guidance input (LCM) reads as `timestep_cond`, [num, time_cond_proj_dim].

    None for a UNet without one. guidance_scale in diffusers' convention, whose pipeline tells the
    network guidance_scale - 1.
    """
    from diffusers import StableDiffusionXLPipeline

    dim = unet.config.time_cond_proj_dim
    if dim is None:
        if guidance_scale is not None:
            raise BenchError("this UNet has no guidance input; leave embedded_guidance_scale out")
        return None
    if guidance_scale is None:
        raise BenchError("this UNet is told its guidance scale: set embedded_guidance_scale")
    embed = StableDiffusionXLPipeline.get_guidance_scale_embedding  # reads nothing of a pipeline
    embedding: Tensor = embed(None, torch.full((num,), guidance_scale - 1.0), dim)
    return embedding.to(unet.device, unet.dtype)


def _load_full(base_unet: UNet, path: Path, scale: float) -> UNet:
    """A whole UNet in diffusers' keys: a folder, or a state dict in one file."""
    if scale != 1:
        raise BenchError(f"{path}: a whole UNet has no LoRA scale, got {scale}")
    if path.is_dir():
        _check_config(base_unet, path)
    state = read_weights(path)
    guidance_input = state.get(GUIDANCE_INPUT)
    dim = None if guidance_input is None else guidance_input.shape[-1]
    unet = _empty_like(base_unet, dim)
    expected = {k: tuple(v.shape) for k, v in unet.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if found != expected:
        raise BenchError(
            f"{path} holds another network than {_describe(base_unet)}: "
            f"{_differences(expected, found)}"
        )
    for key in state:  # one by one: half-precision files are large, and twice that in float32
        state[key] = state[key].to(base_unet.device, base_unet.dtype)
    unet.load_state_dict(state, assign=True)
    assert not any(t.is_meta for t in chain(unet.parameters(), unet.buffers()))
    return unet


def _load_lora(base_unet: UNet, path: Path, scale: float) -> UNet:
    """A LoRA in any key style that diffusers reads, fused into the weights at `scale`.

    A file, or a folder with the name that diffusers gives it.
    """
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader

    if path.is_dir():
        path = path / LORA_FILE
    _refuse_what_would_be_dropped(path, read_weights(path))
    try:
        state, alphas, metadata = Loader.lora_state_dict(
            str(path.parent), weight_name=path.name, unet_config=base_unet.config,
            local_files_only=True, return_lora_metadata=True,
        )  # fmt: skip
    except (ValueError, KeyError) as error:
        raise BenchError(f"{path}: not a LoRA that diffusers can read: {error}") from error
    targets = _check_lora(base_unet, path, state)
    unet = copy.deepcopy(base_unet)
    Loader.load_lora_into_unet(state, alphas, unet, adapter_name="student", metadata=metadata)
    adapted = {name for name, module in unet.named_modules() if hasattr(module, "lora_A")}
    if adapted != targets:
        odd = sorted(adapted ^ targets)
        raise BenchError(
            f"{path}: {len(odd)} layers differ between the LoRA and what was adapted: {odd[:3]}"
        )
    try:
        unet.fuse_lora(lora_scale=scale, safe_fusing=True)
    except ValueError as error:  # NaN or infinity in the sum
        raise BenchError(f"{path}: cannot be fused at scale {scale}: {error}") from error
    unet.unload_lora()
    return unet


FORMATS: dict[str, Callable[[UNet, Path, float], UNet]] = {"unet": _load_full, "lora": _load_lora}


def _describe(unet: UNet) -> str:
    return f"the base's UNet {list(unet.config.block_out_channels)}"


def _empty_like(base_unet: UNet, time_cond_proj_dim: int | None) -> UNet:
    """The base's architecture without memory, with a guidance input where a width is given."""
    with torch.device("meta"):
        return type(base_unet).from_config(
            dict(base_unet.config), time_cond_proj_dim=time_cond_proj_dim
        )


def _check_config(base_unet: UNet, folder: Path) -> None:
    """What shapes do not show, such as the number of heads, must be the base's too."""
    config = read_config(folder)
    if config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise BenchError(f"{folder}: holds a {config['_class_name']}, not a UNet2DConditionModel")
    with torch.device("meta"):
        found = type(base_unet).from_config(config).config
    settings = [k for k in base_unet.config if not k.startswith("_") and k not in FREE_SETTINGS]
    odd = [k for k in settings if _plain(found.get(k)) != _plain(base_unet.config[k])]
    if odd:
        named = "; ".join(
            f"{k} is {found.get(k)}, not {base_unet.config[k]}" for k in odd[:NUM_NAMED]
        )
        raise BenchError(
            f"{folder} holds another network than {_describe(base_unet)}: "
            f"{len(odd)} settings differ: {named}"
        )


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON has them."""
    return list(value) if isinstance(value, tuple) else value


def _differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """How many tensors differ, and the first of them."""
    shapes = [
        f"{k} has shape {list(found[k])}, not {list(expected[k])}"
        for k in expected
        if k in found and found[k] != expected[k]
    ]
    missing = [f"{k} is missing" for k in expected if k not in found]
    extra = [f"{k} is not known" for k in found if k not in expected]
    # One of each kind first, so that a reader sees what sort of difference it is.
    kinds = [kind for kind in (shapes, missing, extra) if kind]
    named = [kind[0] for kind in kinds] + [line for kind in kinds for line in kind[1:]]
    counts = f"{len(shapes)} other shapes, {len(missing)} missing, {len(extra)} not known"
    return f"{counts} of {len(expected)} tensors: {'; '.join(named[:NUM_NAMED])}"


def _refuse_what_would_be_dropped(path: Path, state: Mapping[str, Tensor]) -> None:
    """Parts that diffusers leaves out with a warning, or that this student could not use."""
    dora = [k for k in state if "dora_scale" in k]
    if dora:
        raise BenchError(f"{path}: a DoRA ({dora[0]!r}); diffusers would drop its scales")
    text = [k for k in state if k.startswith(("text_encoder", "lora_te"))]
    if text:
        raise BenchError(
            f"{path}: {len(text)} of {len(state)} tensors change the text encoders, which all "
            f"students share: {text[0]!r}. Only a LoRA of the UNet alone can be compared"
        )
    styles = [any(p in k for k in state) for p in ("input_blocks", "down_blocks")]
    if all(styles):
        raise BenchError(f"{path}: mixes the original and diffusers' block names")


_LORA_KEY = re.compile(r"^unet\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight$")


def _check_lora(base_unet: UNet, path: Path, state: Mapping[str, Tensor]) -> set[str]:
    """Names of the layers that the LoRA changes; each must exist, with the LoRA's widths."""
    from diffusers.utils import convert_unet_state_dict_to_peft

    layers = dict(base_unet.named_modules())
    sides: dict[str, dict[str, Tensor]] = {}
    odd: list[str] = []
    for key, tensor in convert_unet_state_dict_to_peft(state).items():
        match = _LORA_KEY.match(key)
        if match is None:
            odd.append(f"{key} is not a LoRA of the UNet")
        else:
            sides.setdefault(match["layer"], {})[match["side"]] = tensor
    for name, pair in sides.items():
        if name not in layers or not hasattr(layers[name], "weight"):
            odd.append(f"{name} is no layer of the UNet")
        elif set(pair) != {"A", "B"}:
            odd.append(f"{name} has one side only")
        else:
            weight = layers[name].weight
            a, b = pair["A"], pair["B"]
            if (b.shape[0], *a.shape[1:]) != tuple(weight.shape) or a.shape[0] != b.shape[1]:
                odd.append(f"{name}: {list(b.shape)} x {list(a.shape)} for {list(weight.shape)}")
    if odd or not sides:
        named = "; ".join(odd[:NUM_NAMED]) or "it names no layer"
        raise BenchError(
            f"{path}: a LoRA that does not fit {_describe(base_unet)}, {len(odd)} of "
            f"{max(len(sides), len(odd))} layers: {named}"
        )
    return set(sides)
