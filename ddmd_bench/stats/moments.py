"""Mean and covariance of features that come in parts, and what is kept of a reference."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from ddmd_bench.errors import BenchError
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.frechet import Factored, Gaussian, symmetric_root


class Moments(NamedTuple):
    """Of n features [d]: enough to go on with more of them, float64."""

    n: int
    mean: Array  # [d]
    scatter: Array  # [d, d]: sum of the outer products of what the mean leaves


def moments_of(features: NDArray[Any]) -> Moments:
    """Of features [n >= 1, d]."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centred = features - mean
    return Moments(len(features), mean, centred.T @ centred)


def merged(a: Moments, b: Moments) -> Moments:
    """Of both sets together (Chan, Golub and LeVeque 1979)."""
    n, gap = a.n + b.n, b.mean - a.mean
    between = np.outer(gap, gap) * (a.n * b.n / n)
    return Moments(n, a.mean + gap * (b.n / n), a.scatter + b.scatter + between)


def gaussian_of_parts(parts: Iterable[NDArray[Any]]) -> Gaussian:
    """The Gaussian of features that come in parts [n_k, d], of which one is held at a time."""
    n, mean, scatter = reduce(merged, map(moments_of, parts))
    if n < 2:
        raise BenchError(f"a Gaussian needs two features or more, found {n}")
    return Gaussian(mean, scatter / (n - 1))


def factored(gaussian: Gaussian) -> Factored:
    """With the factor of the covariance, whatever its rank: the root is Q R, so cov = R^T R."""
    (upper,) = qr(symmetric_root(gaussian.cov), mode="r")
    return Factored(gaussian.mean, gaussian.cov, np.ascontiguousarray(upper.T, np.float64))
