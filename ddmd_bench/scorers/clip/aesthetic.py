"""The LAION aesthetic predictor: a rating of 1 to 10 from an image alone.

C. Schuhmann's improved-aesthetic-predictor (github.com/christophschuhmann, licence as stated
there): linear layers without activations between them, on the normalised image feature of OpenAI's
ViT-L-14, trained on the ratings of SAC, LAION-Logos and AVA with the mean squared error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.checkpoints import empty, load_strictly, read_tensors
from ddmd_bench.scorers.clip.network import Network, load_network
from ddmd_bench.scorers.clip.scorer import READINGS
from ddmd_bench.scorers.clip.transforms import openai
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTHS = (768, 1024, 128, 64, 16, 1)


class Head(nn.Module):
    """[B, 768] of length 1 -> [B, 1]; key names as published, where dropout lies between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        # 1, 3 and 5 were dropout, which does nothing here.
        for place, n_in, n_out in zip((0, 2, 4, 6, 7), WIDTHS[:-1], WIDTHS[1:], strict=True):
            self.layers.add_module(str(place), nn.Linear(n_in, n_out))

    def forward(self, features: Tensor) -> Tensor:
        rating: Tensor = self.layers(features)
        return rating


@dataclass(frozen=True)
class AestheticScorer:
    """The image tower and the head, the latter in float32."""

    network: Network
    head: nn.Module

    def preprocess(self, image: Image) -> Tensor:
        """[3, 224, 224]."""
        return openai(image)

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Nothing is read of a prompt."""
        return [{} for _ in prompts]

    @torch.inference_mode()
    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Images [B, 3, 224, 224] -> ratings [B]."""
        return Scored({"aesthetic": self.head(self.network.image(inputs))[:, 0]}, None)


def load(name: str, device: str, dtype: torch.dtype) -> AestheticScorer:
    """The scorer with its published weights."""
    (clip_path,), (head_path,) = (require(weights).values() for weights in SCORERS[name].weights)
    head = empty(Head)
    load_strictly(head, read_tensors(head_path), head_path)
    architecture = READINGS["clip_score_vit_l_14"].architecture
    network = load_network(architecture, clip_path, device, dtype)
    return AestheticScorer(network, head.to(device, torch.float32))
