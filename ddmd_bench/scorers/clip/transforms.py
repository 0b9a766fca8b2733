"""What each reference does to an image before its CLIP reads it: image -> [3, 224, 224].

All normalise by OpenAI's mean and standard deviation of each channel.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import center_crop

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

SIZE = 224  # px
DMD2_SIZE = 256  # px


def hps(image: PilImage) -> Tensor:
    """HPS v2 (hpsv2 1.2.0, `ResizeMaxSize`): RGB, then the longest side to 224 px, then black bars.

    The resize acts on float values in [0, 1], bicubic, not clipped, antialiased: what torchvision
    does unasked from 0.17 on (before, it did not antialias tensors; hpsv2 pins no version).
    Transparency is dropped. Where the reference gives its network something it cannot read, the
    rule goes on: the alpha channel of RGBA, no bars on an image whose longest side is 224 px
    already, a shortest side of 0 px (here 1).
    """
    pixels = _pixels(image)
    height, width = pixels.shape[1:]
    scale = SIZE / max(height, width)
    new = max(1, round(height * scale)), max(1, round(width * scale))
    if new[1] == 1:  # torch 2.14 repeats the first row of a result one pixel wide: turned over
        resized = _resized(pixels.mT.contiguous(), new[::-1]).mT
    else:
        resized = _resized(pixels, new)
    top, left = (SIZE - new[0]) // 2, (SIZE - new[1]) // 2
    return _normalized(F.pad(resized, (left, SIZE - new[1] - left, top, SIZE - new[0] - top)))


def openai(image: PilImage) -> Tensor:
    """OpenAI's and open_clip's: shortest side to 224 px, bicubic, centre crop, then RGB."""
    return _open_clip_transform()(image)  # type: ignore[no-any-return]


def dmd2(image: PilImage) -> Tensor:
    """DMD2's (main/coco_eval): centre square, Lanczos to 256 px, then OpenAI's."""
    square = center_crop(image.convert("RGB"), min(image.size))
    return openai(square.resize((DMD2_SIZE, DMD2_SIZE), Image.Resampling.LANCZOS))


def transformers(image: PilImage) -> Tensor:
    """transformers' CLIP processor on Pillow: RGB, shortest side, centre crop rounded down."""
    image = image.convert("RGB")
    shortest = min(image.size)
    width, height = (int(SIZE * side / shortest) for side in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return _normalized(_pixels(resized.crop((left, top, left + SIZE, top + SIZE))))


@cache
def _open_clip_transform() -> Any:
    return open_clip.image_transform(SIZE, is_train=False)


def _pixels(image: PilImage) -> Tensor:
    """[3, H, W] in [0, 1]."""
    pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic and antialiased, as torchvision resizes tensors; not clipped."""
    return F.interpolate(pixels[None], size, mode="bicubic", antialias=True)[0]


def _normalized(pixels: Tensor) -> Tensor:
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    return (pixels - mean) / std
