"""A comparison that is looked at after every prompt errs no more often than it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ddmd_bench.stats.intervals import effective_number
from ddmd_bench.stats.sequential import (
    FEWEST_VARYING,
    FIRST,
    confidence_sequence,
    settled,
)

Draw = Callable[[np.random.Generator], np.ndarray]
N = 1_000
NULLS: dict[str, Draw] = {
    "normal": lambda draws: draws.normal(size=N),
    "right and wrong, a tenth differ": lambda d: d.choice([-1.0, 0, 1], N, p=[0.05, 0.9, 0.05]),
    "right and wrong, few differ": lambda d: d.choice([-1.0, 0, 1], N, p=[0.02, 0.96, 0.02]),
    "heavy tails": lambda draws: draws.standard_t(3, size=N),
    "skewed": lambda draws: draws.exponential(size=N) - 1,
    "skewed both ways": lambda draws: draws.lognormal(size=N) - draws.lognormal(size=N),
}


@pytest.mark.parametrize("name", NULLS)
def test_the_error_of_continuous_looking_is_5_percent_at_most(name: str) -> None:
    draws = np.random.default_rng(0)
    told = [settled(confidence_sequence(NULLS[name](draws), N // 3)) for _ in range(600)]
    wrong = np.mean([one is not None for one in told])
    assert wrong <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


def test_looking_with_plain_intervals_errs_often() -> None:
    """What the sequence is for."""
    draws, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        x, t = draws.normal(size=N), np.arange(1, N + 1)
        mean = np.cumsum(x) / t
        wrong += bool((np.abs(mean[FIRST:]) > 1.96 / np.sqrt(t[FIRST:])).any())
    assert wrong > 20


@pytest.mark.parametrize(
    ("effect", "shown", "drawn"), [(0.15, 0.9, 0.5), (0.2, 0.97, 0.3), (0.3, 0.99, 0.15)]
)
def test_large_effects_save_most_images(effect: float, shown: float, drawn: float) -> None:
    """In standard deviations of a prompt's difference; prompts drawn as a share of all."""
    draws = np.random.default_rng(2)
    found = [
        settled(confidence_sequence(effect + draws.normal(size=N), N // 3)) for _ in range(300)
    ]
    assert np.mean([one is not None and one.answer == "above" for one in found]) > shown
    assert np.mean([N if one is None else one.num_prompts for one in found]) / N < drawn


def test_the_interval_is_the_theorem_s() -> None:
    x = np.random.default_rng(3).normal(0.2, 2.0, size=400)
    sequence = confidence_sequence(x, 100)
    t, rho2 = 120, (-2 * np.log(0.05) + np.log(1 - 2 * np.log(0.05))) / 100
    half = x[:t].std() * np.sqrt(
        2 * (t * rho2 + 1) / (t**2 * rho2) * np.log(np.sqrt(t * rho2 + 1) / 0.05)
    )
    assert sequence.mean[t - 1] == pytest.approx(x[:t].mean())
    assert sequence.low[t - 1] >= x[:t].mean() - half - 1e-9
    widths = sequence.high - sequence.low
    assert (np.diff(widths[np.isfinite(widths)]) <= 1e-12).all()
    fixed = stats.t.interval(0.95, t - 1, x[:t].mean(), stats.sem(x[:t]))
    assert fixed[1] - fixed[0] < 2 * half < 1.8 * (fixed[1] - fixed[0])


def test_nothing_is_said_before_the_variance_is_known() -> None:
    x = np.zeros(300)
    x[60:70] = 1.0  # ten prompts differ, all one way
    sequence = confidence_sequence(x, 100)
    assert np.isinf(sequence.low).all()
    assert settled(sequence, margin=0.5) is None
    x[100:150] = np.tile([1.0, -1.0], 25)
    known = np.isfinite(confidence_sequence(x, 100).low)
    first = int(known.argmax())
    numbers = [effective_number(x[:t] - x[:t].mean()) for t in (first, first + 1)]
    assert numbers[0] < FEWEST_VARYING <= numbers[1] + 1e-9


def test_settled_says_which_way_and_when() -> None:
    draws = np.random.default_rng(4)
    for shift, answer in ((1.0, "above"), (-1.0, "below")):
        found = settled(confidence_sequence(shift + draws.normal(size=200), 60))
        assert found is not None
        assert found.answer == answer
        assert FIRST <= found.num_prompts < 80
    alike = settled(confidence_sequence(draws.normal(size=N), N // 3), margin=0.2)
    assert alike is not None
    assert alike.answer == "alike"
