"""Stable Diffusion's encoders: prompts to embeddings as the pipelines do, images to latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.repository import absent_from, no_progress_bars
from ddmd_bench.objective.terms import Cond

Rows = list[dict[str, Tensor]]


def sdxl_prompt_encoder(
    folder: Path, variant: str | None, dtype: torch.dtype, device: str
) -> Callable[[Sequence[str]], Rows]:
    """Prompts -> for each prompt_embeds [77, 2048] and text_embeds [1280]; zeros for ''.

    The unconditional branch of SDXL's teacher is zero embeddings, not an encoded '' (DMD2).
    """
    from diffusers import StableDiffusionXLPipeline

    pipeline = _text_part(StableDiffusionXLPipeline, folder, variant, dtype, device)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Rows:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=torch.device(device), do_classifier_free_guidance=False
        )
        given = torch.tensor([prompt != "" for prompt in prompts], device=embeds.device)
        embeds, pooled = embeds * given[:, None, None], pooled * given[:, None]
        pairs = zip(embeds.cpu(), pooled.cpu(), strict=True)
        return [{"prompt_embeds": e, "text_embeds": p} for e, p in pairs]

    return encode


def sd15_prompt_encoder(
    folder: Path, variant: str | None, dtype: torch.dtype, device: str
) -> Callable[[Sequence[str]], Rows]:
    """Prompts -> for each prompt_embeds [77, 768]; '' is encoded like any other."""
    from diffusers import StableDiffusionPipeline

    pipeline = _text_part(StableDiffusionPipeline, folder, variant, dtype, device)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Rows:
        embeds, _ = pipeline.encode_prompt(list(prompts), torch.device(device), 1, False)
        return [{"prompt_embeds": e} for e in embeds.cpu()]

    return encode


def _text_part(
    pipeline: Any, folder: Path, variant: str | None, dtype: torch.dtype, device: str
) -> Any:
    """A pipeline of the text encoders and tokenizers alone."""
    absent = absent_from(pipeline, "unet", "vae", "scheduler")
    with no_progress_bars():
        loaded = pipeline.from_pretrained(folder, variant=variant, dtype=dtype, **absent)
    return loaded.to(device)


def collate_with_size(resolution: int) -> Callable[[Sequence[Mapping[str, Tensor]]], Cond]:
    """SDXL's conditioning: the embeddings, and the size that images were and are to be."""
    # Original size, crop from the top left, target size, as the pipeline's defaults.
    size = torch.tensor([resolution, resolution, 0, 0, resolution, resolution]).float()

    def collated(rows: Sequence[Mapping[str, Tensor]]) -> Cond:
        return {**collate(rows), "time_ids": size.repeat(len(rows), 1)}

    return collated


def collate(rows: Sequence[Mapping[str, Tensor]]) -> Cond:
    """Stacked tensors of the rows."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@cache
def load_vae(folder: Path, variant: str | None, dtype: torch.dtype, device: str) -> Any:
    """The VAE, once for a process and device."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, variant=variant, dtype=dtype)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents [B, 4, h, w] -> images [B, 3, 8h, 8w], float32, not clipped."""
    scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    images: Tensor = vae.decode(scaled, return_dict=False)[0].float()
    return images


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] -> latents [B, 4, H/8, W/8]: the posterior's mode."""
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    latents: Tensor = posterior.mode().float() * vae.config.scaling_factor
    return latents
