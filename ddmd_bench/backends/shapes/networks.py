"""The embedded world's networks: word encoder, conditional UNet, attribute network.

All three are small enough for a CPU and real: the UNet is diffusers' `UNet2DConditionModel`, the
class that SDXL uses, at about a million parameters.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddmd_bench.backends.shapes.scenes import ATTRIBUTES, IMAGE_SIZE, TEMPLATE
from ddmd_bench.errors import BenchError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

PATCH = 2  # pixels per side that one latent position holds
LATENT_SHAPE = (3 * PATCH**2, IMAGE_SIZE // PATCH, IMAGE_SIZE // PATCH)
EMBED_DIM = 64


def to_latents(images: Tensor) -> Tensor:
    """Images [B, 3, 32, 32] in [-1, 1] -> latents [B, 12, 16, 16]; exact and orthogonal."""
    return F.pixel_unshuffle(images, PATCH)


def to_images(latents: Tensor) -> Tensor:
    """The inverse of `to_latents`; values outside [-1, 1] are kept."""
    return F.pixel_shuffle(latents, PATCH)


def _vocabulary() -> tuple[str, ...]:
    values = " ".join(" ".join(v) for k, v in ATTRIBUTES.items())
    glue = " ".join(word for word in TEMPLATE.split() if "{" not in word)
    return tuple(sorted(set(f"{values} {glue}".split())))


VOCABULARY = _vocabulary()
MAX_WORDS = len(TEMPLATE.split()) + max(len(p.split()) for p in ATTRIBUTES["place"]) - 1
_WORD_IDS = {word: k + 1 for k, word in enumerate(VOCABULARY)}  # 0 is "no word"


def tokenize(prompt: str) -> list[int]:
    """Word ids of a prompt, padded with 0 to `MAX_WORDS`; '' is the unconditional prompt."""
    words = prompt.split()
    unknown = [word for word in words if word not in _WORD_IDS]
    if unknown:
        raise BenchError(
            f"prompt {prompt!r}: the shapes world does not know {unknown[0]!r}. "
            f"It reads prompts like {TEMPLATE!r} with the words: {', '.join(VOCABULARY)}"
        )
    if len(words) > MAX_WORDS:
        raise BenchError(f"prompt {prompt!r}: {len(words)} words, at most {MAX_WORDS} are read")
    return [_WORD_IDS[word] for word in words] + [0] * (MAX_WORDS - len(words))


class WordEncoder(nn.Module):
    """Words to embeddings: the embedded world's text encoder, trained with the teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY) + 1, EMBED_DIM)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, EMBED_DIM) * 0.3)

    def forward(self, word_ids: Tensor) -> Tensor:
        """int64 [B, L] -> prompt_embeds [B, L, 64]."""
        embeds: Tensor = self.words(word_ids) + self.positions
        return embeds


def make_unet() -> UNet2DConditionModel:
    """The denoiser: predicts velocity `eps - x0` of latents [B, 12, 16, 16]; 1.03 M parameters.

    As in SDXL a pooled reading of the prompt joins the time embedding, beside cross-attention.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=EMBED_DIM,
        attention_head_dim=4,
        norm_num_groups=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


class AttributeNetwork(nn.Module):
    """Reads the five attributes back from an image; its penultimate layer gives 128 features."""

    NUM_FEATURES = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for k, (wide_in, wide_out) in enumerate(pairwise(widths)):
            stride = 1 if k == 0 else 2
            layers += [
                nn.Conv2d(wide_in, wide_out, 3, stride, padding=1),
                nn.GroupNorm(8, wide_out),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.to_features = nn.Linear(128 * (IMAGE_SIZE // 8) ** 2, self.NUM_FEATURES)
        self.heads = nn.ModuleDict(
            {k: nn.Linear(self.NUM_FEATURES, len(v)) for k, v in ATTRIBUTES.items()}
        )

    def features(self, images: Tensor) -> Tensor:
        """Images [B, 3, 32, 32] in [-1, 1] -> features [B, 128]."""
        features: Tensor = self.to_features(self.trunk(images))
        return features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits per attribute, [B, number of its values] each."""
        return self.logits(self.features(images))

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """Logits per attribute from `features`."""
        return {name: head(F.silu(features)) for name, head in self.heads.items()}

    def predicted_labels(self, features: Tensor) -> Tensor:
        """Most likely labels, int64 [B, 5], columns as `ATTRIBUTES`."""
        return torch.stack([head.argmax(1) for head in self.logits(features).values()], 1)
