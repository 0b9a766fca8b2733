"""How alike the images of one prompt are, pair by pair, by torchmetrics: LPIPS and MS-SSIM.

- LPIPS: Zhang et al. 2018, arXiv 1801.03924: AlexNet of torchvision's published file, the linear
  layers of version 0.1 that torchmetrics carries. 0 for an image and itself.
- MS-SSIM: Wang et al. 2003, five scales, torchmetrics' defaults. 1 for an image and itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS, _normalize_tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.checkpoints import read_tensors, refuse_misfit, shapes_of
from ddmd_bench.scorers.interface import ReadsNoPrompt, on_device
from ddmd_bench.scorers.pixels import levels, signed
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

IMAGES_AT_ONCE, PAIRS_AT_ONCE = 4, 4
FEWEST_PIXELS = SCORERS["ms_ssim"].fewest_pixels


class OfPairs(ReadsNoPrompt, ABC):
    """A scorer that says nothing of an image by itself."""

    def __init__(self, device: str) -> None:
        self.device = device

    def preprocess(self, image: Image) -> Tensor:
        """Levels, uint8 [H, W, 3], as they are."""
        return levels(image)

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Nothing."""
        return Scored({}, None)

    @torch.inference_mode()
    def score_prompt(self, inputs: Tensor) -> dict[str, float]:
        """The mean over all pairs of images [k, H, W, 3] of a prompt; NaN for one image."""
        pairs = list(combinations(range(len(inputs)), 2))
        mean = float(self.of_pairs(inputs, pairs).double().mean()) if pairs else math.nan
        return {self.column: mean}

    column: str

    @abstractmethod
    def of_pairs(self, inputs: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """A value for each pair of the images."""


class Lpips(OfPairs):
    """Each image passes through the network once, however many pairs it is in."""

    column = "lpips"

    def __init__(self, network: Any, device: str) -> None:
        super().__init__(device)
        self.network = network

    def of_pairs(self, inputs: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """As torchmetrics' forward has it for two images."""
        layers: list[list[Tensor]] = []
        for k in range(0, len(inputs), IMAGES_AT_ONCE):
            images = signed(on_device(inputs[k : k + IMAGES_AT_ONCE], self.device))
            outputs = self.network.net(self.network.scaling_layer(images.contiguous()))
            layers.append([_normalize_tensor(output) for output in outputs])
        of_images = [torch.cat(parts) for parts in zip(*layers, strict=True)]
        values = [
            sum(
                linear((layer[i : i + 1] - layer[j : j + 1]) ** 2).mean()
                for linear, layer in zip(self.network.lins, of_images, strict=True)
            )
            for i, j in pairs
        ]
        return torch.stack(values).cpu()


class MsSsim(OfPairs):
    column = "ms_ssim"

    def preprocess(self, image: Image) -> Tensor:
        """Levels, uint8 [H, W, 3]; BenchError for an image that is too small for five scales."""
        if min(image.size) < FEWEST_PIXELS:
            raise BenchError(
                f"{image.width} x {image.height} pixels: MS-SSIM compares at five scales and "
                f"takes {FEWEST_PIXELS} at least on each side"
            )
        return levels(image)

    def of_pairs(self, inputs: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """In float32 of [0, 1]."""
        images = on_device(inputs, self.device).permute(0, 3, 1, 2).float() / 255
        found = []
        for k in range(0, len(pairs), PAIRS_AT_ONCE):
            first, second = (list(side) for side in zip(*pairs[k : k + PAIRS_AT_ONCE], strict=True))
            values: Tensor = multiscale_structural_similarity_index_measure(
                images[first], images[second], data_range=1.0, reduction="none"
            )
            found.append(values.reshape(-1))
        return torch.cat(found).cpu()


def load_lpips(path: Path) -> Any:
    """torchmetrics' network with torchvision's AlexNet; only the convolutions are read of it."""
    network: Any = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    tensors = read_tensors(path)
    found = {name: value for name, value in tensors.items() if name.startswith("features.")}
    # slice1.0.weight is features.0.weight of torchvision's.
    wanted = {f"features.{name.partition('.')[2]}": name for name in network.net.state_dict()}
    state = network.net.state_dict()
    refuse_misfit(
        path, {name: tuple(state[own].shape) for name, own in wanted.items()}, shapes_of(found)
    )
    network.net.load_state_dict({own: found[name] for name, own in wanted.items()})
    return network.requires_grad_(False).eval()


def load(name: str, device: str, dtype: torch.dtype) -> OfPairs:
    """The scorer of that name; always in float32."""
    if name == "ms_ssim":
        return MsSsim(device)
    (path,) = require(SCORERS[name].weights[0]).values()
    return Lpips(load_lpips(path).to(device), device)
