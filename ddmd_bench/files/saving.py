"""Tensors written whole, straight to the disk; what the disk says of it is an OSError."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.files.records import written_whole

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Safetensors of tensors on the CPU."""
    from safetensors.torch import save_file

    with written_whole(path) as temporary, disk_errors():
        save_file(dict(tensors), temporary)


@contextmanager
def disk_errors() -> Iterator[None]:
    """What safetensors says of the disk is the OSError that it was."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        # Its number stands in the words alone.
        if (found := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


def save_checkpoint(path: Path, value: Any) -> None:
    """What torch.save writes, from the live tensors, one of them on the CPU at a time."""
    import torch

    with written_whole(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            # The end of the archive, which it tries to write all the same, fails otherwise.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
