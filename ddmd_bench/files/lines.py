r"""Lines of text files: UTF-8, and nothing but `\n` and `\r\n` ends a line.

Python's text mode also breaks lines at a lone `\r`, and `str.splitlines` at form feeds, U+0085,
U+2028 and others too, which are characters of a prompt like any other.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from ddmd_bench.errors import BenchError

_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # UTF-32's begin with one of them, or 0


def iter_lines(path: Path) -> Iterator[str]:
    """Each line without its end; a byte order mark at the file's start is no part of the first.

    Raises BenchError for a file that is not UTF-8 or cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if number == 1 and raw.startswith(_OTHER_MARKS):
                    raise BenchError(
                        f"{path}: cannot be read: it begins as UTF-16 does; save it as UTF-8"
                    )
                line = _decoded(path, number, raw).removeprefix("\ufeff" if number == 1 else "")
                yield line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    r"""All lines of a file, joined by `\n`."""
    return "\n".join(iter_lines(path))


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{path}: cannot be read: line {number} is not UTF-8 ({error.reason} at its byte "
            f"{error.start + 1}); save it as UTF-8"
        ) from error
