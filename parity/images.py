"""The images that are scored: every shape and mode that scorers treat differently, from a seed.

Only whole numbers are used, so that every machine makes the same pixels: random grids, enlarged by
Pillow's fixed-point resize and added up in octaves, as photographs have structure of every size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

ROTATED = 6  # EXIF: stored on its side, to be turned by a quarter clockwise
_ORIENTATION = 0x0112


def texture(seed: int, width: int, height: int, bands: int = 3) -> NDArray[np.uint8]:
    """Octaves of noise, halved in strength as they double in fineness: [height, width, bands]."""
    random = np.random.RandomState(seed)  # its streams are frozen for good
    total = np.zeros((height, width, bands), np.int64)
    cells, weight = 2, 256
    while weight and cells <= 2 * max(width, height):
        size = (min(cells, width), min(cells, height))
        for band in range(bands):
            grid = random.randint(0, 256, size[::-1]).astype(np.uint8)
            enlarged = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
            total[..., band] += weight * (np.asarray(enlarged, np.int64) - 128)
        cells, weight = 2 * cells, weight // 2
    return (np.clip(total // 256, -128, 127) + 128).astype(np.uint8)


def _rgb(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(texture(seed, width, height))


def _rgba(seed: int, width: int, height: int) -> Image.Image:
    """Opacity runs from 0 on the left to 255 on the right."""
    pixels = texture(seed, width, height, 4)
    pixels[..., 3] = np.arange(width) * 255 // (width - 1)
    return Image.fromarray(pixels)


def _grey(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(texture(seed, width, height, 1)[..., 0])


def _grey_alpha(seed: int, width: int, height: int) -> Image.Image:
    grey = _grey(seed, width, height)
    return Image.merge("LA", [grey, _grey(seed + 1, width, height)])


def _palette(seed: int, width: int, height: int) -> Image.Image:
    """64 colours, none of them next to its neighbour in the palette."""
    indexed = Image.fromarray(texture(seed, width, height, 1)[..., 0] // 4).convert("P")
    indexed.putpalette(np.random.RandomState(seed).randint(0, 256, 3 * 64).tolist())
    return indexed


def _grey16(seed: int, width: int, height: int) -> Image.Image:
    fine = texture(seed, width, height, 2).astype(np.uint16)
    return Image.fromarray(fine[..., 0] * 256 + fine[..., 1])


# Name: how it is made, width, height; the seed is the place in this list.
IMAGES: dict[str, tuple[Callable[[int, int, int], Image.Image], int, int]] = {
    "square.png": (_rgb, 512, 512),
    "large.png": (_rgb, 1024, 1024),
    "exact.png": (_rgb, 224, 224),  # as large as the network reads: nothing is to be resized
    "wide.png": (_rgb, 901, 260),
    "tall.png": (_rgb, 301, 703),
    "sliver.png": (_rgb, 400, 5),
    "tiny.png": (_rgb, 8, 8),
    "alpha.png": (_rgba, 320, 240),
    "grey.png": (_grey, 333, 517),
    "grey_alpha.png": (_grey_alpha, 300, 200),
    "palette.png": (_palette, 400, 300),
    "grey16.png": (_grey16, 260, 340),
    "rotated.jpg": (_rgb, 480, 320),
}
# Of these a vendor reads other pixels than the image shows: 16 bits cut off, a photo on its side.
NOT_AS_SHOWN = ("grey16.png", "rotated.jpg")


def write_images(folder: Path) -> dict[str, Path]:
    """Every file of `IMAGES` by its name."""
    paths = {}
    for seed, (name, (make, width, height)) in enumerate(IMAGES.items()):
        image = make(seed, width, height)
        exif = Image.Exif()
        if name == "rotated.jpg":
            exif[_ORIENTATION] = ROTATED
        paths[name] = folder / name
        image.save(paths[name], exif=exif, quality=95)
    return paths


def as_shown(path: Path) -> Image.Image:
    """The image upright and with 8 bits a channel, in whatever mode it then has."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode == "I;16":
        # 65535 / 257 = 255: the high byte alone would make white a little darker.
        scaled = (np.asarray(image, np.uint32) + 128) // 257
        return Image.fromarray(scaled.astype(np.uint8))
    image.load()
    return image


def pixels_sha256(path: Path) -> str:
    """Of the pixels as shown: tells other pixels from another score."""
    image = as_shown(path)
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()
