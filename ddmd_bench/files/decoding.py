"""An image file as every scorer sees it: decoded once, upright, with 8 bits a channel."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

# Pixels that are decoded at most, which take 268 MB in RGB. Beyond them Pillow warns of a bomb, but
# decodes up to twice as many.
LARGEST = 89_478_485
# Formats that images come in. Pillow knows others, among them one (EPS) that runs a program.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000")

# How Pillow's other modes become one of those that scorers read.
_READ = frozenset({"L", "LA", "P", "RGB", "RGBA"})
_CONVERTED = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "I;16": "16 bit",
              "I;16B": "16 bit", "I;16L": "16 bit", "I;16N": "16 bit"}  # fmt: skip
# Of no stated range: as 16 bits, small numbers would be black.
_NO_RANGE = {"F": "floating-point numbers", "I": "32-bit or signed integers"}
_IN_16_BITS = (
    "PNG",
    "PPM",
)  # formats whose integers Pillow scales to 16 bits, or that have no more


class Unusable(Exception):
    """No value can be had of this image; the message says why."""


class Undecodable(Unusable):
    """A file that is no whole image."""


class Unread(Unusable):
    """A file that this machine did not give: of its image nothing is known."""


class Blank(Unusable):
    """An image that is the same everywhere: few scorers have a value of it."""

    def __init__(self, image: Image) -> None:
        colour = image.convert("RGB").getpixel((0, 0))
        super().__init__(f"constant image: every pixel is {colour}")
        self.image = image


@cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # one may lack its library


def open_image(file: Path | IO[bytes]) -> Image:
    """An image whose header is read and nothing else: every file of others is opened here.

    Raises ValueError for one of more pixels than `LARGEST`, and what Pillow does for no image.
    """
    from PIL import Image

    try:
        image = Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; at most {LARGEST} pixels are decoded") from None
    if (pixels := image.width * image.height) > LARGEST:
        told = f"{image.width} x {image.height} are {pixels} pixels"
        image.close()
        raise ValueError(f"{told}; at most {LARGEST} are decoded")
    return image


def decoded(path: Path) -> Image:
    """A file's image as `upright` gives it; `Blank` for one that is the same everywhere."""
    image = upright(path)
    refuse_blank(image)
    return image


def upright(file: Path | IO[bytes]) -> Image:
    """The image turned as its EXIF tag says, of mode L, LA, P, RGB or RGBA.

    16 bits are scaled to 8 (65535 is white). Of an animation it is the first frame. `Undecodable`
    for what is no whole image, `Unread` where the system gave an error.
    """
    from PIL import ImageOps

    try:
        with open_image(file) as image:
            image.load()
            _refuse_misread(image)
            return _eight_bit(ImageOps.exif_transpose(image), image.format in _IN_16_BITS)
    except FileNotFoundError:
        raise Undecodable("no such file") from None
    except OSError as error:
        if error.errno is not None:  # Pillow's own have none
            raise Unread(f"cannot be read: {error.strerror}") from error
        raise Undecodable(f"cannot be decoded: {error}") from error
    # Pillow reports a broken chunk of a PNG as a SyntaxError, and a cut file as an OSError.
    except (SyntaxError, ValueError) as error:
        raise Undecodable(f"cannot be decoded: {error or type(error).__name__}") from error


def refuse_blank(image: Image) -> None:
    """Raise `Blank` where all pixels are alike: black frames score well with some networks."""
    if all(low == high for low, high in (band.getextrema() for band in image.split())):
        raise Blank(image)


def _refuse_misread(image: Any) -> None:
    """Raise for TIFFs whose grey levels Pillow gives as 16 bits though they are others."""
    from PIL import ExifTags

    if image.format == "TIFF" and image.mode.startswith("I;16"):
        if image.tag_v2[ExifTags.Base.PhotometricInterpretation] == 0:
            raise ValueError("0 is white in it, with 16 bits; save it with 0 for black")
        if (bits := image.tag_v2[ExifTags.Base.BitsPerSample][0]) != 16:
            raise ValueError(f"it has {bits} bits a channel; save it with 8 or 16")


def _eight_bit(image: Image, in_16_bits: bool) -> Image:
    if image.mode in _READ:
        return image
    if image.mode in _NO_RANGE and not (image.mode == "I" and in_16_bits):
        raise ValueError(
            f"its pixels are {_NO_RANGE[image.mode]} of an unknown range; save it with 8 or 16 bits"
        )
    target = "16 bit" if image.mode == "I" else _CONVERTED.get(image.mode, "RGB")
    return _scaled(image) if target == "16 bit" else image.convert(target)


def _scaled(image: Image) -> Image:
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"expected 16 bits a channel, found {values.min()} to {values.max()}")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
