"""An image file as every scorer sees it: decoded once, upright, with 8 bits a channel."""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# How Pillow's other modes become one of those that scorers read.
_READ = frozenset({"L", "LA", "P", "RGB", "RGBA"})
_CONVERTED = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "I;16": "16 bit", "I": "16 bit",
              "I;16B": "16 bit", "I;16L": "16 bit", "I;16N": "16 bit", "F": "float"}  # fmt: skip


class Unusable(Exception):
    """No value can be had of this image; the message says why."""


class Undecodable(Unusable):
    """A file that is no whole image."""


def decoded(path: Path) -> Image:
    """A file's image as `upright` gives it; `Unusable` for one that is the same everywhere."""
    image = upright(path)
    refuse_blank(image)
    return image


def upright(file: Path | IO[bytes]) -> Image:
    """The image turned as its EXIF tag says, of mode L, LA, P, RGB or RGBA.

    16 bits are scaled to 8 (65535 is white). Of an animation it is the first frame. `Undecodable`
    for what is no whole image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            image.load()
            return _eight_bit(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise Undecodable("no such file") from None
    # Pillow reports a broken chunk of a PNG as a SyntaxError, a cut file as an OSError, and what
    # would fill the memory as an error of its own.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Undecodable(f"cannot be decoded: {error or type(error).__name__}") from error


def refuse_blank(image: Image) -> None:
    """Raise `Unusable` where all pixels are alike: black frames score well with some networks."""
    if all(low == high for low, high in (band.getextrema() for band in image.split())):
        colour = image.convert("RGB").getpixel((0, 0))
        raise Unusable(f"constant image: every pixel is {colour}")


def _eight_bit(image: Image) -> Image:
    if image.mode in _READ:
        return image
    target = _CONVERTED.get(image.mode, "RGB")
    if target == "float":
        raise ValueError("its pixels are floating-point numbers of an unknown range")
    return _scaled(image) if target == "16 bit" else image.convert(target)


def _scaled(image: Image) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected 16 bits a channel, found {values.min()} to {values.max()}")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
