"""Ends of intervals: closed forms, scipy's where it has the same, and never beyond the range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.ends import difference_ends, share_ends, skewed_ends, t_ends
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.stats.influence import Estimate, share_interval
from ddmd_bench.stats.intervals import mean_interval, paired_difference
from ddmd_bench.stats.seeds import by_prompt, of_prompts, paired_t, seed_interval

SHARE = (0.0, 1.0)


@pytest.mark.parametrize(("right", "n"), [(3, 10), (60, 100), (391, 392)])
def test_ends_of_a_share_are_mid_p_limits(right: int, n: int) -> None:
    low, high = share_ends(right / n, n, 10**9)  # so many prompts: no t instead of normal
    above = (stats.binom.sf(right, n, low) + stats.binom.sf(right - 1, n, low)) / 2
    below = (stats.binom.cdf(right, n, high) + stats.binom.cdf(right - 1, n, high)) / 2
    assert (above, below) == pytest.approx((0.025, 0.025), rel=1e-6)
    exact = stats.binomtest(right, n).proportion_ci(method="exact")
    assert exact.low < low < high < exact.high


def test_all_right_has_the_exact_one_sided_limit() -> None:
    limit = stats.binomtest(50, 50).proportion_ci(method="exact").low
    found = mean_interval(np.ones(100), np.arange(100) // 2, SHARE)
    assert found == pytest.approx((1, limit, 1, 100))
    none = mean_interval(np.zeros(100), np.arange(100) // 2, SHARE)
    assert none == pytest.approx((0, 0, 1 - limit, 100))


def test_where_all_tie_a_difference_has_the_limits_of_unseen_prompts() -> None:
    right = np.ones(100)
    found = paired_difference(right, right, np.arange(100) // 2, seed=0, bounds=SHARE)
    limit = 1 - 0.025 ** (1 / 50)
    assert found[:4] == pytest.approx((0, -limit, limit, 1))
    assert (found.wins_low, found.wins_high) == pytest.approx(((1 - limit) / 2, (1 + limit) / 2))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 0.001, 0.3, 0.999, 1.0]), min_size=8, max_size=60),
    st.integers(0, 2**32),
)
def test_an_interval_never_leaves_its_range(values: list[float], seed: int) -> None:
    a, groups = np.array(values), np.arange(len(values)) // 3
    b = np.random.default_rng(seed).permutation(a)
    mean = mean_interval(a, groups, SHARE)
    assert 0 <= mean.low <= mean.value <= mean.high <= 1
    found = paired_difference(a, b, groups, seed=0, bounds=SHARE)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert 0 <= found.wins_low <= found.wins <= found.wins_high <= 1
    turned = paired_difference(b, a, groups, seed=0, bounds=SHARE)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_scale_changes_nothing_far_from_the_upper_bound() -> None:
    """Shares of a millionth have intervals of their own size."""
    values = np.random.default_rng(0).exponential(size=80)
    one, other = (mean_interval(scale * values, np.arange(80), SHARE) for scale in (1e-5, 1e-9))
    assert np.array(one[:3]) / 1e-5 == pytest.approx(np.array(other[:3]) / 1e-9, rel=1e-3)


def test_a_share_in_the_middle_of_many_prompts_has_the_t_interval() -> None:
    values = (np.random.default_rng(1).random(20_000) < 0.6).astype(float)
    found = mean_interval(values, np.arange(20_000), SHARE)
    expected = t_ends(found.value, float(stats.sem(values)), 20_000)
    assert found[1:3] == pytest.approx(expected, abs=0.01 * (expected[1] - expected[0]))


def test_prompts_whose_images_are_alike_count_once() -> None:
    right = np.random.default_rng(2).random(100) < 0.9
    once = mean_interval(right.astype(float), np.arange(100), SHARE)
    thrice = mean_interval(right.repeat(3).astype(float), np.arange(300) // 3, SHARE)
    assert thrice[:3] == pytest.approx(once[:3])


def test_a_skewed_mean_s_interval_solves_hall_s_transformation() -> None:
    error, skewness, n = 0.3, 1.7, 25
    low, high = skewed_ends(2.0, error, skewness, n)
    for end, quantile in ((low, stats.t.ppf(0.975, 24)), (high, stats.t.ppf(0.025, 24))):
        t, root = (2.0 - end) / error, math.sqrt(n)
        transformed = (
            t + skewness * t**2 / (3 * root) + skewness**2 * t**3 / (27 * n) + skewness / (6 * root)
        )
        assert transformed == pytest.approx(quantile)
    assert skewed_ends(2.0, error, 0.0, n) == t_ends(2.0, error, n)
    turned = skewed_ends(-2.0, error, -skewness, n)
    assert turned == pytest.approx((-high, -low))


def test_independent_differences_add_their_halves_as_squares() -> None:
    ends = difference_ends((0.9, 0.8, 0.95), (0.5, 0.4, 0.6), 0.0)
    assert ends == pytest.approx((0.4 - math.hypot(0.1, 0.1), 0.4 + math.hypot(0.05, 0.1)))


def test_a_recall_of_all_does_not_exceed_all() -> None:
    """Rows that one prompt's images alone reach: it is all now and might be less."""
    influence = np.zeros(40)
    influence[:4] = 0.3
    found = share_interval(Estimate(1.0, influence), np.arange(40) // 2)
    assert 0.5 < found.low < 0.97
    assert found.high == 1
    sure = share_interval(Estimate(1.0, np.zeros(40)), np.arange(40) // 2)
    assert (sure.low, sure.high) == pytest.approx((0.025 ** (1 / 20), 1))


def test_distances_keep_within_the_bounds_of_their_metrics() -> None:
    draws = np.random.default_rng(3)
    real = RealFeatures(draws.normal(size=(60, 3)), np.arange(60) // 3)
    groups = np.arange(30) // 2
    rows = {m: row for m, row in METRICS.items() if row.distance and row.bounds}
    assert {row.distance for row in rows.values()} == {"precision", "recall", "density", "coverage"}
    for row in rows.values():
        assert row.distance
        assert row.bounds
        for features in (draws.normal(size=(30, 3)), draws.normal(size=(30, 3)) * 0.01 + 9):
            found = DISTANCES[row.distance].interval(features, real, groups, 0)
            assert row.bounds[0] <= found.low <= found.value <= found.high <= row.bounds[1]


# Several seeds


def seeds_of(generator: np.random.Generator, spread: float) -> np.ndarray:
    """Prompts' differences [3, 40]."""
    return (
        0.3
        + 0.3 * generator.normal(size=(3, 1))
        + spread * generator.normal(size=40)
        + generator.normal(size=(3, 40))
    )


def test_what_prompts_share_is_their_covariance() -> None:
    generator = np.random.default_rng(5)
    found = [of_prompts(seeds_of(generator, 1.5)) for _ in range(200)]
    assert np.mean([one.variance for one in found]) == pytest.approx(1.5**2 / 40, rel=0.05)
    assert found[0].num_prompts == 40
    assert of_prompts(seeds_of(generator, 1.0)[:1]).num_prompts == 0


def test_over_seeds_and_prompts_p_is_that_of_the_interval() -> None:
    generator = np.random.default_rng(6)
    for _ in range(100):
        values = seeds_of(generator, 0.5)
        means, prompts = values.mean(1).tolist(), of_prompts(values)
        alone = paired_t(means)
        _, low, high, p_value = paired_t(means, prompts)
        assert alone[3] == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
        assert low <= alone[1] < alone[2] <= high
        assert p_value >= alone[3] - 1e-12
        assert (p_value < 0.05) == (low > 0 or high < 0)


def test_seeds_that_tie_at_0_have_the_interval_of_one_of_them() -> None:
    """Wrong on five prompts each, not the same ones, with either seed: alike by chance."""
    one = np.repeat([-1.0, 1.0, 0.0], [5, 5, 40])
    value, low, high, p_value = paired_t([0.0, 0.0], of_prompts(np.stack([one, one])))
    expected = stats.ttest_1samp(one, 0).confidence_interval()
    assert (value, p_value) == (0, 1)
    assert (low, high) == pytest.approx(tuple(expected))
    # Other prompts with the other seed: what both share is no measure of it.
    found = paired_t([0.0, 0.0], of_prompts(np.stack([one, one[::-1]])))
    assert found == pytest.approx((0, low, high, 1))
    for alike in (of_prompts(np.zeros((2, 50))), of_prompts(np.zeros((1, 1)))):
        assert paired_t([0.0, 0.0], alike) == (0, 0, 0, 1)


@pytest.mark.parametrize("of_prompts_alone", [0.0, 0.3])
def test_seeds_that_tie_at_0_do_not_hide_a_difference(of_prompts_alone: float) -> None:
    """Of two students that differ by up to 0.25, 40 prompts, where two seeds' answers tie."""
    generator, shape = np.random.default_rng(9), (30_000, 2, 40)
    truth = generator.uniform(-0.25, 0.25, (shape[0], 1, 1))
    prompts = of_prompts_alone * generator.choice([-1, 1], (shape[0], 1, 40))
    seeds = 0.03 * generator.normal(size=(shape[0], 2, 1))
    ahead = generator.random(shape) < 0.5 + (truth + prompts + seeds) / 2
    behind = generator.random(shape) < 0.5 - (truth + prompts + seeds) / 2
    differences = ahead.astype(np.float64) - behind
    ties = np.flatnonzero(~differences.sum(2).any(1))
    assert len(ties) > 60
    ends = [paired_t([0.0, 0.0], of_prompts(differences[k]))[1:3] for k in ties]
    held = [low <= truth[k, 0, 0] <= high for (low, high), k in zip(ends, ties, strict=True)]
    assert np.mean(held) >= 0.95


def test_prompts_that_a_seed_lacks_are_left_out_of_all() -> None:
    prompts, values = np.arange(8) // 2, np.arange(8.0)
    fewer = values.copy()
    fewer[:2] = np.nan
    means, counts, squares = by_prompt([(values, prompts), (fewer, prompts)])
    assert means.tolist() == [[2.5, 4.5, 6.5]] * 2
    assert counts.tolist() == [[2, 2, 2]] * 2
    assert squares[0].tolist() == [4 + 9, 16 + 25, 36 + 49]


def test_an_interval_over_seeds_keeps_within_the_range() -> None:
    interval = seed_interval([0.99, 1.0, 0.995], bounds=SHARE)
    assert interval.high == 1
    assert interval.low == pytest.approx(0.995 - 4.302653 * 0.005 / 3**0.5)
