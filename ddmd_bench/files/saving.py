"""Tensors written whole, straight to the disk; what the disk says of it is an OSError."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.files.records import written_whole

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Safetensors of tensors on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with written_whole(path) as temporary:
        try:
            save_file(dict(tensors), temporary)
        except SafetensorError as error:
            # The number of the system's error stands in its words alone.
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
