"""A CLIP with published weights: images and tokens to normalised features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

from ddmd_bench.scorers.checkpoints import empty, load_strictly, read_tensors
from ddmd_bench.scorers.interface import on_device

Config = Mapping[str, Any]


class Library(NamedTuple):
    """Whose code runs a CLIP, and so whose key names its weights have."""

    build: Callable[[Config], nn.Module]
    image: Callable[[Any, Tensor], Tensor]  # pixels [B, 3, 224, 224] -> [B, d]
    text: Callable[[Any, Tensor], Tensor]  # tokens [B, n <= 77] -> [B, d]
    surplus: frozenset[str] = frozenset()  # keys of older files that are no weights


def _open_clip_text(network: Any, tokens: Tensor) -> Tensor:
    """`CLIP.encode_text` for tokens [B, n <= 77]."""
    n = tokens.shape[1]
    x = network.token_embedding(tokens) + network.positional_embedding[:n]
    x = network.ln_final(network.transformer(x, attn_mask=network.attn_mask[:n, :n]))
    features: Tensor = x[torch.arange(len(x)), tokens.argmax(1)] @ network.text_projection
    return features


OPEN_CLIP = Library(
    lambda config: open_clip.CLIP(**config),
    lambda network, pixels: network.encode_image(pixels),
    _open_clip_text,
)
TRANSFORMERS = Library(
    lambda config: CLIPModel(CLIPConfig(**config)),
    lambda network, pixels: network.visual_projection(network.vision_model(pixels).pooler_output),
    lambda network, tokens: network.text_projection(network.text_model(tokens).pooler_output),
    # Written until transformers 4.31.
    frozenset({"text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}),
)


@dataclass(frozen=True)
class Architecture:
    """A network as data, and where a file of its weights holds them."""

    library: Library
    config: Config
    key: str | None = None  # of the pickled dict

    def empty(self) -> nn.Module:
        """The network without memory for its parameters."""
        return empty(lambda: self.library.build(self.config))


@dataclass(frozen=True)
class Network:
    """The two towers on a device, in a dtype; features come out in float32, with length 1."""

    library: Library
    model: nn.Module
    device: str
    dtype: torch.dtype
    logit_scale: float  # factor of the cosine in training

    def image(self, pixels: Tensor) -> Tensor:
        """[B, 3, 224, 224], normalised -> [B, d]."""
        pixels = on_device(pixels, self.device).to(self.dtype)
        return F.normalize(self.library.image(self.model, pixels).float(), dim=-1)

    def text(self, tokens: Tensor) -> Tensor:
        """[B, 77] -> [B, d].

        What follows a prompt's end, the largest token, is left out where no prompt reaches: no
        token looks at those behind it.
        """
        tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]
        return F.normalize(self.library.text(self.model, tokens.to(self.device)).float(), dim=-1)


def load_network(
    architecture: Architecture, path: Path, device: str, dtype: torch.dtype
) -> Network:
    """The network with a file's weights."""
    model = architecture.empty()
    tensors = read_tensors(path, architecture.key)
    load_strictly(model, tensors, path, architecture.library.surplus)
    # Before the cast: bfloat16 would move it by up to half a percent.
    logit_scale = tensors["logit_scale"].float().exp().item()
    return Network(architecture.library, model.to(device, dtype), device, dtype, logit_scale)
