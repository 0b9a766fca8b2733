"""Statistics of the pixels themselves: what drifts when guidance is the only engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.interface import ReadsNoPrompt
from ddmd_bench.scorers.pixels import levels, signed

if TYPE_CHECKING:
    from PIL.Image import Image

# Divided by 8, so that a checkerboard of -1 and 1, the finest pattern there is, has response 1.
_LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]) / 8


def mean(images: Tensor) -> Tensor:
    """Mean over channels and pixels: [B, C, H, W] in [-1, 1] -> float64 [B]."""
    return images.double().mean((1, 2, 3))


def std(images: Tensor) -> Tensor:
    """Standard deviation over channels and pixels: [B, C, H, W] in [-1, 1] -> float64 [B]."""
    return images.double().std((1, 2, 3), correction=0)


def high_frequency(images: Tensor) -> Tensor:
    """Mean squared 4-neighbour Laplacian: [B, C, H, W] in [-1, 1] -> float64 [B] in [0, 1].

    Per channel, over interior pixels (no padding), kernel / 8: 0 for a constant image or a linear
    ramp, 1 for a checkerboard of -1 and 1.
    """
    channels = images.double().flatten(0, 1)[:, None]
    response = F.conv2d(channels, _LAPLACIAN.to(channels)[None, None])
    return response.square().mean((1, 2, 3)).reshape(images.shape[:2]).mean(1)


def diversity(images: Tensor) -> float:
    """Mean over pairs of the root mean square difference: images [k, C, H, W] of one prompt.

    NaN for one image: it has no pair.
    """
    if len(images) < 2:
        return float("nan")
    flat = images.double().flatten(1)
    return float(F.pdist(flat).mean() / flat.shape[1] ** 0.5)


class ImageStatistics(ReadsNoPrompt):
    """mean, std and high_frequency of each image, diversity of each prompt's."""

    def preprocess(self, image: Image) -> Tensor:
        return levels(image)

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        images = signed(inputs)
        columns = {
            "mean": mean(images),
            "std": std(images),
            "high_frequency": high_frequency(images),
        }
        return Scored(columns, None)

    def score_prompt(self, inputs: Tensor) -> dict[str, float]:
        return {"diversity": diversity(signed(inputs))}


def load(name: str, device: str, dtype: torch.dtype) -> ImageStatistics:
    """Nothing to load; float64 on the CPU whatever is asked for."""
    return ImageStatistics()
