"""Lumina-Image-2.0's encoders: prompts to embeddings, as diffusers' pipeline does; its VAE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.backends.repository import no_progress_bars
from ddmd_bench.objective.terms import Cond

MAX_TOKENS = 256  # max_sequence_length of diffusers' pipeline

Rows = list[dict[str, Tensor]]


def prompt_encoder(
    folder: Path, variant: str | None, dtype: torch.dtype, device: str
) -> Callable[[Sequence[str]], Rows]:
    """Prompts -> for each prompt_embeds [L, D] on the CPU, a row for each of its tokens.

    Gemma-2's last but one hidden state. A system prompt stands before every prompt, but not before
    '', which is encoded alone: the pipeline's negative prompt. Text beyond 256 tokens is cut off.
    """
    from diffusers import Lumina2Pipeline

    absent = dict.fromkeys(("transformer", "vae", "scheduler"))
    with no_progress_bars():
        pipeline = Lumina2Pipeline.from_pretrained(
            folder, variant=variant, dtype=dtype, **absent
        ).to(device)

    def rows(embeds: Tensor, mask: Tensor) -> Rows:
        return [{"prompt_embeds": e[m.bool()].cpu()} for e, m in zip(embeds, mask, strict=True)]

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Rows:
        options = {"device": torch.device(device), "max_sequence_length": MAX_TOKENS}
        encoded: dict[str, dict[str, Tensor]] = {}
        texts = [prompt for prompt in dict.fromkeys(prompts) if prompt]
        if texts:
            embeds, mask, _, _ = pipeline.encode_prompt(
                texts, do_classifier_free_guidance=False, **options
            )
            encoded |= zip(texts, rows(embeds, mask), strict=True)
        if "" in prompts:
            _, _, embeds, mask = pipeline.encode_prompt([""], negative_prompt=[""], **options)
            (encoded[""],) = rows(embeds, mask)
        return [encoded[prompt] for prompt in prompts]

    return encode


def collate(rows: Sequence[Mapping[str, Tensor]]) -> Cond:
    """prompt_embeds [B, 256, D], zero after each prompt's tokens; prompt_attention_mask [B, 256].

    What stands after the tokens reaches no image: the transformer never attends to it.
    """
    embeds = [row["prompt_embeds"] for row in rows]
    lengths = torch.tensor([len(e) for e in embeds])
    return {
        "prompt_embeds": torch.stack([F.pad(e, (0, 0, 0, MAX_TOKENS - len(e))) for e in embeds]),
        "prompt_attention_mask": torch.arange(MAX_TOKENS) < lengths[:, None],
    }


@cache
def load_vae(folder: Path, variant: str | None, dtype: torch.dtype, device: str) -> Any:
    """The VAE, once for a process and device."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, variant=variant, dtype=dtype)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, 16, h, w] -> images [B, 3, 8h, 8w], float32, not clipped."""
    scaled = latents / vae.config.scaling_factor + vae.config.shift_factor
    images: Tensor = vae.decode(scaled.to(vae.dtype), return_dict=False)[0].float()
    return images


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] -> latents [B, 16, H/8, W/8]: the posterior's mode."""
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    latents: Tensor = (
        posterior.mode().float() - vae.config.shift_factor
    ) * vae.config.scaling_factor
    return latents
