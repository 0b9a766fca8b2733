"""Where terms add noise again, and the forward process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from ddmd_bench.diffusion import NoiseLevel, flow_level, guided, renoise, x0_from_velocity
from ddmd_bench.distill.schedules import draw_tau
from ddmd_bench.methods import BELOW_T, FULL, METHODS

UNIT = st.floats(0, 1, width=32)
ROUNDING = 1e-6
SCHEDULES = sorted(
    {s for m in METHODS.values() for s in (m.tau_ca, m.tau_dm) if s is not None}, key=str
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=200, deadline=None)
@given(t=st.lists(UNIT, min_size=1, max_size=8), low=UNIT, high=UNIT, seed=st.integers(0, 2**40))
def test_tau_stays_in_its_range(
    schedule: str, t: list[float], low: float, high: float, seed: int
) -> None:
    assume(low < high)
    tau = draw_tau(schedule, torch.tensor(t), (low, high), generator(seed))
    assert tau.shape == (len(t),)
    assert tau.min() >= low - ROUNDING
    assert tau.max() <= high + ROUNDING


@settings(max_examples=200, deadline=None)
@given(
    t=st.lists(st.floats(0.03125, 1, width=32), min_size=1, max_size=8), seed=st.integers(0, 2**40)
)
def test_below_t_is_cleaner_than_the_input(t: list[float], seed: int) -> None:
    t_batch = torch.tensor(t)
    tau = draw_tau(BELOW_T, t_batch, (0.02, 0.98), generator(seed))
    assert (tau <= t_batch + ROUNDING).all()


def test_below_t_is_strictly_cleaner_at_the_usual_steps() -> None:
    t = torch.tensor([1.0, 0.75, 0.5, 0.25]).repeat(5000)
    assert (draw_tau(BELOW_T, t, (0.02, 0.98), generator(0)) < t).all()


def test_full_is_not_bound_by_the_input() -> None:
    tau = draw_tau(FULL, torch.full((1000,), 0.25), (0.02, 0.98), generator(0))
    assert (tau > 0.25).float().mean() == pytest.approx(0.73 / 0.96, abs=0.05)


@pytest.mark.parametrize(
    ("schedule", "t", "upper"),
    [(FULL, 0.25, 0.98), (BELOW_T, 0.25, 0.25), (BELOW_T, 0.75, 0.75), (BELOW_T, 1.0, 0.98)],
)
def test_tau_is_uniform(schedule: str, t: float, upper: float) -> None:
    tau = draw_tau(schedule, torch.full((20_000,), t), (0.02, 0.98), generator(11))
    uniform = stats.uniform(loc=0.02, scale=upper - 0.02)
    assert stats.kstest(tau.double().numpy(), uniform.cdf).pvalue > 0.01


def test_at_pure_noise_below_t_is_full() -> None:
    t = torch.ones(64)
    full, below = (draw_tau(s, t, (0.02, 0.98), generator(5)) for s in (FULL, BELOW_T))
    assert torch.equal(full, below)


@pytest.mark.parametrize("alpha_sigma", [(0.7, 0.3), (0.6, 0.8)])
def test_renoising_has_the_stated_mean_and_variance(alpha_sigma: tuple[float, float]) -> None:
    alpha, sigma = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in alpha_sigma)
    x0 = torch.randn(1, 2, 3, 3, generator=generator(1), dtype=torch.float64)
    num = 40_000
    eps = torch.randn(num, 2, 3, 3, generator=generator(2), dtype=torch.float64)
    x_t = renoise(x0, NoiseLevel(alpha, sigma), eps)
    error = 5 * float(sigma) / num**0.5  # five standard errors
    torch.testing.assert_close(x_t.mean(0), (alpha * x0)[0], rtol=0, atol=error)
    variance = (sigma**2).expand(2, 3, 3, 3)[0, :2]
    torch.testing.assert_close(x_t.var(0), variance, rtol=5 * (2 / num) ** 0.5, atol=0)


@settings(max_examples=100, deadline=None)
@given(t=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_x0_from_velocity_inverts_the_forward_process(t: float, seed: int) -> None:
    x0, eps = torch.randn(2, 2, 3, 4, 4, generator=generator(seed), dtype=torch.float64)
    level = flow_level(torch.full((2,), t, dtype=torch.float64))
    x_t = renoise(x0, level, eps)
    recovered = x0_from_velocity(eps - x0, x_t, level)
    torch.testing.assert_close(recovered, x0, rtol=0, atol=1e-12)


def test_flow_matching_runs_from_image_to_noise() -> None:
    x0, eps = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert torch.equal(renoise(x0, flow_level(torch.zeros(1)), eps), x0)
    assert torch.equal(renoise(x0, flow_level(torch.ones(1)), eps), eps)


def test_guidance_of_one_is_the_conditional_prediction() -> None:
    uncond, cond = torch.randn(2, 3, 4, generator=generator(3), dtype=torch.float64)
    torch.testing.assert_close(guided(uncond, cond, 1.0), cond)
    torch.testing.assert_close(guided(uncond, cond, 3.0), 3 * cond - 2 * uncond)
