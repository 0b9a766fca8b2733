"""Repositories of tiny size of the pipelines that published few-step students come as.

Every class is the one that the published repository names, with its published scheduler where that
was seen; widths are as small as the classes allow. The weights are random, from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_lumina2 import make_tokenizer as make_gemma_tokenizer
from tiny_sdxl import make_tokenizer as make_clip_tokenizer
from tiny_sdxl import make_vae, text_config

WIDTH = 32  # of each text encoder


def make_qwen_tokenizer() -> Any:
    """Qwen's byte-pair tokenizer, a byte a token, with a plain chat template."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode().values()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {piece: k for k, piece in enumerate([*letters, *special])}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], model_max_length=2048)
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}"
    return tokenizer


def sd3(*, shift: float = 3.0) -> Any:
    """Stable Diffusion 3 with its three text encoders; T5 reads CLIP's tokens here."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        T5Config,
        T5EncoderModel,
    )

    tokenizer = make_clip_tokenizer("<|endoftext|>")
    text = CLIPTextConfig(**text_config(tokenizer))
    t5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 37, "num_layers": 1, "num_heads": 4}
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8, in_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=WIDTH, caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH, out_channels=16, pos_embed_max_size=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=make_vae(
            16, scaling_factor=1.5305, shift_factor=0.0609,
            use_quant_conv=False, use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(text),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(T5Config(vocab_size=len(tokenizer), **t5)),
        tokenizer_3=tokenizer,
    )  # fmt: skip


def qwen_image() -> Any:
    """Qwen-Image, whose own scheduler shifts by the size and stretches its end."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = make_qwen_tokenizer()
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    text = {
        "hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 2, **heads,
        "rope_scaling": {"mrope_section": [2, 3, 3], "rope_type": "default", "type": "default"},
        "vocab_size": len(tokenizer),
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": WIDTH, "intermediate_size": 37, "num_heads": 2,
        "out_hidden_size": WIDTH,
    }  # fmt: skip
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id}
    config = Qwen2_5_VLConfig(text_config={**text, **ends}, vision_config=vision)
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
            num_attention_heads=3, joint_attention_dim=WIDTH, axes_dims_rope=(8, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=12, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1,
            temperal_downsample=[False, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
    )  # fmt: skip


def sana_sprint() -> Any:
    """SANA-Sprint: its network is told its guidance, its scheduler adds noise between two steps.

    Whatever size it is asked for, it draws one of about 1024 x 1024 pixels and makes that smaller.
    """
    from diffusers import (
        AutoencoderDC,
        SanaSprintPipeline,
        SanaTransformer2DModel,
        SCMScheduler,
    )
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = make_gemma_tokenizer()
    text = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return SanaSprintPipeline(
        transformer=SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2,
            attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8,
            cross_attention_dim=16, caption_channels=WIDTH, sample_size=32, guidance_embeds=True,
            qk_norm="rms_norm_across_heads",
        ),
        scheduler=SCMScheduler(),
        vae=AutoencoderDC(
            latent_channels=4, attention_head_dim=2, scaling_factor=0.41407,
            encoder_block_types="ResBlock", decoder_block_types="ResBlock",
            encoder_block_out_channels=(4,) * 6, decoder_block_out_channels=(4,) * 6,
            encoder_qkv_multiscales=((),) * 6, decoder_qkv_multiscales=((),) * 6,
            encoder_layers_per_block=(1,) * 6, decoder_layers_per_block=(1,) * 6,
            downsample_block_type="conv", upsample_block_type="interpolate",
            decoder_norm_types="rms_norm", decoder_act_fns="silu",
        ),
        text_encoder=Gemma2Model(text),
        tokenizer=tokenizer,
    )  # fmt: skip


def flux2_klein() -> Any:
    """FLUX.2-klein, distilled, so that it takes no guidance; three of Qwen3's layers are read."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_qwen_tokenizer()
    text = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=27,
        num_attention_heads=2, num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    return Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=3 * 16, axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4,
            norm_num_groups=4, sample_size=64,
        ),
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=tokenizer,
        is_distilled=True,
    )  # fmt: skip


MAKERS: dict[str, Callable[[], Any]] = {
    "sd3": sd3,
    "qwen_image": qwen_image,
    "sana_sprint": sana_sprint,
    "flux2_klein": flux2_klein,
}


def make_pipeline(name: str, seed: int = 0) -> Any:
    """One of `MAKERS` with random weights in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MAKERS[name]()


def write_repository(name: str, folder: Path, seed: int = 0) -> Path:
    """The repository as `from_pretrained` reads it."""
    make_pipeline(name, seed).save_pretrained(folder, safe_serialization=True)
    return folder
