"""SSCD's descriptor of an image, alike for copies alone (Pizzi et al. 2022, arXiv 2202.10261).

As facebookresearch/sscd-copy-detection publishes it: `sscd_disc_mixup`, which it recommends, on
torchvision's ResNet-50, with generalised means in the place of means over positions. The image is
resized to a square of 320 px, one of the two ways that its README names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50
from torchvision.transforms.functional import InterpolationMode, normalize, resize

from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.checkpoints import empty, load_strictly, read_tensors
from ddmd_bench.scorers.interface import ReadsNoPrompt, on_device
from ddmd_bench.scorers.pixels import levels
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

SIZE = 320  # px
POWER = 3.0
SMALLEST = 1e-6  # of an activation, as the authors have it
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_PREFIX = "backbone."


class GeneralisedMean(nn.Module):
    """(mean over positions of x^3)^(1/3): [B, C, H, W], not negative -> [B, C]."""

    def forward(self, x: Tensor) -> Tensor:
        """Between the mean and the largest."""
        return x.clamp(min=SMALLEST).pow(POWER).mean((2, 3)).pow(1 / POWER)


def load_network(path: Path, num_features: int) -> nn.Module:
    """The network of the authors' file."""

    def build() -> nn.Module:
        network: nn.Module = resnet50(num_classes=num_features)
        network.avgpool = GeneralisedMean()
        return network

    tensors = read_tensors(path)
    named = {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    network = empty(build)
    load_strictly(network, named, path)
    return network.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class SscdFeatures(ReadsNoPrompt):
    """The network on a device; float32 whatever the other scorers run in."""

    network: nn.Module
    device: str

    def preprocess(self, image: Image) -> Tensor:
        """Levels, uint8 [320, 320, 3]."""
        return levels(resize(image.convert("RGB"), [SIZE, SIZE], InterpolationMode.BILINEAR))

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Levels [B, 320, 320, 3] -> descriptors [B, d] of length 1; the prompts are not read."""
        with torch.inference_mode():
            x = on_device(inputs, self.device).permute(0, 3, 1, 2).float() / 255
            features = F.normalize(self.network(normalize(x, IMAGENET_MEAN, IMAGENET_STD)))
        return Scored({}, features)


def load(name: str, device: str, dtype: torch.dtype) -> SscdFeatures:
    """The scorer with its published weights; always in float32."""
    row = SCORERS[name]
    (path,) = require(row.weights[0]).values()
    assert row.num_features is not None
    return SscdFeatures(load_network(path, row.num_features).to(device), device)
