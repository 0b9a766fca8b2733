"""Tables and arrays as files, written whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from ddmd_bench.files.records import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """A table without its index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


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


def read_npz(path: Path) -> dict[str, NDArray[Any]] | None:
    """Such arrays; None where there is no whole file, which its checksums decide."""
    import numpy as np

    try:
        with path.open("rb") as stored, np.load(stored, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
