"""Features as directions: what a cosine compares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def directions(features: NDArray[Any]) -> NDArray[np.float64]:
    """[n, d] -> rows of length 1, float64; one without a length stays 0."""
    own = np.asarray(features, np.float64)
    length = np.linalg.norm(own, axis=1, keepdims=True)
    unit: NDArray[np.float64] = own / np.where(length > 0, length, 1.0)
    return unit
