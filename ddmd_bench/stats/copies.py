"""Which images have a copy among those of other prompts, by the cosine of their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.directions import directions

AT_ONCE = 1024  # images held against all others


def has_copy(features: NDArray[Any], prompts: Sequence[str], cosine: float) -> NDArray[np.float64]:
    """1 for an image with another prompt's image above that cosine, else 0: [n, d] -> [n].

    NaN of an image whose features are not finite, and of all where only one prompt has any.
    """
    found = np.full(len(features), np.nan)
    rows = np.flatnonzero(np.isfinite(features).all(1))
    _, numbers = np.unique(np.asarray(prompts)[rows], return_inverse=True)
    if not len(rows) or numbers.max() == 0:
        return found
    unit = directions(features[rows])
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        others = numbers[part, None] != numbers
        found[rows[part]] = ((unit[part] @ unit.T > cosine) & others).any(1)
    return found
