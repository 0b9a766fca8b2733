"""The forward process, its inversions, and DDPM's noise levels."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_worlds import sdxl_alphas_cumprod
from torch import Tensor

from ddmd_bench.objective.process import (
    NoiseLevel,
    ddpm_index,
    ddpm_level,
    eps_from_x0,
    flow_level,
    guided,
    renoise,
    x0_from_eps,
    x0_from_velocity,
)

DMD2_ANCHORS = {1.0: 999, 0.75: 749, 0.5: 499, 0.25: 249}
COEFFICIENT = st.floats(0.01, 1)
SEED = st.integers(0, 2**40)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def level_of(alpha: float, sigma: float) -> NoiseLevel:
    return NoiseLevel(*(torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (alpha, sigma)))


# Re-noising


@settings(max_examples=25, deadline=None)
@given(alpha=st.floats(0, 1), sigma=COEFFICIENT, seed=SEED)
def test_renoising_has_the_stated_mean_and_variance(alpha: float, sigma: float, seed: int) -> None:
    """Within six standard errors: 400 comparisons pass them a few times in a million runs."""
    num = 4000
    x0, eps = normal(1, 2, 2, 2, seed=seed), normal(num, 2, 2, 2, seed=seed + 1)
    x_t = renoise(x0, level_of(alpha, sigma), eps)
    error = sigma / num**0.5  # of a mean; of a variance sigma^2 * sqrt(2 / (num - 1))
    torch.testing.assert_close(x_t.mean(0), alpha * x0[0], rtol=0, atol=6 * error)
    variance = torch.full((2, 2, 2), sigma**2, dtype=torch.float64)
    torch.testing.assert_close(x_t.var(0), variance, rtol=6 * (2 / (num - 1)) ** 0.5, atol=0)


def test_flow_matching_runs_from_image_to_noise() -> None:
    x0, eps = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert torch.equal(renoise(x0, flow_level(torch.zeros(1)), eps), x0)
    assert torch.equal(renoise(x0, flow_level(torch.ones(1)), eps), eps)


# Conversions


@settings(max_examples=100, deadline=None)
@given(alpha=COEFFICIENT, sigma=COEFFICIENT, seed=SEED)
def test_eps_and_x0_give_each_other(alpha: float, sigma: float, seed: int) -> None:
    x0, eps = normal(2, 2, 3, 4, 4, seed=seed)
    level = level_of(alpha, sigma)
    x_t = renoise(x0, level, eps)
    # Each division by a coefficient magnifies the rounding of x_t.
    torch.testing.assert_close(x0_from_eps(eps, x_t, level), x0, rtol=0, atol=1e-14 / alpha)
    torch.testing.assert_close(eps_from_x0(x0, x_t, level), eps, rtol=0, atol=1e-14 / sigma)


@settings(max_examples=100, deadline=None)
@given(alpha=COEFFICIENT, sigma=COEFFICIENT, seed=SEED)
def test_any_prediction_survives_the_way_through_x0(alpha: float, sigma: float, seed: int) -> None:
    """Not the noise that made x_t: a network's output, which fits nothing."""
    x_t, eps = normal(2, 2, 3, 4, 4, seed=seed)
    level = level_of(alpha, sigma)
    back = eps_from_x0(x0_from_eps(eps, x_t, level), x_t, level)
    torch.testing.assert_close(back, eps, rtol=0, atol=1e-14 / sigma)


@settings(max_examples=100, deadline=None)
@given(t=st.floats(0.01, 1), seed=SEED)
def test_velocity_and_x0_give_each_other(t: float, seed: int) -> None:
    x_t, velocity = normal(2, 2, 3, 4, 4, seed=seed)
    level = flow_level(torch.full((2,), t, dtype=torch.float64))
    x0 = x0_from_velocity(velocity, x_t, level)
    back = eps_from_x0(x0, x_t, level) - x0
    torch.testing.assert_close(back, velocity, rtol=0, atol=1e-13 / t)


@settings(max_examples=100, deadline=None)
@given(t=st.floats(0, 1), seed=SEED)
def test_x0_from_velocity_inverts_the_forward_process(t: float, seed: int) -> None:
    x0, eps = normal(2, 2, 3, 4, 4, seed=seed)
    level = flow_level(torch.full((2,), t, dtype=torch.float64))
    x_t = renoise(x0, level, eps)
    torch.testing.assert_close(x0_from_velocity(eps - x0, x_t, level), x0, rtol=0, atol=1e-12)


def test_guidance_of_one_is_the_conditional_prediction() -> None:
    uncond, cond = normal(2, 3, 4, seed=3)
    torch.testing.assert_close(guided(uncond, cond, 1.0), cond)
    torch.testing.assert_close(guided(uncond, cond, 3.0), 3 * cond - 2 * uncond)


# DDPM


def test_the_steps_of_dmd2_are_its_anchors() -> None:
    t = torch.tensor(list(DMD2_ANCHORS))
    assert ddpm_index(t).tolist() == list(DMD2_ANCHORS.values())
    alpha, sigma = ddpm_level(sdxl_alphas_cumprod())(t)
    assert alpha.shape == sigma.shape == (4, 1, 1, 1)
    # Computed for SDXL's schedule, to three digits.
    published = [0.068, 0.238, 0.527, 0.822], [0.998, 0.971, 0.850, 0.570]
    for found, expected in zip((alpha, sigma), published, strict=True):
        assert [round(v, 3) for v in found.flatten().tolist()] == expected


def test_every_index_has_the_level_that_diffusers_adds_noise_with() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    index = torch.arange(1000)
    t = (index + 1) / 1000
    assert torch.equal(ddpm_index(t), index)
    x0, eps = torch.randn(2, 1000, 1, 2, 2, generator=generator(0))
    ours = renoise(x0, ddpm_level(scheduler.alphas_cumprod)(t), eps)
    torch.testing.assert_close(ours, scheduler.add_noise(x0, eps, index), rtol=0, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(t=st.lists(st.floats(0, 1), min_size=2, max_size=8), num=st.integers(1, 2000))
def test_an_index_is_the_nearest_level_and_never_outside(t: list[float], num: int) -> None:
    times = torch.tensor(sorted(t), dtype=torch.float64)
    index = ddpm_index(times, num)
    assert index.min() >= 0
    assert index.max() <= num - 1
    assert (index.diff() >= 0).all()  # cleaner than t stays so
    at_least_one = (num * times).clamp(min=1)
    assert (index + 1 - at_least_one).abs().max() <= 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_have_the_wider_dtype(dtype: torch.dtype) -> None:
    table, t = sdxl_alphas_cumprod(), torch.tensor([0.0, 0.3, 1.0])
    alpha, sigma = ddpm_level(table.to(dtype))(t)
    assert alpha.dtype == sigma.dtype == dtype
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(alpha))
    assert ddpm_level(table.float())(t.double()).alpha.dtype == torch.float64
