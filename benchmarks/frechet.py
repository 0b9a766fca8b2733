"""The Fréchet distance in FID's 2,048 features: the formulas in use, and ours.

    python -m benchmarks.frechet [--images 1000 10000] [--rounds 1] [--threads 2]

Every contender is given features of images and what is kept of a reference, the statistics of
20,000 others, and makes a distance of them. The packages take the root of the product of two
covariances, which is not symmetric: clean-fid by `scipy.linalg.sqrtm`, torch-fidelity and
torchmetrics by its eigenvalues. Ours has a factor of the reference's covariance beside it, made
once when the reference is built.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

from benchmarks.table import Table, as_text
from ddmd_bench.stats.frechet import Factored, Gaussian
from ddmd_bench.stats.frechet_wide import wide_distance, wide_interval
from ddmd_bench.stats.moments import factored, gaussian_of_parts

NUM_FEATURES = 2_048
NUM_REFERENCE = 20_000
PROMPTS = 5  # images each

Contender = Callable[[NDArray[Any], Factored], float]


def features_of(n: int, seed: int) -> NDArray[np.float32]:
    """Not negative, and of a spectrum that falls as Inception's does: about 1 / rank."""
    mixing = np.random.default_rng(0).normal(size=(NUM_FEATURES, NUM_FEATURES))
    mixing *= np.arange(1, NUM_FEATURES + 1)[:, None] ** -0.5 / NUM_FEATURES**0.5
    draws = np.random.default_rng(seed).normal(size=(n, NUM_FEATURES))
    return np.maximum(draws @ mixing + 0.1 + 0.01 * seed, 0).astype(np.float32)


def own_gaussian(features: NDArray[Any]) -> Gaussian:
    """As the packages make it."""
    return Gaussian(features.mean(0, dtype=np.float64), np.cov(features, rowvar=False))


def without_cross(a: Gaussian, real: Factored) -> float:
    gap = a.mean - real.mean
    return float(gap @ gap + np.trace(a.cov) + np.trace(real.cov))


def sqrtm(features: NDArray[Any], real: Factored) -> float:
    own = own_gaussian(features)
    root = scipy.linalg.sqrtm(own.cov @ real.cov)
    return without_cross(own, real) - 2 * float(np.trace(root.real))


def eigvals(features: NDArray[Any], real: Factored) -> float:
    own = own_gaussian(features)
    product = torch.from_numpy(own.cov) @ torch.from_numpy(real.cov)
    values = torch.linalg.eigvals(product).sqrt().real
    return without_cross(own, real) - 2 * float(values.sum())


def interval(features: NDArray[Any], real: Factored) -> float:
    groups = np.arange(len(features)) // PROMPTS
    return wide_interval(real, features, groups).value


CONTENDERS: dict[str, Contender] = {
    "sqrtm of the product": sqrtm,
    "eigenvalues of the product": eigvals,
    "ours": lambda features, real: wide_distance(real, features),
    "ours, with its interval": interval,
}


def results(images: Sequence[int] = (1_000,), rounds: int = 1, threads: int = 1) -> Table:
    """Medians over the rounds, in which all contenders take turns on the same features."""
    torch.set_num_threads(threads)
    gaussian = gaussian_of_parts([features_of(NUM_REFERENCE, 0)])
    start = time.perf_counter()
    real = factored(gaussian)
    to_factor = time.perf_counter() - start
    rows = []
    for n in images:
        features = features_of(n, 1)
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        values = {}
        for _ in range(rounds):
            for name, distance in CONTENDERS.items():
                start = time.perf_counter()
                values[name] = distance(features, real)
                seconds[name].append(time.perf_counter() - start)
        first = next(iter(CONTENDERS))
        for name, times in seconds.items():
            median = statistics.median(times)
            ratio = statistics.median(seconds[first]) / median
            differs = abs(values[name] / values[first] - 1)
            rows.append(
                (f"{name}, {n:,} images", f"{median:.2f}", f"{ratio:.1f}",
                 f"{values[name]:.6f}", f"{differs:.1e}")
            )  # fmt: skip
    return Table(
        "The Fréchet distance in 2,048 features is quicker than by the formulas in use, and equal.",
        ("contender", "seconds", "times as quick", "distance", "differs by"),
        rows,
        (f"The reference's factor, made once, took {to_factor:.1f} s.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
