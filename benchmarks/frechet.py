"""The Fréchet distance in FID's 2,048 features: the formulas in use, and ours.

    python benchmarks/frechet.py [--images 1000 10000] [--rounds 1] [--threads 2]

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
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import torch
from numpy.typing import NDArray

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gaussian = gaussian_of_parts([features_of(NUM_REFERENCE, 0)])
    start = time.perf_counter()
    real = factored(gaussian)
    print(
        f"threads {options.threads}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"torch {torch.__version__}; the reference's factor took {time.perf_counter() - start:.1f}s"
    )
    print(
        f"{'images':>7}  {'contender':30}{'seconds':>9}{'ratio':>8}{'distance':>12}{'differs':>10}"
    )
    for n in options.images:
        features = features_of(n, 1)
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        values = {}
        for _ in range(options.rounds):
            for name, distance in CONTENDERS.items():
                start = time.perf_counter()
                values[name] = distance(features, real)
                seconds[name].append(time.perf_counter() - start)
        first = next(iter(CONTENDERS))
        for name, times in seconds.items():
            median = statistics.median(times)
            ratio = statistics.median(seconds[first]) / median
            differs = abs(values[name] / values[first] - 1)
            print(
                f"{n:7,}  {name:30}{median:8.2f}s{ratio:7.1f}x{values[name]:12.6f}{differs:10.1e}"
            )


if __name__ == "__main__":
    main()
