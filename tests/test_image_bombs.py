"""An image that would fill the memory is refused by its header, wherever images are opened."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import ddmd_bench
from ddmd_bench.data import image_sources
from ddmd_bench.data.headers import headers_of
from ddmd_bench.data.image_sources import LARGEST_FILE
from ddmd_bench.data.training import read_square
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import FORMATS, LARGEST, Undecodable, open_image, upright
from ddmd_bench.reporting.pictures import pictures_of
from ddmd_bench.reporting.runfiles import StudentFiles

SIZES = [(10_000, 9_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)]  # of which Pillow decodes one


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes, with so many pixels by its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(1000))),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_no_place_decodes_a_bomb(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoding(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", decoding)
    path = tmp_path / "a.png"
    path.write_bytes(bomb(*size))
    with pytest.raises(ValueError, match=f"at most {LARGEST}"):
        open_image(path)
    with pytest.raises(Undecodable, match=f"at most {LARGEST}"):
        upright(path)
    with pytest.raises(ValueError, match=f"at most {LARGEST}"):
        read_square(path)
    assert f"at most {LARGEST}" in (headers_of([path])[path].fault or "")
    assert pictures_of(StudentFiles("", images={("a", 0): path}), "a", 1, None) == []


def test_a_member_of_a_zip_is_no_larger_than_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/a.png", bytes(100_000))
    assert LARGEST_FILE == 8 * LARGEST
    monkeypatch.setattr(image_sources, "LARGEST_FILE", 1000)
    with pytest.raises(BenchError, match="has 100000 bytes, at most 1000"):
        list(image_sources._zipped(tmp_path / "a.zip", "images/*", 0))


def test_what_formats_are_read() -> None:
    image = Image.fromarray(np.arange(3 * 256, dtype=np.uint8).reshape(16, 16, 3))
    for kind in FORMATS:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        assert upright(buffer).size == (16, 16)
    for kind in ("EPS", "PCX", "TGA", "ICO"):  # whoever can name a file .png can write any of these
        buffer = io.BytesIO()
        image.save(buffer, kind)
        with pytest.raises(Undecodable):
            upright(buffer)


def test_nothing_else_opens_an_image() -> None:
    package = Path(ddmd_bench.__file__).parent
    opening = re.compile(r"\bImage\.open\(")
    found = {p.name for p in package.rglob("*.py") if opening.search(p.read_text(encoding="utf-8"))}
    # In the environment of the authors' packages, of files that were decoded here before.
    assert found == {"decoding.py", "authors.py"}
