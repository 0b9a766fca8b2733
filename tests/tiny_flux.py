"""A complete FLUX.1 dev repository of tiny size, on diffusers' real classes, from a seed.

Its network is told its guidance, and its call has a guidance of its own beside that; schnell's is
told none. T5 reads CLIP's tokens here, which changes nothing that a pipeline does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_sdxl import make_tokenizer, make_vae, text_config


def write_repository(folder: Path, seed: int = 0, *, told_guidance: bool = True) -> Path:
    """The repository as `from_pretrained` reads it."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    tokenizer = make_tokenizer("<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            vae=make_vae(
                scaling_factor=0.3611, shift_factor=0.1159,
                use_quant_conv=False, use_post_quant_conv=False,
            ),
            text_encoder=CLIPTextModel(CLIPTextConfig(**text_config(tokenizer))),
            tokenizer=tokenizer,
            text_encoder_2=T5EncoderModel(
                T5Config(
                    vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=37, num_layers=1,
                    num_heads=4,
                )
            ),
            tokenizer_2=tokenizer,
            transformer=FluxTransformer2DModel(
                in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
                axes_dims_rope=(4, 6, 6), guidance_embeds=told_guidance,
            ),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
