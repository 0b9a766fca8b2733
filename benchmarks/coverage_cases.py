"""What the benchmark of coverage draws: prompts and images whose truth is known, case by case.

Truth of a distance is its mean over fresh draws of as many images: intervals do not cover the bias
that it has at finite n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.stats.intervals import holm, mean_interval, paired_difference
from ddmd_bench.stats.moments import factored, gaussian_of_parts
from ddmd_bench.stats.seeds import of_prompts, paired_t

PROMPTS = (20, 50, 200, 1_000)
SHARE = (0.0, 1.0)
POSITIVE = (0.0, math.inf)

Array = NDArray[np.float64]
Generator = np.random.Generator


class Outcome(NamedTuple):
    """Of one repetition; None where there is no interval or no test."""

    held: bool | None = None
    rejected: bool | None = None


class Case(NamedTuple):
    """One row, or two where there is an interval and a test."""

    name: str
    trial: Callable[[Generator, int], Outcome]  # with so many prompts
    share: float = 1.0  # of the repetitions
    prompts: tuple[int, ...] = PROMPTS


def held(interval: Any, truth: float) -> bool:
    """Rounding apart."""
    return bool(interval.low - 1e-12 <= truth <= interval.high + 1e-12)


# Means


def clustered(draws: Generator, prompts: int, images: int, rate: float, alike: float) -> Array:
    """Right and wrong images [prompts, images] of prompts that are unequally hard."""
    rates = np.full(prompts, rate)
    if alike:
        a, b = rate * (1 / alike - 1), (1 - rate) * (1 / alike - 1)
        rates = draws.beta(a, b, prompts)
    return (draws.random((prompts, images)) < rates[:, None]).astype(np.float64)


def groups_of(prompts: int, images: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(prompts), images)


def share(rate: float, images: int, alike: float) -> Case:
    def trial(draws: Generator, prompts: int) -> Outcome:
        values = clustered(draws, prompts, images, rate, alike).ravel()
        return Outcome(held(mean_interval(values, groups_of(prompts, images), SHARE), rate))

    return Case(f"share {rate:g}, images {images}, alike {alike:g}", trial)


def questions(rate: float) -> Case:
    """Ten yes-or-no answers an image, as DPG-Bench has."""

    def trial(draws: Generator, prompts: int) -> Outcome:
        values = clustered(draws, prompts, 20, rate, 0.2).reshape(-1, 10).mean(1)
        return Outcome(held(mean_interval(values, groups_of(prompts, 2), SHARE), rate))

    return Case(f"share of questions {rate:g}", trial)


SKEWED: dict[str, tuple[Callable[[Generator, int], Array], float]] = {
    "normal": (lambda draws, n: draws.normal(size=n), 0.0),
    "exponential": (lambda draws, n: draws.exponential(size=n), 1.0),
    "lognormal, sigma 1": (lambda draws, n: draws.lognormal(size=n), math.exp(0.5)),
    "gamma, shape 0.3": (lambda draws, n: draws.gamma(0.3, size=n), 0.3),
    "t, 3 degrees": (lambda draws, n: draws.standard_t(3, size=n), 0.0),
}


def mean(name: str, scale: float = 1.0, bounds: tuple[float, float] | None = None) -> Case:
    draw, truth = SKEWED[name]

    def trial(draws: Generator, prompts: int) -> Outcome:
        values = scale * np.repeat(draw(draws, prompts), 2)
        interval = mean_interval(values, groups_of(prompts, 2), bounds)
        return Outcome(held(interval, scale * truth))

    return Case(f"mean, {name}" + (f" x {scale:g}, a share" if scale != 1 else ""), trial)


# Differences


def right_of_two(draws: Generator, prompts: int, rates: tuple[float, float]) -> list[Array]:
    """Two students on the same prompts and noise, two images each."""
    shared = math.sqrt(0.4) * draws.normal(size=(prompts, 1))
    shared = shared + math.sqrt(0.2) * draws.normal(size=(prompts, 2))
    own = [shared + math.sqrt(0.4) * draws.normal(size=(prompts, 2)) for _ in rates]
    return [(x < norm.ppf(r)).astype(float).ravel() for x, r in zip(own, rates, strict=True)]


def shares(a: float, b: float) -> Case:
    def trial(draws: Generator, prompts: int) -> Outcome:
        pair = right_of_two(draws, prompts, (a, b))
        found = paired_difference(*pair, groups_of(prompts, 2), seed=0, bounds=SHARE)
        return Outcome(held(found, a - b), found.p_value < 0.05 if a == b else None)

    return Case(f"difference of shares {a:g} and {b:g}", trial, 0.5)


def wins(ahead: float, tied: float) -> Case:
    """Share of prompts that a wins, ties half."""

    def trial(draws: Generator, prompts: int) -> Outcome:
        chances = (ahead, tied, 1 - ahead - tied)
        signs = draws.choice([1.0, 0.0, -1.0], prompts, p=chances)
        found = paired_difference(signs, 0 * signs, np.arange(prompts), seed=0)
        return Outcome(found.wins_low <= ahead + tied / 2 <= found.wins_high)

    return Case(f"wins {ahead:g}, ties {tied:g}", trial, 0.3)


def difference(name: str) -> Case:
    """Alike students of which each has values of its own beside those that they share."""
    draw, _ = SKEWED[name]

    def trial(draws: Generator, prompts: int) -> Outcome:
        shared = np.repeat(draw(draws, prompts), 2)
        a, b = (shared + draw(draws, 2 * prompts) for _ in range(2))
        found = paired_difference(a, b, groups_of(prompts, 2), seed=0)
        return Outcome(held(found, 0.0), found.p_value < 0.05)

    return Case(f"difference, {name}", trial, 0.5)


def better_by(name: str, factor: float) -> Case:
    """A student whose values are larger in proportion: differences are as skewed as values."""
    draw, truth = SKEWED[name]

    def trial(draws: Generator, prompts: int) -> Outcome:
        shared = draw(draws, prompts)
        found = paired_difference(
            factor * shared + draws.normal(size=prompts), shared, np.arange(prompts), seed=0
        )
        return Outcome(held(found, (factor - 1) * truth))

    return Case(f"difference, {name} against {factor:g} times it", trial, 0.3)


# Distances


def features(draws: Generator, prompts: int, d: int, shift: float) -> Array:
    """Two images a prompt, which resemble each other."""
    of_prompts = np.repeat(draws.normal(size=(prompts, d)), 2, axis=0)
    return 0.8 * of_prompts + 0.6 * draws.normal(size=(2 * prompts, d)) + shift


@cache
def real_of(d: int) -> RealFeatures:
    """Of no prompt, and the same in every repetition."""
    x = features(np.random.default_rng(999), 200, d, 0.0)
    return RealFeatures(x, np.arange(len(x)), factored(gaussian_of_parts([x])))


@cache
def truth_of(name: str, d: int, shift: float, prompts: int) -> float:
    row, draws = DISTANCES[name], np.random.default_rng(prompts)
    values = [row.value(features(draws, prompts, d, shift), real_of(d)) for _ in range(200)]
    return float(np.mean(values))


def distance(name: str, d: int, shift: float, prompts: tuple[int, ...]) -> Case:
    def trial(draws: Generator, prompts: int) -> Outcome:
        x = features(draws, prompts, d, shift)
        interval = DISTANCES[name].interval(x, real_of(d), groups_of(prompts, 2), 0)
        return Outcome(held(interval, truth_of(name, d, shift, prompts)))

    return Case(f"{name}, {d} features, shift {shift:g}", trial, 0.2, prompts)


def distances(name: str, d: int, shift: float, prompts: tuple[int, ...]) -> Case:
    """Two alike students, whose distances differ by chance."""

    def trial(draws: Generator, prompts: int) -> Outcome:
        a, b = (features(draws, prompts, d, shift) for _ in range(2))
        found = DISTANCES[name].difference(a, b, real_of(d), groups_of(prompts, 2), 0, True)
        return Outcome(held(found, 0.0), found.p_value < 0.05)

    return Case(f"difference of {name}, {d} features, shift {shift:g}", trial, 0.2, prompts)


# Several comparisons


def family(num: int) -> Case:
    """Any of so many comparisons without a difference, after Holm's correction."""

    def trial(draws: Generator, prompts: int) -> Outcome:
        p_values = [
            paired_difference(*draws.normal(size=(2, prompts)), np.arange(prompts), seed=k).p_value
            for k in range(num)
        ]
        return Outcome(rejected=min(holm(p_values)) < 0.05)

    return Case(f"any of {num} comparisons, Holm", trial, 0.3, (20, 50))


