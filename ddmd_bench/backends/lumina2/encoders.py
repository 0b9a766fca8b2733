"""Lumina-Image-2.0's text encoder: prompts to embeddings, as diffusers' pipeline does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.backends.pipelines import PromptEncoder, Rows, load_text_part
from ddmd_bench.backends.repository import Parts
from ddmd_bench.objective.terms import Cond

MAX_TOKENS = 256  # max_sequence_length of diffusers' pipeline


def prompt_encoder(parts: Parts, device: str) -> PromptEncoder:
    """Prompts -> for each prompt_embeds [L, D] on the CPU, a row for each of its tokens.

    Gemma-2's last but one hidden state. A system prompt stands before every prompt, but not before
    '', which is encoded alone: the pipeline's negative prompt. Text beyond 256 tokens is cut off.
    """
    pipeline = load_text_part(parts, "Lumina2Pipeline", device)

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
