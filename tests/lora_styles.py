"""LoRAs of tiny networks in every style that diffusers, peft and kohya's trainer write.

Each style has its writer, and the way in which diffusers or peft itself reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import torch
from safetensors.torch import save_file
from tiny_students import ALPHA, ATTENTION, RANK, Pairs, kohya, processor
from torch import Tensor

from ddmd_bench.backends.lumina2.backend import TRANSFORMER
from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.backends.stable_diffusion.formats import UNET
from ddmd_bench.backends.stable_diffusion.original_names import original_names

UNET_LAYERS = {
    "attention": ATTENTION,
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "projection": ("proj_in", "proj_out"),
    "convolution": (
        "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv",
        "conv_in", "conv_out",
    ),
    "time": ("time_emb_proj", "time_embedding.linear_1", "time_embedding.linear_2"),
}  # fmt: skip
TRANSFORMER_LAYERS = {
    "attention": ATTENTION,
    "feed_forward": ("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3"),
    "modulation": ("norm1.linear", "norm_out.linear_1", "norm_out.linear_2"),
    "embedding": ("x_embedder", "timestep_embedder.linear_1", "caption_embedder.1"),
}


@dataclass(frozen=True)
class Tiny:
    """A family at tiny size."""

    kind: NetworkClass
    make_pipeline: Callable[[], Any]
    layers: dict[str, tuple[str, ...]]

    def network(self, pipeline: Any) -> Any:
        return getattr(pipeline, self.kind.component)


FAMILIES = {
    "sdxl": Tiny(UNET, tiny_sdxl.make_pipeline, UNET_LAYERS),
    "sd15": Tiny(UNET, tiny_sd15.make_pipeline, UNET_LAYERS),
    "lumina2": Tiny(TRANSFORMER, tiny_lumina2.make_pipeline, TRANSFORMER_LAYERS),
}


def output(network: Any) -> Tensor:
    """A prediction for inputs that are always the same."""
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    with torch.no_grad():
        if type(network).__name__ == TRANSFORMER.name:
            mask = torch.ones(2, 7, dtype=torch.bool)
            words = draw(2, 7, network.config.cap_feat_dim)
            found = network(draw(2, 16, 8, 8), torch.tensor([0.3, 0.6]), words, mask)[0]
        else:
            ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 2)
            added = {"text_embeds": draw(2, 32), "time_ids": ids}
            words = draw(2, 7, network.config.cross_attention_dim)
            found = network(draw(2, 4, 8, 8), 499, words, added_cond_kwargs=added)[0]
    result: Tensor = found
    return result


def weights_apart(found: Any, expected: Any) -> float:
    """The largest relative difference of a tensor between two networks that fused LoRAs.

    Outputs would hide a layer of many, and round as the CPU sums. peft may have wrapped the second.
    """
    plain = {
        name.replace(".base_layer", ""): value
        for name, value in expected.state_dict().items()
        if ".lora_" not in name
    }
    own = found.state_dict()
    assert own.keys() == plain.keys()
    return max(float((own[k] - v).norm() / v.norm().clamp(min=1e-12)) for k, v in plain.items())


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def pairs_of(network: Any, targets: tuple[str, ...], seed: int = 7, rank: int = RANK) -> Pairs:
    """A LoRA of the layers whose name is, or ends in, a target; it changes outputs visibly."""
    generator = torch.Generator().manual_seed(seed)
    ends, pairs = tuple(f".{target}" for target in targets), {}
    for name, layer in network.named_modules():
        if name in targets or name.endswith(ends):
            out, width, *kernel = layer.weight.shape
            down = torch.randn(rank, width, *kernel, generator=generator) * 0.1
            up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator) * 0.1
            pairs[name] = (down, up)
    return pairs


def dotted(pairs: Pairs, prefix: str, down: str, up: str) -> dict[str, Tensor]:
    state = {f"{prefix}{name}.{down}.weight": pair[0] for name, pair in pairs.items()}
    return state | {f"{prefix}{name}.{up}.weight": pair[1] for name, pair in pairs.items()}


def peft_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    return dotted(pairs, f"{component}.", "lora_A", "lora_B")


def new_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    return dotted(pairs, f"{component}.", "lora.down", "lora.up")


def old_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    """Attention by its processors, as diffusers' first trainers wrote it, all else as new."""
    ends = tuple(f".{target}" for target in ATTENTION)
    attention = {name: pair for name, pair in pairs.items() if name.endswith(ends)}
    state = {
        key.replace("unet.", f"{component}."): value for key, value in processor(attention).items()
    }
    rest = {name: pair for name, pair in pairs.items() if name not in attention}
    return state | new_keys(network, component, rest)


