"""How much the images of one prompt differ, in features: `DIVERSITIES`, a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

Features = NDArray[Any]  # [k, d], the images of one prompt


def _of_length_one(features: Features) -> NDArray[np.float64]:
    own = np.asarray(features, np.float64)
    length = np.linalg.norm(own, axis=1, keepdims=True)
    unit: NDArray[np.float64] = own / np.where(length > 0, length, 1.0)
    return unit


def vendi(features: Features) -> float:
    """The effective number of different images, from 1 (all alike) to k (Friedman and Dieng 2023).

    The exponential of the entropy of the eigenvalues of K / k, K the cosines of the features. NaN
    for one image.
    """
    if len(features) < 2:
        return float("nan")
    unit = _of_length_one(features)
    shares = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    shares = shares[shares > 0]  # of images alike some are rounded below it
    return float(np.exp(-(shares * np.log(shares)).sum()))


def pairwise(features: Features) -> float:
    """Mean over pairs of 1 - cosine: 0 where all are alike, 1 where they are orthogonal. NaN for
    one image."""
    if len(features) < 2:
        return float("nan")
    return float(pdist(_of_length_one(features), "sqeuclidean").mean() / 2)


DIVERSITIES: dict[str, Callable[[Features], float]] = {"vendi": vendi, "pairwise": pairwise}
