"""Precision and recall, density and coverage: balls around images that reach to a k-th neighbour.

Distances in float64, a block of rows at a time. The real images stay as they are throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.influence import Estimate

PRECISION_NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
DENSITY_NEIGHBOURS = 5  # Naeem et al. 2020
BLOCK = 1_000  # rows at a time: 80 MB against 10,000 columns

Inside = NDArray[np.bool_]


def _squared_distances(x: NDArray[Any], y: NDArray[Any]) -> Iterator[Array]:
    """Blocks [<= BLOCK, m] of |x_i - y_j|^2, in the order of x."""
    y = np.asarray(y, np.float64)
    y_squares = np.square(y).sum(1)
    for k in range(0, len(x), BLOCK):
        block = np.asarray(x[k : k + BLOCK], np.float64)
        squares = np.square(block).sum(1)[:, None] + y_squares - 2 * block @ y.T
        yield np.maximum(squares, 0)


def _squared_radii(x: NDArray[Any], neighbours: int) -> Array:
    """Squared distance of each image to its k-th neighbour, itself not counted: [n > k]."""
    parts = [
        np.partition(block, neighbours, 1)[:, neighbours] for block in _squared_distances(x, x)
    ]
    return np.concatenate(parts)


def precision_values(real: NDArray[Any], features: NDArray[Any]) -> Array:
    """1 for each image within a real image's ball, else 0: [n]; their mean is the precision.

    Improved precision (Kynkäänniemi et al. 2019, Eq. 1 and 2), k = 3, the ball's edge included.
    """
    radii = _squared_radii(real, PRECISION_NEIGHBOURS)
    blocks = [(block <= radii).any(1) for block in _squared_distances(features, real)]
    return np.concatenate(blocks).astype(np.float64)


def density_values(real: NDArray[Any], features: NDArray[Any]) -> Array:
    """In how many real images' balls each image lies, divided by k: [n]; the mean is the density.

    Naeem et al. 2020, Eq. 4, k = 5, the ball's edge left out: 1 is expected of equal distributions.
    """
    radii = _squared_radii(real, DENSITY_NEIGHBOURS)
    blocks = [(block < radii).sum(1) for block in _squared_distances(features, real)]
    return np.concatenate(blocks) / DENSITY_NEIGHBOURS


def recall_estimate(real: NDArray[Any], features: NDArray[Any], groups: NDArray[Any]) -> Estimate:
    """Share of real images within an image's ball (Kynkäänniemi et al. 2019), k = 3.

    Influences: `_share_reached`, the radii of the other images as they are without a prompt too.
    """
    radii = _squared_radii(features, PRECISION_NEIGHBOURS)
    inside = (block <= radii for block in _squared_distances(real, features))
    return _share_reached(inside, groups)


def coverage_estimate(real: NDArray[Any], features: NDArray[Any], groups: NDArray[Any]) -> Estimate:
    """Share of real images with an image within their ball (Naeem et al. 2020, Eq. 5), k = 5.

    Influences: `_share_reached`.
    """
    radii = np.split(
        _squared_radii(real, DENSITY_NEIGHBOURS)[:, None], range(BLOCK, len(real), BLOCK)
    )
    distances = _squared_distances(real, features)
    inside = (block < own for block, own in zip(distances, radii, strict=True))
    return _share_reached(inside, groups)


def _share_reached(blocks: Iterator[Inside], groups: NDArray[Any]) -> Estimate:
    """Share of the rows that an image reaches; blocks [rows, n] say which do.

    Influences are the jackknife's over prompts: what is lost without a prompt is the rows that
    its images alone reach. Its variance errs on the wide side (Efron and Stein 1981).
    """
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(np.asarray(groups)[order], return_index=True, return_counts=True)
    reached, rows = 0, 0
    alone = np.zeros(len(starts))  # rows that only this prompt's images reach
    for block in blocks:
        by_prompt = np.logical_or.reduceat(block[:, order], starts, axis=1)
        num_prompts = by_prompt.sum(1)
        reached += int((num_prompts > 0).sum())
        alone += by_prompt[num_prompts == 1].sum(0)
        rows += len(block)
    # Shared among the prompt's images; (P - 1) / P makes the sum of squares the jackknife's.
    n, num = len(order), len(starts)
    influence = np.empty(n)
    influence[order] = np.repeat(alone / rows * n * (num - 1) / num / counts, counts)
    return Estimate(reached / rows, influence)
