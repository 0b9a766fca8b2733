"""Squared maximum mean discrepancy (MMD) of two sets of features.

KID (Bińkowski et al. 2018) has k(x, y) = (x y / d + 1)^3 and no pair of an image with itself; CMMD
(Jayasumana et al. 2024) exp(-|x - y|^2 / (2 * 10^2)) and all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.influence import Estimate

Kernel = Callable[[Array, Array], Array]
BANDWIDTH = 10.0  # of CMMD's kernel, in features of length 1
BLOCK = 1_000  # rows at a time: 80 MB against 10,000 columns


def _cubic(x: Array, y: Array) -> Array:
    kernel: Array = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _gaussian(x: Array, y: Array) -> Array:
    squares = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    kernel: Array = np.exp(-squares / (2 * BANDWIDTH**2))
    return kernel


def _row_means(x: Array, y: Array, kernel: Kernel = _cubic) -> Array:
    """Mean over y [m, d] of k(x_i, y_j): [n]."""
    parts = [kernel(x[k : k + BLOCK], y).mean(1) for k in range(0, len(x), BLOCK)]
    return np.concatenate(parts)


def _means_without_itself(x: Array) -> Array:
    """Mean over j != i of k(x_i, x_j): [n]."""
    n = len(x)
    itself = (np.square(x).sum(1) / x.shape[1] + 1) ** 3
    means: Array = (_row_means(x, x) * n - itself) / (n - 1)
    return means


def kernel_estimate(real: NDArray[Any], features: NDArray[Any]) -> Estimate:
    """Unbiased squared MMD of features [n >= 2, d] to the real [m >= 2, d], over all pairs.

    Near 0, and below it as often as above, where both sets are drawn alike. The influences are of
    the students' images with the real ones fixed; where both distributions are equal they vanish
    to first order, and an interval from them is too narrow (the statistic is degenerate there).
    """
    y, x = np.asarray(real, np.float64), np.asarray(features, np.float64)
    own, cross = _means_without_itself(x), _row_means(x, y)
    value = own.mean() + _means_without_itself(y).mean() - 2 * cross.mean()
    return Estimate(float(value), 2 * (own - cross))


def gaussian_estimate(real: NDArray[Any], features: NDArray[Any]) -> Estimate:
    """Squared MMD of features [n, d] to the real [m, d] by CMMD's kernel, over all pairs.

    Each image's pair with itself is among them, as in the authors' code (google-research/cmmd), so
    that it is above 0 by about 1 / n + 1 / m of what two unlike images have. The influences are of
    the students' images with the real ones fixed.
    """
    y, x = np.asarray(real, np.float64), np.asarray(features, np.float64)
    own, cross = _row_means(x, x, _gaussian), _row_means(x, y, _gaussian)
    value = own.mean() + _row_means(y, y, _gaussian).mean() - 2 * cross.mean()
    return Estimate(float(value), 2 * (own - cross))
