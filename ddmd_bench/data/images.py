"""Randomness and files of images: an image belongs to (suite seed, prompt, index), nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files.records import seed_of

SHARP = 64  # pixels; pictures up to here are kept without loss

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


@dataclass(frozen=True)
class ImageId:
    """The k-th image of a prompt."""

    prompt: Prompt
    image_index: int


def image_ids(prompts: Sequence[Prompt], images_per_prompt: Mapping[str, int]) -> list[ImageId]:
    """Every image of a suite in its one order; counts are by prompt set."""
    return [ImageId(p, k) for p in prompts for k in range(images_per_prompt[p.prompt_set])]


def image_seed(seed: int | str, image: ImageId) -> int:
    """The seed that belongs to an image of a suite's seed."""
    return seed_of("image", seed, image.prompt.prompt_id, image.image_index)


def image_generator(seed: int | str, image: ImageId) -> torch.Generator:
    """The image's own generator, on the CPU; all students share it, so comparisons are paired."""
    import torch

    return torch.Generator().manual_seed(image_seed(seed, image))


def image_noises(
    seed: int, images: Sequence[ImageId], num_noises: int, shape: tuple[int, int, int]
) -> list[Tensor]:
    """Noise draws [B, C, H, W], first the initial noise, then one for each re-noising.

    Each image's generator is asked once for each, as diffusers asks it: at once it would give
    other values where C * H * W is no multiple of 16.
    """
    import torch

    generators = [image_generator(seed, image) for image in images]
    return [
        torch.stack([torch.randn(shape, generator=g) for g in generators])
        for _ in range(num_noises)
    ]


def quantised(images: Tensor) -> Tensor:
    """Values in [-1, 1] (clipped) as the 8-bit levels that a PNG holds."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte()


def as_picture(levels: Tensor) -> Image:
    """uint8 [3, H, W] as Pillow's image, as decoding its PNG file would give it."""
    from PIL import Image

    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def as_pictures(levels: Tensor) -> list[Image]:
    """uint8 [n, 3, H, W] as Pillow's images."""
    return [as_picture(image) for image in levels]


def png_bytes_of(levels: Tensor) -> bytes:
    """uint8 [3, H, W] as a PNG."""
    file = BytesIO()
    as_picture(levels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def strip_of(pictures: Sequence[Image | None], longest: int) -> bytes:
    """Pictures beside each other as one WebP, each in a square of so many pixels at most.

    None is a grey square. What is small, as pixels would show, is kept without loss.
    """
    from PIL import Image as Pillow

    side = min(longest, max((max(p.size) for p in pictures if p is not None), default=1))
    strip = Pillow.new("RGB", (side * len(pictures), side), (127, 127, 127))
    for k, picture in enumerate(pictures):
        if picture is not None:
            small = picture.convert("RGB")
            small.thumbnail((side, side), reducing_gap=2.0)
            strip.paste(small, (k * side, 0))
    file = BytesIO()
    exact = {"lossless": True, "quality": 30} if side <= SHARP else {"quality": 82}
    strip.save(file, "WEBP", **exact)
    return file.getvalue()


def save_png(path: Path, image: Tensor) -> None:
    """One image [3, H, W] in [-1, 1] (clipped) as the file of an 8-bit PNG."""
    path.write_bytes(png_bytes_of(quantised(image)))
