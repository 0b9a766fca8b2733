"""LoRAs in every style that diffusers reads or writes, fused into a network of any class.

Strict: a key that names no layer, a layer without both factors or of other widths is an error. One
table holds every name under which a file may know a layer, so a file may mix styles. diffusers
0.42 differs from a file twice: it gives an attention layer the commonest alpha of a kohya file
instead of the layer's own, and it reads of a file whose first key is peft's no older keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends.lora_files import WRAPPED, LoraFile, read_lora_file
from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.errors import BenchError

Layers = tuple[str, ...]  # several where a file joins, row by row, what the network keeps apart

NUM_NAMED = 3  # keys that an error spells out
KOHYA = "lora_unet_"  # before a layer's name, its dots underscores, whatever the network
ORIGINAL = "diffusion_model."  # before names of the authors' own code
# The projections of an attention, whose processors held its LoRA at first: `to_q_lora.down`.
PROCESSED = ("to_q", "to_k", "to_v", "to_out")
# Ends of keys -> which tensor of a layer it is. The fourth pair is that of kohya's trainer.
ENDS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.bias": "bias",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
}


@dataclass(frozen=True)
class Change:
    """What a LoRA adds to a layer's weight, scaling * up @ down, and its bias, scaling * bias."""

    down: Tensor  # [r, in, ...]
    up: Tensor  # [out, r, ...], a kernel of one pixel
    bias: Tensor | None
    scaling: float

    def parts(self) -> Iterator[tuple[str, Callable[[torch.dtype], Tensor]]]:
        """Each parameter's name, and what is added to it at scale 1 / scaling."""
        yield "weight", self._of_weight
        if (bias := self.bias) is not None:
            yield "bias", bias.to

    def _of_weight(self, dtype: torch.dtype) -> Tensor:
        product = self.up.flatten(1).to(dtype) @ self.down.flatten(1).to(dtype)
        return product.view(len(self.up), *self.down.shape[1:])


@torch.no_grad()
def fuse_lora(network: Any, kind: NetworkClass, place: Path, scale: float) -> None:
    """Add a LoRA, a file or a folder, at a scale to a network's weights, in float32 or finer."""
    layers = dict(network.named_modules())
    for name, change in read_lora(network, kind, place).items():
        for part, added in change.parts():
            parameter: Tensor = getattr(layers[name], part)
            fine = torch.promote_types(parameter.dtype, torch.float32)
            step = scale * change.scaling * added(fine).to(parameter.device)
            fused = (parameter.to(fine) + step).to(parameter.dtype)
            if not fused.isfinite().all():
                raise BenchError(
                    f"{place}: cannot be fused at scale {scale}: {name} is no longer finite"
                )
            parameter.copy_(fused)


def read_lora(network: Any, kind: NetworkClass, place: Path) -> dict[str, Change]:
    """What a LoRA adds to each layer of a network, which may be on the meta device."""
    file = read_lora_file(place, kind.component)
    _refuse_what_others_drop(file)
    layers: dict[str, nn.Module] = dict(network.named_modules())
    names = layer_names(layers, kind.component, kind.original_names(network))
    found: dict[str, dict[str, Tensor]] = {}
    odd = []
    for key, tensor in file.tensors.items():
        owners, side = _of_key(key, names)
        for owner, part in zip(owners, _split(tensor, side, owners, layers), strict=True):
            if side in found.setdefault(owner, {}):
                odd.append(f"{key} gives {owner} a second {side}")
            found[owner][side] = part
        if not owners:
            odd.append(f"{key} names no layer of a LoRA")
    for owner, tensors in found.items():
        odd += _misfits(owner, layers[owner], tensors)
    if odd or not found:
        raise BenchError(
            f"{file.path}: a LoRA that does not fit the base's {kind.name}, "
            f"{len(odd)} faults in {len(file.tensors)} tensors: "
            + ("; ".join(odd[:NUM_NAMED]) or "it names no layer")
        )
    return {owner: _change(file, owner, tensors) for owner, tensors in found.items()}


