"""Image features of OpenAI's CLIP ViT-L-14 at 336 px, as CMMD is defined on them.

Jayasumana et al. 2024 (arXiv 2401.09603; code google-research/cmmd): the centre square, resized to
336 px by Pillow's bicubic filter on 8-bit levels, OpenAI's normalisation; features of length 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize

from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.clip.network import OPEN_CLIP, Architecture, Network, load_network
from ddmd_bench.scorers.interface import on_device
from ddmd_bench.scorers.pixels import CLIP_MEAN, CLIP_STD, levels
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

SIZE = 336  # px
# OpenAI's networks have its quicker GELU, which open_clip's name of this one does not say.
ARCHITECTURE = Architecture(
    OPEN_CLIP, {**open_clip.get_model_config("ViT-L-14-336"), "quick_gelu": True}
)


@dataclass(frozen=True)
class ClipFeatures:
    """The image tower; float32 whatever the other scorers run in."""

    network: Network

    def preprocess(self, image: PilImage) -> Tensor:
        """Levels, uint8 [336, 336, 3], of the centre square, an odd rest cut below or right."""
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        return levels(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Nothing: the features are the image's alone."""
        return [{} for _ in prompts]

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Levels [B, 336, 336, 3] -> features [B, 768] of length 1; the prompts are not read."""
        with torch.inference_mode():
            x = on_device(inputs, self.network.device).permute(0, 3, 1, 2).float() / 255
            return Scored({}, self.network.image(normalize(x, list(CLIP_MEAN), list(CLIP_STD))))


def load(name: str, device: str, dtype: torch.dtype) -> ClipFeatures:
    """The scorer with its published weights; always in float32."""
    (path,) = require(SCORERS[name].weights[0]).values()
    return ClipFeatures(load_network(ARCHITECTURE, path, device, torch.float32))
