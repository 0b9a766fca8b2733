"""Fréchet distance in many features (FID has 2,048) to real images that stay as they are.

With fewer images than features everything happens in the n x n Gram matrix, with more in the d x d
scatter; the factor of the real covariance comes from the reference, which keeps it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh
from scipy.linalg.blas import dsyrk, dtrmm
from scipy.linalg.lapack import dsygst

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import Factored
from ddmd_bench.stats.influence import Estimate, estimate_interval
from ddmd_bench.stats.intervals import (
    Interval,
)


def _positive(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which eigenvalues, in rising order, are not 0 but for rounding."""
    threshold = float(values[-1]) * len(values) * float(np.finfo(np.float64).eps)
    return np.asarray(values > threshold)


def _trace_root(product: Array) -> float:
    """tr M^1/2 of a positive semi-definite M by its lower triangle; its rank may be far from full.

    What rounding makes of an eigenvalue 0 is left out: the root of 1e-16 is 1e-8, a thousand times.
    """
    values = eigvalsh(product, lower=True)
    return float(np.sqrt(values[_positive(values)]).sum())


class _Centred(NamedTuple):
    """Features about their mean, and where that is seen from the real mean."""

    x: Array  # [n, d]
    gap: Array  # [d]


def _centred(real: Factored, features: NDArray[Any]) -> _Centred:
    x = np.array(features, np.float64, order="C")  # a copy
    mean = x.mean(0)
    x -= mean
    return _Centred(x, mean - real.mean)


def _squares(x: Array) -> Array:
    """Squared length [n] of each row, without a second array of the size of x."""
    squares: Array = np.einsum("nd,nd->n", x, x)
    return squares


def _product(real: Factored, x: Array) -> Array:
    """L^T B L [d, d] with B = X^T X / (n - 1), or where n <= d X L L^T X^T / (n - 1) [n, n].

    Both have the eigenvalues of A^1/2 B A^1/2, A = L L^T, but for zeros. Only the lower triangle
    is there: each step knows what is symmetric or a triangle, and does half of another product.
    All of it, the eigenvalues too, is scipy's: numpy has a BLAS of its own, and the threads of one
    wait busily while the other works.
    """
    n, d = x.shape
    # BLAS reads columns first: of an array here it sees the transpose, without a copy.
    if n <= d:
        scaled = dtrmm(1.0, real.factor.T, x.T)  # L^T X^T
        product: Array = dsyrk(1 / (n - 1), scaled, trans=1, lower=1)
    else:
        scatter = dsyrk(1 / (n - 1), x.T, lower=1)
        product, _ = dsygst(scatter, real.factor, itype=2, lower=1, overwrite_a=1)
    return product


def _distance(real: Factored, centred: _Centred, squares: Array, cross: float) -> float:
    """|m_a - m_b|^2 + tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2, of which `cross` is the last."""
    x, gap = centred
    traces = float(np.trace(real.cov)) + float(squares.sum()) / (len(x) - 1)
    # Rounding may leave the distance of equal sets just below 0.
    return max(float(gap @ gap) + traces - 2 * cross, 0.0)


def wide_distance(real: Factored, features: NDArray[Any]) -> float:
    """Fréchet distance of features [n >= 2, d] to a Gaussian, float64."""
    centred = _centred(real, features)
    squares = _squares(centred.x)
    return _distance(real, centred, squares, _trace_root(_product(real, centred.x)))


def wide_estimate(real: Factored, features: NDArray[Any]) -> Estimate:
    """The distance with the influence of each image: one symmetric eigen-decomposition.

    With z = x - m_b the derivative towards a point mass at x is
    2 (m_b - m_a) z + z^T z - z^T L (L^T B L)^-1/2 L^T z + constant; the last product is an entry
    of the diagonal of (X A X^T)^1/2 (n - 1)^1/2, which is smaller where n <= d.
    """
    centred = _centred(real, features)
    x, gap = centred
    n, d = x.shape
    values, vectors = eigh(_product(real, x), lower=True, driver="evd")
    # Where the images do not vary there is nothing to divide by, and the numerator is 0 as well.
    kept = _positive(values)
    roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if n <= d:
        quadratic = (n - 1) * (np.square(vectors) @ roots)
    else:
        quadratic = np.square(x @ (real.factor @ (vectors / np.sqrt(roots)))).sum(1)
    squares = _squares(x)
    value = _distance(real, centred, squares, float(roots.sum()))
    return Estimate(value, 2 * (x @ gap) + squares - quadratic)


def wide_interval(real: Factored, features: NDArray[Any], groups: NDArray[Any]) -> Interval:
    """Distance of features [n, d] with a 95 % t-interval over prompts, the real images fixed.

    It says how far the value would move with other prompts of the same kind, never below 0. It
    does not remove the bias that the distance has at finite n, which is nearly the same for
    students with equally many images. No bootstrap: with fewer images than features a resample's
    distance depends on how many different images it happens to hold, which made intervals twice
    as wide as the spread of the value.
    """
    interval = estimate_interval(wide_estimate(real, features), groups)
    return interval._replace(low=float(np.maximum(interval.low, 0.0)))  # NaN stays
