"""A complete SDXL repository of tiny size, in the real on-disk format, from a seed.

Every class is the one that SDXL uses; widths are as small as the classes allow. The weights are
random, so that images are noise, but each part does what it does in the real model.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

RESOLUTION = 64  # pixels; the latents are 8 x 8
# The scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0.
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
UNET = {
    "sample_size": RESOLUTION // 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 1),
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
    "cross_attention_dim": 64,
    "norm_num_groups": 8,
}


def make_tokenizer(pad_token: str) -> Any:
    """CLIP's byte-pair tokenizer, a letter a token."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!?'-"
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    ids = {piece: k for k, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text(json.dumps(ids))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(
            str(vocab), str(merges), pad_token=pad_token, model_max_length=77,
            bos_token="<|startoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>",
        )  # fmt: skip


def text_config(tokenizer: Any) -> dict[str, Any]:
    """What both text encoders have in common."""
    return {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": 32,
    }


def make_vae(latent_channels: int = 4, **options: Any) -> Any:
    """An eightfold VAE."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=RESOLUTION,
        **options,
    )


def make_pipeline(seed: int = 0) -> Any:
    """The pipeline with random weights in float32."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer, tokenizer_2 = make_tokenizer("<|endoftext|>"), make_tokenizer("!</w>")
    text = text_config(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vae = make_vae(scaling_factor=0.13025)
        return StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
            text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text, hidden_act="gelu")),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=UNet2DConditionModel(**UNET),
            scheduler=EulerDiscreteScheduler(**SCHEDULER),
        )


def write_repository(folder: Path, seed: int = 0) -> Path:
    """The repository as `from_pretrained` reads it."""
    make_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
