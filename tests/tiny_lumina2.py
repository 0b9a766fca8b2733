"""A complete Lumina-Image-2.0 repository of tiny size, in the real on-disk format, from a seed.

Every class is the one that Lumina-Image-2.0 uses; widths are as small as the classes allow. The
weights are random, so that images are noise, but each part does what it does in the real model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_sdxl import RESOLUTION, make_vae

from ddmd_bench.backends.lumina2.backend import PUBLISHED

# Of Alpha-VLLM/Lumina-Image-2.0: a static shift, applied to the times of sampling.
SCHEDULER = {"num_train_timesteps": 1000, "shift": 6.0, "use_dynamic_shifting": False}
TRANSFORMER: dict[str, Any] = {
    **PUBLISHED,
    "sample_size": RESOLUTION // 8,
    "hidden_size": 32,
    "num_layers": 4,
    "num_refiner_layers": 1,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 16,
    "axes_dim_rope": (4, 2, 2),
    "cap_feat_dim": 16,
}


def make_tokenizer() -> Any:
    """Gemma's tokenizer, a letter a token; a text begins with <bos>."""
    from transformers import GemmaTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.!?'-<>"
    vocab = {piece: k for k, piece in enumerate([*special, *letters])}
    return GemmaTokenizerFast(vocab=vocab, merges=[], add_bos_token=True)


def make_pipeline(seed: int = 0) -> Any:
    """The pipeline with random weights in float32."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Lumina2Pipeline,
        Lumina2Transformer2DModel,
    )
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text_encoder = Gemma2Model(
            Gemma2Config(
                vocab_size=len(tokenizer),
                hidden_size=TRANSFORMER["cap_feat_dim"],
                intermediate_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                query_pre_attn_scalar=8,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        vae = make_vae(
            latent_channels=16,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        return Lumina2Pipeline(
            transformer=Lumina2Transformer2DModel(**TRANSFORMER),
            scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )


def write_repository(folder: Path, seed: int = 0) -> Path:
    """The repository as `from_pretrained` reads it."""
    make_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "GemmaTokenizerFast"]  # as it is published
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder
