"""Published students' files at tiny size, in the formats that their authors write.

Which file has which keys: DMD2's LoRA is written by its `main/sdxl/extract_lora_module.py` and
PCM's by `get_module_kohya_state_dict`, both as `kohya` here; the whole UNets hold diffusers' own
keys, since each model card loads them with `UNet2DConditionModel.load_state_dict`. The keys of the
LoRAs of LCM, SDXL-Lightning, Hyper-SD and Flash-SDXL were not seen; every style that diffusers
reads is in `lora_styles`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

# The layers that DMD2's and PCM's LoRAs change, convolutions too.
TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
RANK = 4
ALPHA = 2.0  # not the rank, so that a lost alpha shows

Pairs = dict[str, tuple[Tensor, Tensor]]  # layer -> A [r, in, ...], B [out, r, ...]


def target_layers(unet: Any, targets: tuple[str, ...]) -> dict[str, Any]:
    """Layers whose name ends in a target."""
    ends = tuple(f".{target}" for target in targets)
    return {name: layer for name, layer in unet.named_modules() if name.endswith(ends)}


def make_pairs(unet: Any, targets: tuple[str, ...] = TARGETS, rank: int = RANK) -> Pairs:
    """A LoRA that changes outputs visibly."""
    generator = torch.Generator().manual_seed(7)
    pairs: Pairs = {}
    for name, layer in target_layers(unet, targets).items():
        out, wide_in, *kernel = layer.weight.shape
        a = torch.randn(rank, wide_in, *kernel, generator=generator) * 0.1
        b = torch.randn(out, rank, *(1 for _ in kernel), generator=generator) * 0.1
        pairs[name] = (a, b)
    return pairs


def kohya(pairs: Pairs, rename: Callable[[str], str] = lambda name: name) -> dict[str, Tensor]:
    """`lora_unet_..._to_q.lora_down.weight`, `.lora_up.weight`, `.alpha`."""
    state: dict[str, Tensor] = {}
    for name, (a, b) in pairs.items():
        prefix = "lora_unet_" + rename(name).replace(".", "_")
        state[f"{prefix}.lora_down.weight"] = a.contiguous()
        state[f"{prefix}.lora_up.weight"] = b.contiguous()
        state[f"{prefix}.alpha"] = torch.tensor(ALPHA)
    return state


def processor(pairs: Pairs) -> dict[str, Tensor]:
    """diffusers' first keys, `unet.....processor.to_q_lora.down.weight`: no alpha."""
    state: dict[str, Tensor] = {}
    for name, (a, b) in pairs.items():
        layer, _, kind = name.removesuffix(".0").rpartition(".")
        state[f"unet.{layer}.processor.{kind}_lora.down.weight"] = a
        state[f"unet.{layer}.processor.{kind}_lora.up.weight"] = b
    return state


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.half() for key, value in state.items()}


def student_state(unet: Any, seed: int = 3) -> dict[str, Tensor]:
    """A whole student: the base's weights, each moved a little."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value + 0.05 * torch.randn(value.shape, generator=generator)
        for key, value in unet.state_dict().items()
    }


def write_bin(unet: Any, file: Path) -> None:
    """DMD2's `dmd2_sdxl_4step_unet_fp16.bin`: a pickled OrderedDict of halves."""
    from collections import OrderedDict

    torch.save(OrderedDict(_half(student_state(unet))), file)


def write_safetensors(unet: Any, file: Path) -> None:
    """SDXL-Lightning's and Hyper-SD's whole UNets."""
    save_file(_half(student_state(unet)), file)


def lcm_unet(unet: Any, dim: int = 8) -> Any:
    """The same architecture with LCM-SDXL's guidance input, its weights from a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        student = type(unet).from_config(dict(unet.config), time_cond_proj_dim=dim)
    return student.eval()


def write_folder(unet: Any, folder: Path, **options: Any) -> None:
    """LCM-SDXL: a diffusers folder."""
    lcm_unet(unet).save_pretrained(folder, **options)
