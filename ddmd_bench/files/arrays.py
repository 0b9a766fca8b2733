"""Arrays as files, written whole and read as data: numbers and texts, never objects."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.reading import PUT_BACK, reading, refuse
from ddmd_bench.files.records import write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = 6  # names of a file that is refused
# Features shrink by a few times at most: a file that claims to be far more would fill the memory.
# A covariance of 2,048 features, 32 MiB, may shrink as it likes.
MOST_UNFOLDED, ALWAYS_UNFOLDED = 100, 2**26
KINDS = "biufU"  # of dtypes: truth values, whole numbers, numbers, texts
# What numpy's parser of a header raises beside ValueError.
_DAMAGE = (TypeError, KeyError, OverflowError, SyntaxError, TokenError, EOFError, RecursionError)


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """One array of numbers."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Arrays of numbers or text by name."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(path, buffer.getvalue())


def read_features(path: Path, remedy: str = PUT_BACK) -> NDArray[Any]:
    """Features, numbers [n, d], of an npy file."""
    with reading(path, "npy file", *_DAMAGE, remedy=remedy), path.open("rb") as file:
        array = _array(file, path.stat().st_size)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise refuse(path, f"{array.dtype} {[*array.shape]}", "numbers [n, d]", remedy)
    return array


def read_npz(path: Path, remedy: str = PUT_BACK) -> dict[str, NDArray[Any]]:
    """The arrays of a file of `write_npz`, each with the bytes that its checksum is of."""
    damage = BadZipFile, RuntimeError, *_DAMAGE  # RuntimeError: encrypted
    with reading(path, "npz file", *damage, remedy=remedy), ZipFile(path) as archive:
        return dict(_member(archive, name) for name in archive.namelist())


def read_npz_of_others(
    path: Path, layouts: Sequence[tuple[str, ...]], remedy: str = PUT_BACK
) -> dict[str, NDArray[Any]]:
    """The arrays of the first of these layouts, tuples of names, that a file of others has.

    It may be compressed, and what else it holds is not read.
    """
    damage = BadZipFile, RuntimeError, zlib.error, *_DAMAGE
    with reading(path, "npz file", *damage, remedy=remedy), ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}
        layout = next((names for names in layouts if members.keys() >= set(names)), None)
        if layout is None:
            held = ", ".join(sorted(members)[:SHOWN]) or "nothing"
            raise refuse(path, f"it holds {held}", " or ".join(map(_listed, layouts)), remedy)
        return {name: _unfolded(archive, members[name]) for name in layout}


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def _unfolded(archive: ZipFile, name: str) -> NDArray[Any]:
    """An array of a file of others: how large it becomes is known before."""
    info = archive.getinfo(name)
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed as numpy never does")
    assert archive.fp is not None
    held = min(info.compress_size, archive.fp.seek(0, io.SEEK_END))
    if info.file_size > max(held * MOST_UNFOLDED, ALWAYS_UNFOLDED):
        raise ValueError(f"{name} would be {info.file_size} bytes, of {held} here")
    data = archive.read(info)
    return _array(io.BytesIO(data), len(data))


def whole_npz(path: Path) -> dict[str, NDArray[Any]] | None:
    """The same; None where there is no whole file, of what is made again then."""
    try:
        return read_npz(path)
    except Unreadable:
        return None


def _member(archive: ZipFile, name: str) -> tuple[str, NDArray[Any]]:
    # Compressed, a small file could hold more than the memory does; what is written here is not.
    if archive.getinfo(name).compress_type != ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    data = archive.read(name)
    return name.removesuffix(".npy"), _array(io.BytesIO(data), len(data))


def _array(file: IO[bytes], size: int) -> NDArray[Any]:
    """An array whose header says just as many bytes as there are: nothing is allocated before."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.kind not in KINDS or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, neither numbers nor texts")
    held, said = size - file.tell(), math.prod(shape) * dtype.itemsize
    if held != said:
        raise ValueError(f"{held} bytes of values, by its header {said}")
    file.seek(0)
    array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array