def mixed_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    """Half of the layers each, older keys first: diffusers converts as the first key tells it."""
    names = list(pairs)
    halves = ({n: pairs[n] for n in names[k::2]} for k in range(2))
    return old_keys(network, component, next(halves)) | peft_keys(network, component, next(halves))


def kohya_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    return kohya(pairs)


def original_keys(network: Any, component: str, pairs: Pairs) -> dict[str, Tensor]:
    names = {layer: name for name, (layer,) in original_names(network).items()}
    return kohya(pairs, lambda name: names[name])


def config_of(pairs: Pairs, **options: Any) -> Any:
    """peft's settings of a LoRA; alpha is not the rank."""
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(pairs), **options)


def adapted(network: Any, pairs: Pairs, config: Any) -> Any:
    """A copy of the network with an adapter whose tensors are the pairs."""
    network = copy.deepcopy(network)
    network.add_adapter(config)
    layers = dict(network.named_modules())
    with torch.no_grad():
        for name, (down, up) in pairs.items():
            layers[name].lora_A["default"].weight.copy_(down)
            layers[name].lora_B["default"].weight.copy_(up)
    return network


def write_saved(pipeline: Any, tiny: Tiny, pairs: Pairs, folder: Path) -> None:
    """`save_lora_weights` of a pipeline, with alpha in the file's metadata."""
    component = tiny.kind.component
    layers = dotted(pairs, "", "lora_A", "lora_B")
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": list(pairs)}
    options: dict[str, Any] = {
        f"{component}_lora_layers": layers,
        f"{component}_lora_adapter_metadata": settings,
    }
    pipeline.save_lora_weights(folder, **options)


def write_adapter(pipeline: Any, tiny: Tiny, pairs: Pairs, folder: Path) -> None:
    """`save_lora_adapter` of a network: no prefix, its settings in the metadata."""
    adapted(tiny.network(pipeline), pairs, config_of(pairs)).save_lora_adapter(folder)


def write_peft(pipeline: Any, tiny: Tiny, pairs: Pairs, folder: Path, **options: Any) -> None:
    """peft's own `save_pretrained`, with a rank and an alpha that differ from layer to layer."""
    from peft import get_peft_model

    model = get_peft_model(copy.deepcopy(tiny.network(pipeline)), config_of(pairs, **options))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_" in name:
                layer, _, side = name.removeprefix("base_model.model.").partition(".lora_")
                value.copy_(pairs[layer]["AB".index(side[0])][: len(value), : value.shape[1]])
    model.save_pretrained(folder)


def by_pipeline(pipeline: Any, tiny: Tiny, folder: Path, scale: float) -> Any:
    """As a user loads it with diffusers."""
    (file,) = folder.glob("*.safetensors")
    pipeline.load_lora_weights(str(folder), weight_name=file.name, adapter_name="lora")
    pipeline.fuse_lora(lora_scale=scale)
    return tiny.network(pipeline)


def by_network(pipeline: Any, tiny: Tiny, folder: Path, scale: float) -> Any:
    network = tiny.network(pipeline)
    (file,) = folder.glob("*.safetensors")
    network.load_lora_adapter(str(folder), prefix=None, weight_name=file.name, adapter_name="lora")
    network.fuse_lora(lora_scale=scale)
    return network


def by_peft(pipeline: Any, tiny: Tiny, folder: Path, scale: float) -> Any:
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = PeftModel.from_pretrained(tiny.network(pipeline), str(folder))
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.scale_layer(scale)
    return model.merge_and_unload()


Keys = Callable[[Any, str, Pairs], dict[str, Tensor]]


def written(keys: Keys) -> Callable[[Any, Tiny, Pairs, Path], None]:
    def write(pipeline: Any, tiny: Tiny, pairs: Pairs, folder: Path) -> None:
        state = keys(tiny.network(pipeline), tiny.kind.component, pairs)
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "lora.safetensors")

    return write


@dataclass(frozen=True)
class Style:
    write: Callable[[Any, Tiny, Pairs, Path], None]
    read: Callable[[Any, Tiny, Path, float], Any]
    families: tuple[str, ...] = tuple(FAMILIES)


STYLES = {
    "peft_keys": Style(written(peft_keys), by_pipeline),
    "new_keys": Style(written(new_keys), by_pipeline),
    "old_keys": Style(written(old_keys), by_pipeline),
    "kohya": Style(written(kohya_keys), by_pipeline, ("sdxl", "sd15")),
    "original": Style(written(original_keys), by_pipeline, ("sdxl",)),
    "save_lora_weights": Style(write_saved, by_pipeline),
    "save_lora_adapter": Style(write_adapter, by_network),
    "save_pretrained": Style(write_peft, by_peft),
}
