"""Features of DINOv2's ViT-L/14 (Oquab et al. 2023), as FD-DINOv2 is defined on them.

Stein et al. 2023 (arXiv 2306.04675; code layer6ai-labs/dgm-eval, dgm_eval/models/dinov2.py): the
whole image resized to 224 px by Pillow's bicubic filter on 8-bit levels, ImageNet's normalisation,
the normalised class token. The network is timm's; positions, trained on a grid of 37 x 37, are made
those of 16 x 16 as facebookresearch/dinov2 does (vision_transformer.py), and timm does otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import InterpolationMode, normalize, resize

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.checkpoints import FETCH, empty, load_strictly, read_tensors
from ddmd_bench.scorers.interface import ReadsNoPrompt, on_device
from ddmd_bench.scorers.pixels import levels
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

SIZE = 224  # px
ARCHITECTURE = "vit_large_patch14_dinov2"
OFFSET = 0.1  # patches: what the authors add before they divide, so that nothing rounds down
SURPLUS = frozenset({"mask_token"})  # of the authors' own file, for training alone


def positions(trained: Tensor, side: int) -> Tensor:
    """Position embeddings [1, 1 + n * n, d] of a square grid for one of `side` patches a side.

    Bicubic, without antialiasing, by the ratio of the sides and not to the size: that is what the
    authors' network computes when it reads another resolution than it was trained on.
    """
    patches = trained[:, 1:]
    grid = round(patches.shape[1] ** 0.5)
    if grid == side:
        return trained
    as_image = patches.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    ratio = (side + OFFSET) / grid
    scaled = F.interpolate(as_image.float(), scale_factor=(ratio, ratio), mode="bicubic")
    return torch.cat([trained[:, :1], scaled.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def load_network(path: Path) -> nn.Module:
    """timm's network with a file's weights, for images of `SIZE`."""
    network: Any = empty(
        lambda: timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0, img_size=SIZE)
    )
    tensors = read_tensors(path)
    trained = tensors.get("pos_embed")
    if trained is None or trained.ndim != 3 or round((trained.shape[1] - 1) ** 0.5) < 1:
        raise BenchError(f"{path}: no pos_embed of [1, 1 + n * n, d], as DINOv2's has. {FETCH}")
    side = network.patch_embed.grid_size[0]
    load_strictly(network, {**tensors, "pos_embed": positions(trained, side)}, path, SURPLUS)
    return network  # type: ignore[no-any-return]


@dataclass(frozen=True)
class DinoFeatures(ReadsNoPrompt):
    """The network on a device; float32 whatever the other scorers run in."""

    network: nn.Module
    device: str

    def preprocess(self, image: Image) -> Tensor:
        """Levels, uint8 [224, 224, 3]."""
        return levels(resize(image.convert("RGB"), [SIZE, SIZE], InterpolationMode.BICUBIC))

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Levels [B, 224, 224, 3] -> features [B, d]; the prompts are not read."""
        with torch.inference_mode():
            x = on_device(inputs, self.device).permute(0, 3, 1, 2).float() / 255
            x = normalize(x, list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))
            features: Tensor = self.network(x)
        return Scored({}, features.float())


def load(name: str, device: str, dtype: torch.dtype) -> DinoFeatures:
    """The scorer with its published weights; always in float32."""
    (path,) = require(SCORERS[name].weights[0]).values()
    return DinoFeatures(load_network(path).to(device), device)