def over_seeds(num: int, of_seeds: float, with_prompts: float) -> Case:
    """Difference of alike methods, trained with so many seeds each.

    What seeds and prompts add to the mean's spread, beside images, which add 1.
    """

    def trial(draws: Generator, prompts: int) -> Outcome:
        root = math.sqrt(prompts)
        values = root * (
            with_prompts * draws.normal(size=prompts) + draws.normal(size=(num, prompts))
        )
        values += of_seeds * math.sqrt(num) * draws.normal(size=(num, 1))
        shared = of_prompts(values)
        _, low, high, p_value = paired_t(values.mean(1).tolist(), shared)
        return Outcome(low <= 0 <= high, p_value < 0.05)

    spreads = f"seeds add {of_seeds:g}, prompts {with_prompts:g}"
    return Case(f"difference over {num} seeds; {spreads}", trial, 1.0, (50, 200))


FEW = (50, 200)
CASES = (
    *(share(rate, 2, 0.3) for rate in (0.5, 0.8, 0.95, 0.98, 0.994, 0.999)),
    *(share(rate, images, alike) for rate in (0.9, 0.994) for images, alike in ((1, 0), (4, 0.7))),
    *(questions(rate) for rate in (0.7, 0.97)),
    *(mean(name) for name in SKEWED),
    mean("lognormal, sigma 1", 1e-3, SHARE),
    *(shares(*pair) for pair in ((0.5, 0.5), (0.9, 0.9), (0.99, 0.99), (0.99, 0.9), (0.999, 0.98))),
    *(wins(*chances) for chances in ((0.5, 0.0), (0.1, 0.85), (0.97, 0.02))),
    *(difference(name) for name in ("normal", "lognormal, sigma 1", "t, 3 degrees")),
    better_by("exponential", 1.5),
    distance("frechet", 8, 0.4, (*FEW, 1_200)),
    distances("frechet", 8, 0.4, (*FEW, 1_200)),
    *(distance(name, 32, 0.2, FEW) for name in ("frechet_wide", "kernel")),
    distance("frechet_infinity", 8, 0.4, FEW),
    *(distance(name, 8, 0.2, FEW) for name in ("precision", "recall", "density", "coverage")),
    *(distances(name, 8, 0.2, FEW) for name in DISTANCES if name != "frechet"),
    distance("kernel", 32, 0.0, FEW),
    family(20),
    *(over_seeds(3, *adds) for adds in ((0, 0), (0, 1), (0.2, 1), (1, 1), (3, 1), (1, 0))),
    *(over_seeds(num, 1, 1) for num in (2, 5)),
)  # fmt: skip
