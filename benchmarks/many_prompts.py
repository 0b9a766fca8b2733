"""What statistics over prompts cost: in proportion to the prompts, in memory of a block of draws.

    OMP_NUM_THREADS=1 python -m benchmarks.many_prompts [--prompts 1000 10000 100000] [--rounds 5]

Beside each stands its plain form, as a textbook has it and up to --plain prompts: all resamples and
permutations drawn at once, an eigendecomposition for each resample of a distance, and in a report
all of it for every pair whose share of wins is asked for. Seconds are of the processor, medians of
rounds that take turns; MiB are the peak of what numpy and Python allocate, in a run of its own.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats  # here, so that its loading is nobody's cost
from numpy.typing import NDArray

from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures, frechet_distance, gaussian_of
from ddmd_bench.stats.intervals import paired_difference
from ddmd_bench.suite.schema import Suite

METRICS = (
    "prompt_accuracy", "saturation", "std", "mean", "high_frequency", "hps_v21", "hps_v20",
    "pick_score", "image_reward", "frechet_attributes",
)  # fmt: skip
IMAGES = 2  # of a prompt
NUM_FEATURES = 5
KEYS = ["prompt_id", "image_index"]
BOUNDS = {"difference, right and wrong": (0.0, 1.0)}

Array = NDArray[np.float64]
Run = Callable[[], object]


class Cost(NamedTuple):
    seconds: float
    mebibytes: float


def seconds_of(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def peak_of(run: Run) -> float:
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def costs_of(runs: tuple[Run, ...], rounds: int) -> list[Cost]:
    peaks = [peak_of(run) for run in runs]
    seconds = [[seconds_of(run) for run in runs] for _ in range(rounds)]
    medians = map(statistics.median, zip(*seconds, strict=True))
    return [Cost(*cost) for cost in zip(medians, peaks, strict=True)]


def plain_counts(num_prompts: int, num_resamples: int) -> Array:
    drawn = np.random.default_rng([0, 0]).integers(num_prompts, size=(num_resamples, num_prompts))
    drawn += np.arange(num_resamples)[:, None] * num_prompts
    counts = np.bincount(drawn.ravel(), minlength=num_resamples * num_prompts)
    return counts.reshape(num_resamples, num_prompts).astype(np.float64)


def plain_difference(a: Array, b: Array, groups: NDArray[np.object_]) -> tuple[float, ...]:
    """low, high, p, wins: 4,000 resamples and 9,999 permutations as whole matrices."""
    gaps = a - b
    known = ~np.isnan(gaps)
    _, index = np.unique(groups[known], return_inverse=True)
    sums, counts = np.bincount(index, gaps[known]), np.bincount(index).astype(np.float64)
    drawn = plain_counts(len(sums), 4_000)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), (0.025, 0.975))
    signs = np.random.default_rng([0, 1]).integers(0, 2, (9_999, len(sums)), dtype=np.int8)
    flipped = np.abs((signs.astype(np.float64) * 2 - 1) @ sums)
    p_value = (1 + np.sum(flipped >= abs(sums.sum()) - 1e-12 * np.abs(sums).sum())) / 10_000
    return low, high, float(p_value), float(np.mean((sums > 0) + 0.5 * (sums == 0)))


def plain_distances(sides: list[Array], groups: NDArray[np.object_]) -> Array:
    """Distances of the first side to each other one with 200 resamples of the prompts."""
    prompts, index = np.unique(groups, return_inverse=True)
    counts = plain_counts(len(prompts), 200)
    rows = [[x[index == k] for k in range(len(prompts))] for x in sides]
    n = counts @ np.bincount(index)
    means = [counts @ np.stack([part.sum(0) for part in parts]) / n[:, None] for parts in rows]
    moments = [counts @ np.stack([(part.T @ part).ravel() for part in parts]) for parts in rows]
    found = []
    for k, total in enumerate(n):
        gaussians = [
            (m[k], (s[k].reshape(len(m[k]), -1) - total * np.outer(m[k], m[k])) / (total - 1))
            for m, s in zip(means, moments, strict=True)
        ]
        (mean, cov), *others = gaussians
        values, vectors = np.linalg.eigh(cov)
        root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        for own, own_cov in others:
            cross = np.sqrt(np.linalg.eigvalsh(root @ own_cov @ root).clip(0)).sum()
            found.append((mean - own) @ (mean - own) + np.trace(cov + own_cov) - 2 * cross)
    return np.array(found).reshape(len(n), -1).T


def plain_interval(real: RealFeatures, own: Array) -> tuple[float, float]:
    value = frechet_distance(gaussian_of(real.features), gaussian_of(own))
    (drawn,) = plain_distances([real.features, own], real.groups)
    low, high = value + np.quantile(drawn - drawn.mean(), (0.025, 0.975))
    return float(low), float(high)


def made_run(num_students: int, num_prompts: int) -> RunFiles:
    """Results of made-up students: normal values, skewed ones, right and wrong, some missing."""
    names = [f"student_{k}" for k in range(num_students)]
    suite = Suite.model_validate(
        {
            "name": "made",
            "title": "Made up",
            "description": "Drawn from seeds.",
            "backend": "shapes",
            "seeds": [0],
            "prompts": {"all_prompts": {"source": "x", "num_prompts": num_prompts}},
            "students": {name: {"method": "dmd"} for name in names},
            "baseline": names[0],
            "metrics": list(METRICS),
            "claims": [],
        }
    )
    ids = np.array([f"all_prompts/{k:06d}" for k in range(num_prompts)], dtype=object)
    n = num_prompts * IMAGES

    def student(k: int) -> StudentFiles:
        generator = np.random.default_rng(k)
        table = pd.DataFrame({"prompt_id": ids.repeat(IMAGES), "prompt_set": "all_prompts"})
        table["image_index"] = np.tile(np.arange(IMAGES), num_prompts)
        table["prompt_accuracy"] = (generator.random(n) < 0.5 + 0.02 * k).astype(np.float64)
        for kind, metric in enumerate(METRICS[1:-1]):
            values = generator.exponential(size=n) if kind % 2 else generator.normal(size=n)
            values[generator.random(n) < 0.01 * (kind == 0)] = math.nan
            table[metric] = values + 0.01 * k
        features = (generator.normal(size=(n, NUM_FEATURES)) + 0.02 * k).astype(np.float32)
        empty: dict[str, dict[str, object]] = {metric: {} for metric in METRICS}
        return StudentFiles(
            "", per_image=table, aggregates=empty, features={"attributes": features}
        )

    real = np.random.default_rng(999).normal(size=(n, NUM_FEATURES))
    return RunFiles(
        suite=suite,
        prompts=dict.fromkeys(ids, "a prompt"),
        prompt_lists={},
        protocol={},
        fingerprint="",
        students={name: {0: student(k)} for k, name in enumerate(names)},
        reference={"attributes": RealFeatures(real, ids.repeat(IMAGES))},
    )


def plain_report(run: RunFiles) -> list[tuple[float, ...]]:
    """All against the baseline on all metrics, and every pair's share of wins on the first."""
    names = list(run.suite.students)
    pairs = [(m, names[0], name) for m in METRICS for name in names[1:]]
    wins = [(METRICS[0], a, b) for a, b in itertools.combinations(names[1:], 2)]
    found: list[tuple[float, ...]] = []
    for metric, a, b in pairs + wins:
        sides = [run.students[name][0] for name in (a, b)]
        if metric == METRICS[-1]:
            real = run.reference["attributes"]
            features = [real.features, *(side.features["attributes"] for side in sides)]
            drawn_a, drawn_b = plain_distances(
                [np.asarray(x, np.float64) for x in features], real.groups
            )
            found.append((float((drawn_a - drawn_b).std()),))
            continue
        of_a, of_b = (side.per_image for side in sides)
        assert of_a is not None
        assert of_b is not None
        both = of_a[[*KEYS, metric]].merge(of_b[[*KEYS, metric]], on=KEYS).dropna()
        values = (both[f"{metric}_{side}"].to_numpy() for side in "xy")
        found.append(plain_difference(*values, both["prompt_id"].to_numpy()))
    return found


