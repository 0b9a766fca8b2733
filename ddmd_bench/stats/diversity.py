"""How much the images of one prompt differ, in features: `DIVERSITIES`, a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from ddmd_bench.stats.directions import directions

Features = NDArray[Any]  # [k, d], the images of one prompt


def vendi(features: Features) -> float:
    """The effective number of different images, from 1 (all alike) to k (Friedman and Dieng 2023).

    The exponential of the entropy of the eigenvalues of K / k, K the cosines of the features. NaN
    for one image.
    """
    if len(features) < 2:
        return float("nan")
    unit = directions(features)
    shares = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    shares = shares[shares > 0]  # of images alike some are rounded below it
    return float(np.exp(-(shares * np.log(shares)).sum()))


def pairwise(features: Features) -> float:
    """Mean over pairs of 1 - cosine: 0 where all are alike, 1 where they are orthogonal. NaN for
    one image."""
    if len(features) < 2:
        return float("nan")
    return float(pdist(directions(features), "sqeuclidean").mean() / 2)


DIVERSITIES: dict[str, Callable[[Features], float]] = {"vendi": vendi, "pairwise": pairwise}
