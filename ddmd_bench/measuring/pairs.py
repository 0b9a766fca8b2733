"""Images that two students share, from their tables: the same prompt, the same noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["prompt_id", "image_index"]
Rows = NDArray[np.int64]


def shared_rows(a: pd.DataFrame, b: pd.DataFrame) -> tuple[Rows, Rows]:
    """Rows of either table that hold the same images, in the order of a."""
    of_a, of_b = (frame[KEYS].assign(row=np.arange(len(frame))) for frame in (a, b))
    if of_a.equals(of_b) and not of_a[KEYS].duplicated().any():  # as most are, without a merge
        return of_a["row"].to_numpy(), of_a["row"].to_numpy()
    pairs = of_a.merge(of_b, on=KEYS, suffixes=("_a", "_b"), validate="one_to_one")
    return pairs["row_a"].to_numpy(), pairs["row_b"].to_numpy()
