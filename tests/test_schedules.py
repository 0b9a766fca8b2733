"""Where terms add noise again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from ddmd_bench.objective.methods import BELOW_T, FULL, METHODS, Schedule
from ddmd_bench.objective.schedules import tau_of
from ddmd_bench.suite.settings import TrainSettings

UNIT = st.floats(0, 1, width=32)
ROUNDING = 1e-6


def uniform(num: int, seed: int) -> torch.Tensor:
    return torch.rand(num, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("schedule", [FULL, BELOW_T])
@settings(max_examples=200, deadline=None)
@given(t=st.lists(UNIT, min_size=1, max_size=8), low=UNIT, high=UNIT, seed=st.integers(0, 2**40))
def test_tau_stays_in_its_range(
    schedule: Schedule, t: list[float], low: float, high: float, seed: int
) -> None:
    assume(low < high)
    tau = tau_of(schedule, torch.tensor(t), (low, high), uniform(len(t), seed))
    assert tau.shape == (len(t),)
    for found, of_input in zip(tau.tolist(), t, strict=True):
        upper = {FULL: high, BELOW_T: max(low, min(of_input, high))}[schedule]
        assert low - ROUNDING <= found <= upper + ROUNDING


def test_every_schedule_is_known_here() -> None:
    schedules = {s for row in METHODS.values() for s in (row.tau_ca, row.tau_dm)}
    assert schedules == {FULL, BELOW_T, None}


def test_below_t_is_strictly_cleaner_at_the_usual_steps() -> None:
    t = torch.tensor([1.0, 0.75, 0.5, 0.25]).repeat(5000)
    assert (tau_of(BELOW_T, t, (0.02, 0.98), uniform(len(t), 0)) < t).all()


@pytest.mark.parametrize("t", TrainSettings().t_list)
@pytest.mark.parametrize("method", METHODS)
def test_tau_is_uniform_up_to_its_bound(method: str, t: float) -> None:
    """For every term of every method at every step, on a fixed seed."""
    low, high = 0.02, 0.98
    row = METHODS[method]
    for seed, schedule in enumerate((row.tau_dm, row.tau_ca)):
        if schedule is None:
            continue
        drawn = uniform(20_000, seed)
        tau = tau_of(schedule, torch.full_like(drawn, t), (low, high), drawn).double()
        upper = {FULL: high, BELOW_T: min(t, high)}[schedule]
        assert low <= tau.min() + ROUNDING
        assert tau.max() <= upper + ROUNDING
        # Close to both ends: a gap g is left by all draws with probability exp(-g * n / width).
        assert tau.min() < low + 1e-3
        assert tau.max() > upper - 1e-3
        expected = stats.uniform(loc=low, scale=upper - low)
        assert stats.kstest(tau.numpy(), expected.cdf).pvalue > 0.01


def test_at_pure_noise_below_t_is_full() -> None:
    t = torch.ones(64)
    full, below = (tau_of(s, t, (0.02, 0.98), uniform(64, 5)) for s in (FULL, BELOW_T))
    assert torch.equal(full, below)