def runs_of(num_prompts: int) -> dict[str, tuple[Run, Run]]:
    """By what is computed: ours, and the plain form."""
    run = made_run(2, num_prompts)
    one, other = (run.students[name][0] for name in run.suite.students)
    assert one.per_image is not None
    assert other.per_image is not None
    groups = one.per_image["prompt_id"].to_numpy()
    real = run.reference["attributes"]
    own = np.asarray(one.features["attributes"], np.float64)
    heavy = np.random.default_rng(0).standard_t(2, size=(2, num_prompts * IMAGES))
    pairs = {
        "difference, skewed values": [x.per_image["std"].to_numpy() for x in (one, other)],  # type: ignore[index]
        "difference, right and wrong": [
            x.per_image["prompt_accuracy"].to_numpy()  # type: ignore[index]
            for x in (one, other)
        ],
        "difference, heavy tails": list(heavy),
    }
    runs: dict[str, tuple[Run, Run]] = {
        name: (
            lambda name=name, a=a, b=b: paired_difference(
                a, b, groups, seed=0, bounds=BOUNDS.get(name)
            ),
            lambda a=a, b=b: plain_difference(a, b, groups),
        )
        for name, (a, b) in pairs.items()
    }
    runs["Fréchet distance, interval"] = (
        lambda: DISTANCES["frechet"].interval(own, real, groups, 0),
        lambda: plain_interval(real, own),
    )
    return runs


def show(name: str, num_prompts: int, ours: Cost, plain: Cost | None = None) -> None:
    line = f"{name:34}{num_prompts:9,}{ours.seconds:9.3f}s{ours.mebibytes:7.0f} MiB"
    if plain is not None:
        line += f"{plain.seconds:10.3f}s{plain.mebibytes:7.0f} MiB"
        line += f"{plain.seconds / ours.seconds:8.1f}x{plain.mebibytes / ours.mebibytes:8.1f}x"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--plain", type=int, default=10_000, help="up to so many prompts")
    parser.add_argument("--students", type=int, default=12, help="of a report; 0: no report")
    parser.add_argument("--rounds", type=int, default=5, help="a report has one")
    options = parser.parse_args()
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, {NUM_FEATURES} features")
    print(f"{'':34}{'prompts':>9}{'ours':>10}{'':11}{'plain':>11}{'':11}{'time':>9}{'memory':>9}")
    seconds: dict[str, list[float]] = {}
    for num_prompts in options.prompts:
        contenders = 2 if num_prompts <= options.plain else 1
        for name, runs in runs_of(num_prompts).items():
            costs = costs_of(runs[:contenders], options.rounds)
            seconds.setdefault(name, []).append(costs[0].seconds)
            show(name, num_prompts, *costs)
        if options.students and contenders == 2:
            run = made_run(options.students, num_prompts)
            both = (lambda run=run: build_record(run), lambda run=run: plain_report(run))
            name = f"report, {options.students} students, {len(METRICS)} metrics"
            show(name, num_prompts, *costs_of(both, 1))
    for name, costs_by_size in seconds.items():
        if len(costs_by_size) > 1:
            exponent = np.polyfit(np.log(options.prompts), np.log(costs_by_size), 1)[0]
            print(f"{name:34}grows as prompts^{exponent:.2f}")


if __name__ == "__main__":
    main()
