"""Files of tensors: safetensors, and PyTorch's own, of which only data are read."""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from ddmd_bench.files.reading import PUT_BACK, reading, refuse

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

KIND, TORCH_KIND = "safetensors file", "PyTorch file of tensors"
SUFFIX = ".safetensors"
REFUSED = "what is more than data is not read, since that could run code"
# What a damaged pickle makes its reader raise, and torch over a damaged archive (RuntimeError).
_DAMAGE = (
    UnpicklingError, EOFError, RuntimeError, zipfile.BadZipFile, TypeError, KeyError, IndexError,
    AttributeError, AssertionError, OverflowError, MemoryError, struct.error,
)  # fmt: skip


@contextmanager
def open_safetensors(path: Path, framework: str = "pt", remedy: str = PUT_BACK) -> Iterator[Any]:
    """A safetensors file, opened: its header is whole and fits its size; tensors on the CPU."""
    from safetensors import SafetensorError, safe_open

    with reading(path, KIND, SafetensorError, remedy=remedy):
        opened = safe_open(path, framework)
    with opened as file:
        try:
            yield file
        except SafetensorError as error:  # of a tensor that is asked for
            raise refuse(path, str(error), "the tensors that are asked of it", remedy) from error


def read_safetensors(path: Path, remedy: str = PUT_BACK) -> dict[str, Tensor]:
    """All tensors of a file by name, mapped from the disk."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with reading(path, KIND, SafetensorError, remedy=remedy):
        return load_file(path)


def read_safetensors_arrays(
    path: Path, shapes: Mapping[str, tuple[int, ...]], remedy: str = PUT_BACK
) -> dict[str, NDArray[Any]]:
    """The arrays of these names, each of its shape, in float64."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    with reading(path, KIND, SafetensorError, KeyError, remedy=remedy):
        arrays = load_file(path)
    for name, shape in shapes.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or found.dtype != "float64":
            what = f"no {name!r}" if found is None else f"{name!r} {found.dtype} {[*found.shape]}"
            raise refuse(path, what, f"{name!r} float64 {[*shape]}", remedy)
    return {name: arrays[name] for name in shapes}


def read_torch(
    path: Path,
    device: str = "cpu",
    *,
    mapped: bool = False,
    whole: bool = False,
    remedy: str = PUT_BACK,
) -> Any:
    """What `torch.save` wrote, read as data only.

    mapped: from the disk, where it can be: a tensor is read when it is copied. whole: every byte is
    held against its checksum first, which no map looks at.
    """
    import torch

    with reading(path, TORCH_KIND, *_DAMAGE, remedy=remedy):
        if whole:
            _require_checksums(path)
        # Only torch's format since 1.6, a zip file, can be mapped.
        mapped = mapped and zipfile.is_zipfile(path)
        try:
            with warnings.catch_warnings(action="ignore"):  # of damage, and of torch's own past
                return torch.load(path, map_location=device, mmap=mapped, weights_only=True)
        except UnpicklingError as error:
            raise UnpicklingError(f"{_reason(error)}; {REFUSED}") from error


def _reason(error: UnpicklingError) -> str:
    """What torch found, without its advice to run what a file asks for."""
    advice = re.compile("Weights only load failed|weights_only|^$")
    found = (line.strip() for line in str(error).splitlines() if not advice.search(line.strip()))
    return next(found, "no data").partition(" Please use")[0]


def _require_checksums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{damaged} is not what was written")
        if not any(name.endswith("/data.pkl") for name in archive.namelist()):
            raise zipfile.BadZipFile("not of torch")
