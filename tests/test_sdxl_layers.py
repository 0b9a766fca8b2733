"""What can be said of the real SDXL without its weights: on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file

from ddmd_bench.backends.loras import read_lora
from ddmd_bench.backends.stable_diffusion.formats import UNET
from ddmd_bench.backends.stable_diffusion.original_names import original_names
from tests import tiny_sdxl
from tests.tiny_students import TARGETS, kohya, make_pairs, target_layers

# Stability's SDXL: unet/config.json of stabilityai/stable-diffusion-xl-base-1.0.
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "transformer_layers_per_block": (1, 2, 10),
    "projection_class_embeddings_input_dim": 2816,
    "cross_attention_dim": 2048,
}
# dmd2_sdxl_4step_lora_fp16.safetensors, as stored in a copy on the Hub.
DMD2_LORA_BYTES = 393_854_592


@pytest.fixture(scope="module")
def unet() -> Any:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**SDXL_UNET)


def test_the_unet_has_the_published_number_of_parameters(unet: Any) -> None:
    numbers = sum(p.numel() for p in unet.parameters())
    assert numbers == 2_567_463_684
    assert round(2 * numbers / 1e9, 2) == 5.13  # the fp16 files are listed with 5.14 GB
    assert SDXL_UNET.keys() <= tiny_sdxl.UNET.keys()  # the tiny one is of the same make


def test_dmd2s_lora_has_rank_64_and_an_alpha_for_each_of_788_layers(unet: Any) -> None:
    """What its training script names fills the published file but for the header."""
    layers = target_layers(unet, TARGETS)
    assert len(layers) == 788
    weights = [layer.weight for layer in layers.values()]
    numbers = sum(64 * (w[0].numel() + w.shape[0]) for w in weights)
    header = DMD2_LORA_BYTES - 2 * (numbers + len(layers))
    assert 130 < header / (3 * len(layers)) < 170  # bytes of JSON that describe a tensor


@pytest.mark.parametrize("original", [False, True])
def test_kohya_names_of_all_layers_are_found(unet: Any, tmp_path: Path, original: bool) -> None:
    """Those of diffusers, and those of Stability's own code, by which its trainer knows SDXL."""
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin

    layers = target_layers(unet, TARGETS)
    names = {name: name for name in layers}
    if original:
        names |= {layer: name for name, (layer,) in original_names(unet).items()}
    file = tmp_path / "rank1.safetensors"
    save_file(kohya(make_pairs(unet, rank=1), names.__getitem__), file)
    assert read_lora(unet, UNET, file).keys() == layers.keys()
    state, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
        str(tmp_path), weight_name=file.name, unet_config=unet.config, local_files_only=True
    )
    assert len(alphas) == 788
    found = convert_unet_state_dict_to_peft(state)
    for name, change in read_lora(unet, UNET, file).items():
        assert torch.equal(change.down, found[f"unet.{name}.lora_A.weight"])
