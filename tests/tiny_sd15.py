"""A complete Stable Diffusion 1.5 repository of tiny size, in the real format, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_sdxl import RESOLUTION, UNET, make_tokenizer, make_vae, text_config

# scheduler_config.json of stable-diffusion-v1-5.
SCHEDULER = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
TEXT_TIME = ("addition_embed_type", "addition_time_embed_dim", "transformer_layers_per_block")


def make_pipeline(seed: int = 0) -> Any:
    """The pipeline with random weights in float32, without a safety checker."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = make_tokenizer("<|endoftext|>")
    left_out = (*TEXT_TIME, "projection_class_embeddings_input_dim", "use_linear_projection")
    unet = {key: value for key, value in UNET.items() if key not in left_out}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return StableDiffusionPipeline(
            vae=make_vae(scaling_factor=0.18215),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text_config(tokenizer))),
            tokenizer=tokenizer,
            unet=UNet2DConditionModel(
                **{**unet, "cross_attention_dim": 32, "sample_size": RESOLUTION // 8}
            ),
            scheduler=PNDMScheduler(**SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def write_repository(folder: Path, seed: int = 0) -> Path:
    """The repository as `from_pretrained` reads it."""
    make_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
