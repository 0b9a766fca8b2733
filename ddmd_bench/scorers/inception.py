"""Features of FID's Inception-v3, with three ways from an image to the network's 299 pixels.

`inception`        clean-fid's "clean" resize of the whole image (Parmar et al. 2022).
`inception_dmd2`   DMD2's COCO protocol: centre square, 8-bit Lanczos to 512, then the clean resize.
`inception_patch`  DMD2's patch FID: the centre at full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop

from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.inception_network import INPUT_SIZE, load_network
from ddmd_bench.scorers.interface import ReadsNoPrompt, on_device
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from torchvision.models.inception import Inception3

DMD2_SIZE = 512
_SIZE = (INPUT_SIZE, INPUT_SIZE)


def clean_resize(image: Image.Image) -> Tensor:
    """An 8-bit image to float32 [3, 299, 299] in [0, 255], as clean-fid 0.1.35's resize.py does.

    Each channel alone as 32-bit float through Pillow's bicubic filter, whose support grows with
    the factor; clipped but not rounded to levels. What is transparent shows the colour under it,
    since Pillow's conversion to RGB drops the alpha channel.
    """
    channels = [
        np.asarray(
            Image.fromarray(np.asarray(channel, np.float32)).resize(_SIZE, Image.Resampling.BICUBIC)
        )
        for channel in image.convert("RGB").split()
    ]
    return torch.from_numpy(np.stack(channels).clip(0, 255))


def dmd2_resize(image: Image.Image) -> Tensor:
    """DMD2's main/coco_eval/coco_evaluator.py with eval_res 512, then the clean resize."""
    square = center_crop(image.convert("RGB"), min(image.size))
    return clean_resize(square.resize((DMD2_SIZE, DMD2_SIZE), Image.Resampling.LANCZOS))


def centre_patch(image: Image.Image) -> Tensor:
    """The centre's 299 pixels, not resized; an image smaller than that as a whole, resized.

    The same file of DMD2 has an error for small images, commented out: COCO has photographs with
    a side below 299, and they go through the clean resize as they are.
    """
    if min(image.size) >= INPUT_SIZE:
        image = center_crop(image, INPUT_SIZE)
    return clean_resize(image)


PREPROCESS: Mapping[str, Callable[[Image.Image], Tensor]] = {
    "inception": clean_resize,
    "inception_dmd2": dmd2_resize,
    "inception_patch": centre_patch,
}


@dataclass(frozen=True)
class Inception(ReadsNoPrompt):
    """The network with one way to make its input; float32 whatever the other scorers run in."""

    network: Inception3
    to_input: Callable[[Image.Image], Tensor]
    device: str

    def preprocess(self, image: Image.Image) -> Tensor:
        """Levels, float32 [3, 299, 299]."""
        return self.to_input(image)

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Levels [B, 3, 299, 299] -> features [B, 2048]; the prompts are not read."""
        with torch.inference_mode():
            x = (on_device(inputs, self.device) - 128) / 128
            features = self.network(x.contiguous(memory_format=torch.channels_last))
        return Scored({}, features.float())


def load(name: str, device: str, dtype: torch.dtype) -> Inception:
    """The scorer of that name; always in float32, in which every published FID was computed."""
    (path,) = require(SCORERS[name].weights[0]).values()
    network = load_network(path).to(device, memory_format=torch.channels_last)
    return Inception(network, PREPROCESS[name], device)