def layer_names(
    layers: Iterable[str], component: str, original: Mapping[str, Layers]
) -> dict[str, Layers]:
    """Every name under which a file may know a layer, but for the ends of its keys."""
    own: dict[str, Layers] = {name: (name,) for name in layers if name}
    # diffusers' first keys have no place in a list for the last projection.
    own |= {name.removesuffix(".0"): of for name, of in own.items() if name.endswith(".to_out.0")}
    dotted = (WRAPPED, f"{WRAPPED}{component}.", f"{component}.", "")
    found = {prefix + name: of for prefix in dotted for name, of in own.items()}
    found |= {ORIGINAL + name: of for name, of in original.items()}
    flat = {KOHYA + name.replace(".", "_"): of for name, of in {**original, **own}.items()}
    return found | flat


def _of_key(key: str, names: Mapping[str, Layers]) -> tuple[Layers, str]:
    """The layers of a key, () where it names none, and which tensor of theirs it is."""
    for end, side in ENDS.items():
        name = key.removesuffix(end).replace(".processor.", ".")
        if not key.endswith(end) or (end.startswith("_") and not name.endswith(PROCESSED)):
            continue
        if name in names:
            return names[name], side
    return (), ""


def _split(
    tensor: Tensor, side: str, owners: Layers, layers: Mapping[str, Any]
) -> tuple[Tensor, ...]:
    """A tensor's part for each of the layers that a file joins: rows of `up`, else the whole."""
    if len(owners) < 2 or side in ("down", "alpha"):
        return (tensor,) * len(owners)
    widths = [layers[owner].out_features for owner in owners]
    # What does not fit is said of the layers: each gets the whole.
    fits = sum(widths) == tensor.shape[0]
    return tuple(tensor.split(widths)) if fits else (tensor,) * len(owners)


def _misfits(name: str, layer: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps the tensors of a layer from being a LoRA of it."""
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return [f"{name} is a {type(layer).__name__}, which takes no LoRA"]
    if not {"down", "up"} <= tensors.keys():
        return [f"{name} has {', '.join(sorted(tensors))} and not both down and up"]
    weight, down, up = layer.weight, tensors["down"], tensors["up"]
    rank, kernel = down.shape[0], (1,) * (weight.ndim - 2)
    if (weight.shape[0], rank, *kernel) != up.shape or (rank, *weight.shape[1:]) != down.shape:
        return [f"{name}: {list(up.shape)} x {list(down.shape)} for {list(weight.shape)}"]
    bias = tensors.get("bias")
    if bias is not None and (layer.bias is None or bias.shape != layer.bias.shape):
        return [f"{name}: a bias of {list(bias.shape)} for a layer of another or none"]
    if tensors.get("alpha", torch.tensor(0.0)).numel() != 1:
        return [f"{name}: alpha is not one number"]
    return []


def _change(file: LoraFile, name: str, tensors: Mapping[str, Tensor]) -> Change:
    alpha = float(tensors["alpha"]) if "alpha" in tensors else None
    scaling = file.scaling(name, tensors["down"].shape[0], alpha)
    return Change(tensors["down"], tensors["up"], tensors.get("bias"), scaling)


def _refuse_what_others_drop(file: LoraFile) -> None:
    """Parts that diffusers leaves out with a warning, or that this student could not use."""
    keys = list(file.tensors)
    dora = [k for k in keys if "dora_scale" in k or "lora_magnitude_vector" in k]
    if dora:
        raise BenchError(f"{file.path}: a DoRA ({dora[0]!r}), which is more than a LoRA")
    text = [k for k in keys if k.startswith(("text_encoder", "lora_te"))]
    if text:
        raise BenchError(
            f"{file.path}: {len(text)} of {len(keys)} tensors change the text encoders, which all "
            f"students share: {text[0]!r}. Only a LoRA of the network alone can be compared"
        )
    # Of such a file diffusers drops the original names.
    if all(any(part in k for k in keys) for part in ("input_blocks", "down_blocks")):
        raise BenchError(f"{file.path}: mixes the original and diffusers' block names")
