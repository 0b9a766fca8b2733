"""Stable Diffusion's text encoders: prompts to embeddings, as diffusers' pipelines do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ddmd_bench.backends.pipelines import PromptEncoder, Rows, load_text_part
from ddmd_bench.backends.repository import Parts
from ddmd_bench.objective.terms import Cond


def sdxl_prompt_encoder(parts: Parts, device: str) -> PromptEncoder:
    """Prompts -> for each prompt_embeds [77, 2048] and text_embeds [1280].

    The unconditional branch of SDXL's teacher is zero embeddings, not an encoded '' (DMD2), unless
    a repository's model_index.json says otherwise: `force_zeros_for_empty_prompt`.
    """
    pipeline = load_text_part(parts, "StableDiffusionXLPipeline", device)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Rows:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), device=torch.device(device), do_classifier_free_guidance=False
        )
        if pipeline.config.force_zeros_for_empty_prompt:
            given = torch.tensor([prompt != "" for prompt in prompts], device=embeds.device)
            embeds, pooled = embeds * given[:, None, None], pooled * given[:, None]
        pairs = zip(embeds.cpu(), pooled.cpu(), strict=True)
        return [{"prompt_embeds": e, "text_embeds": p} for e, p in pairs]

    return encode


def sd15_prompt_encoder(parts: Parts, device: str) -> PromptEncoder:
    """Prompts -> for each prompt_embeds [77, 768]; '' is encoded like any other."""
    pipeline = load_text_part(parts, "StableDiffusionPipeline", device)

    @torch.no_grad()
    def encode(prompts: Sequence[str]) -> Rows:
        embeds, _ = pipeline.encode_prompt(list(prompts), torch.device(device), 1, False)
        return [{"prompt_embeds": e} for e in embeds.cpu()]

    return encode


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
