"""Real images to train on, of whatever size and mode, as square tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


DEEP_MODES = ("I", "F")  # what Pillow's names of more than 8 bits a channel begin with


def rgb(image: Image.Image) -> Image.Image:
    """An upright image in RGB; what is transparent becomes white.

    Raises ValueError for more than 8 bits a channel, which Pillow would clip.
    """
    from PIL import Image, ImageOps

    if image.mode.startswith(DEEP_MODES):
        raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def square(image: Image.Image, resolution: int) -> Image.Image:
    """The shorter side resized to the resolution with Lanczos' filter, then the centre."""
    from PIL import Image

    scale = resolution / min(image.size)
    width, height = (max(resolution, round(scale * side)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def to_tensor(image: Image.Image) -> Tensor:
    """An 8-bit RGB image as float32 [3, H, W] in [-1, 1]."""
    import numpy as np
    import torch

    levels = torch.from_numpy(np.array(image))
    return levels.permute(2, 0, 1).contiguous().float() / 127.5 - 1
