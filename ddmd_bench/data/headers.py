"""What files of images are before they are used, remembered: hash, size, mode, or what is wrong."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ddmd_bench.files.decoding import Undecodable, open_image, upright
from ddmd_bench.files.remembered import remembered

if TYPE_CHECKING:
    from PIL.Image import Image

_QUARTER_TURNS = (5, 6, 7, 8)  # of the EXIF tag
# What a whole file ends with; of another end, or another format, only decoding tells.
_ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}


class Header(NamedTuple):
    """Of one file; where it is no whole image `fault` says why, and sizes and mode say nothing."""

    sha256: str
    width: int  # upright
    height: int
    mode: str  # Pillow's, e.g. I;16
    fault: str | None


def headers_of(paths: Iterable[Path]) -> dict[Path, Header]:
    """Of each file; read once, and again once the file has changed."""
    from PIL import __version__  # what can be read, and how, is Pillow's

    found = remembered(f"images_{__version__}", paths, _look)
    return {path: Header(*row) for path, row in found.items()}


def _look(path: Path) -> Header:
    from PIL import UnidentifiedImageError

    if not path.is_file():
        return Header("", 0, 0, "", "there is no such file")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        with open_image(io.BytesIO(data)) as image:
            width, height = image.size[::-1] if _lies(image, data) else image.size
            mode, end = image.mode, _ENDS.get(image.format or "")
        if end is None or end not in data[-32:]:
            upright(io.BytesIO(data))
    except UnidentifiedImageError:
        return Header(sha256, 0, 0, "", "it has no format of images that is known")
    except (Undecodable, OSError, SyntaxError, ValueError) as error:
        return Header(sha256, 0, 0, "", str(error) or type(error).__name__)
    return Header(sha256, width, height, mode, None)


def _lies(image: Image, data: bytes) -> bool:
    """Whether the image is upright only after a quarter turn."""
    from PIL import ExifTags

    if image.format == "PNG" and not any(
        mark in data for mark in (b"eXIf", b"exif", b"Orientation")
    ):
        return False  # to ask would decode all of it: the tag may stand behind the pixels
    return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
