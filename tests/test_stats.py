"""Statistics against closed forms, scipy, and simulations whose truth is known."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats

from ddmd_bench.errors import BenchError
from ddmd_bench.stats import resampling
from ddmd_bench.stats.frechet import (
    Gaussian,
    RealFeatures,
    frechet_difference,
    frechet_distance,
    frechet_interval,
    gaussian_of,
)
from ddmd_bench.stats.intervals import (
    effective_number,
    holm,
    mean_interval,
    paired_difference,
)
from ddmd_bench.stats.resampling import MANY_PROMPTS, NUM_PERMUTATIONS, prompt_counts


def prompts_of(num_prompts: int, images_per_prompt: int = 2) -> np.ndarray:
    return np.repeat([f"set/{k:04d}" for k in range(num_prompts)], images_per_prompt)


def random_gaussian(generator: np.random.Generator, d: int) -> Gaussian:
    factor = generator.normal(size=(d, d + 3))
    return Gaussian(generator.normal(size=d), factor @ factor.T / d)


# Fréchet distance


def test_a_set_has_distance_0_to_itself() -> None:
    gaussian = gaussian_of(np.random.default_rng(0).normal(size=(300, 20)))
    assert frechet_distance(gaussian, gaussian) == pytest.approx(0, abs=1e-9)


def test_a_shift_adds_its_squared_length() -> None:
    generator = np.random.default_rng(1)
    features, shift = generator.normal(size=(300, 12)), generator.normal(size=12)
    distance = frechet_distance(gaussian_of(features), gaussian_of(features + shift))
    assert distance == pytest.approx(float(shift @ shift), rel=1e-9)


def test_diagonal_gaussians_have_a_closed_form() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.uniform(0.1, 3, size=(2, 9))
    mean = generator.normal(size=9)
    distance = frechet_distance(Gaussian(mean, np.diag(a)), Gaussian(0 * mean, np.diag(b)))
    assert distance == pytest.approx(mean @ mean + ((a**0.5 - b**0.5) ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_distance_equals_scipys_matrix_root(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = random_gaussian(generator, 24), random_gaussian(generator, 24)
    gap = a.mean - b.mean
    root = linalg.sqrtm(a.cov @ b.cov).real
    expected = gap @ gap + np.trace(a.cov + b.cov - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 16))
def test_distance_is_symmetric_and_never_negative(seed: int, d: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = random_gaussian(generator, d), random_gaussian(generator, d)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-9)
    assert frechet_distance(a, b) >= 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32))
def test_the_order_of_images_changes_nothing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    features, groups = generator.normal(size=(60, 5)), prompts_of(30)
    reference = random_gaussian(generator, 5)
    order = generator.permutation(60)
    here = frechet_interval(features, reference, groups, seed=3)
    there = frechet_interval(features[order], reference, groups[order], seed=3)
    assert there == pytest.approx(here, rel=1e-7)
    values = features[:, 0]
    means = mean_interval(values, groups), mean_interval(values[order], groups[order])
    assert means[0] == pytest.approx(means[1], rel=1e-9)


def test_resampled_distances_are_those_of_the_repeated_rows() -> None:
    from ddmd_bench.stats.frechet import _bootstrap

    generator = np.random.default_rng(3)
    features, groups = generator.normal(size=(80, 6)) + 0.5, prompts_of(40)
    reference = random_gaussian(generator, 6)
    drawn = _bootstrap([features], reference, groups, 7, 5)[0]
    (rows,) = prompt_counts(40, 5, 7)
    for counts, distance in zip(rows, drawn, strict=True):
        repeated = np.repeat(features, np.repeat(counts.astype(int), 2), axis=0)
        expected = frechet_distance(reference, gaussian_of(repeated))
        assert distance == pytest.approx(expected, rel=1e-9)


def test_frechet_interval_is_centred_on_the_plain_distance() -> None:
    generator = np.random.default_rng(4)
    features, groups = generator.normal(size=(200, 8)) + 0.3, prompts_of(100)
    reference = Gaussian(np.zeros(8), np.eye(8))
    interval = frechet_interval(features, reference, groups, seed=0)
    assert interval.value == frechet_distance(reference, gaussian_of(features))
    assert 0 <= interval.low < interval.value < interval.high
    assert interval.n == 200
    assert interval == frechet_interval(features, reference, groups, seed=0)


def test_frechet_interval_covers_the_spread_over_prompts() -> None:
    """The truth is the mean of the distance over fresh sets of prompts."""
    reference, groups = Gaussian(np.zeros(4), np.eye(4)), prompts_of(50)
    generator = np.random.default_rng(5)

    def draw() -> np.ndarray:
        prompts = np.repeat(generator.normal(size=(50, 4)), 2, axis=0)
        return 0.8 * prompts + 0.6 * generator.normal(size=(100, 4)) + 0.4

    truth = np.mean([frechet_distance(reference, gaussian_of(draw())) for _ in range(500)])
    intervals = [frechet_interval(draw(), reference, groups, seed=k) for k in range(120)]
    covered = np.mean([i.low <= truth <= i.high for i in intervals])
    assert covered >= 0.87


def test_real_images_are_drawn_with_their_prompts() -> None:
    """Each prompt has contents of its own; a student that draws them well knows its distance."""
    generator = np.random.default_rng(15)
    values = []
    for _ in range(30):
        contents = 3 * generator.normal(size=(60, 4))
        real = np.repeat(contents, 5, axis=0) + generator.normal(size=(300, 4))
        own = np.repeat(contents, 2, axis=0) + 1.5 * generator.normal(size=(120, 4))
        values.append(frechet_distance(gaussian_of(real), gaussian_of(own)))
    joint = frechet_interval(own, RealFeatures(real, prompts_of(60, 5)), prompts_of(60), seed=0)
    fixed = frechet_interval(own, gaussian_of(real), prompts_of(60), seed=0)
    assert joint.value == fixed.value == values[-1]
    spread = 2 * 1.96 * np.std(values, ddof=1)
    assert 0.6 * spread < joint.high - joint.low < 2 * spread
    assert fixed.high - fixed.low > 2 * spread


def test_a_reference_of_other_prompts_is_refused() -> None:
    features = np.random.default_rng(16).normal(size=(20, 3))
    reference = RealFeatures(features, prompts_of(10))
    with pytest.raises(BenchError, match="it has 10, they have 20, 10 are in both"):
        frechet_interval(features, reference, prompts_of(20, 1), seed=0)


def test_frechet_difference_knows_equal_from_different() -> None:
    generator = np.random.default_rng(6)
    groups, reference = prompts_of(100), Gaussian(np.zeros(6), np.eye(6))
    a = generator.normal(size=(200, 6))
    same = frechet_difference(a, a, reference, groups, seed=0)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    worse = frechet_difference(a + 1, a, reference, groups, seed=0)
    assert worse.low > 0
    assert worse.p_value < 1e-6
    assert worse.n == 200
    assert math.isnan(worse.wins)
    turned = frechet_difference(a, a + 1, reference, groups, seed=0)
    assert turned.value == pytest.approx(-worse.value)
    assert turned.low == pytest.approx(-worse.high)


def test_one_prompt_has_no_interval() -> None:
    generator = np.random.default_rng(7)
    features, groups = generator.normal(size=(9, 3)), np.repeat("a", 9)
    interval = frechet_interval(features, gaussian_of(features), groups, seed=0)
    assert interval.value == pytest.approx(0, abs=1e-9)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_frechet_refuses_what_does_not_fit() -> None:
    features = np.zeros((6, 2))
    with pytest.raises(BenchError, match="one prompt id per row"):
        frechet_interval(features, gaussian_of(features), np.zeros(5), seed=0)
    with pytest.raises(BenchError, match="equal features"):
        frechet_distance(gaussian_of(features), gaussian_of(np.zeros((6, 3))))


# means and paired differences


def test_a_mean_without_skewness_has_the_t_interval_of_prompt_means() -> None:
    half = np.random.default_rng(8).normal(size=30)
    values, groups = np.concatenate([half, -half]), prompts_of(30)
    means = values.reshape(30, 2).mean(1)
    means = np.concatenate([means[:15], -means[:15]])
    values = means.repeat(2)
    low, high = stats.t.interval(0.95, 29, means.mean(), stats.sem(means))
    assert mean_interval(values, groups) == pytest.approx((means.mean(), low, high, 60))


def test_mean_interval_skips_what_is_missing() -> None:
    groups = prompts_of(3)
    interval = mean_interval(np.array([1, np.nan, 2, 2, 3, 3]), groups)
    assert interval.value == pytest.approx(11 / 5)
    assert interval.n == 5
    assert interval.low < interval.value < interval.high
    nothing = mean_interval(np.full(6, np.nan), groups)
    assert nothing.n == 0
    assert math.isnan(nothing.value)
    one = mean_interval(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert one.value == 1.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_images_of_one_prompt_are_not_independent() -> None:
    """Repeating every image tells nothing new: the interval must not shrink."""
    values = np.random.default_rng(9).normal(size=40)
    once = mean_interval(values, prompts_of(40, 1))
    twice = mean_interval(np.repeat(values, 2), prompts_of(40, 2))
    assert twice[:3] == pytest.approx(once[:3])


def test_paired_difference_by_hand() -> None:
    a, b = np.array([3.0, 1.0, 2.0, 2.0]), np.array([1.0, 1.0, 4.0, 0.0])
    difference = paired_difference(a, b, np.array(["p", "q", "r", "s"]), seed=0)
    assert difference.value == pytest.approx(0.5)
    assert difference.wins == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    # Sums of +-2 +-2 +-2 are as far from 0 as |2| always: every flip is as extreme.
    assert difference.p_value == 1
    assert difference.low <= 0.5 <= difference.high
    assert difference.n == 4


def test_equal_students_do_not_differ() -> None:
    values = np.random.default_rng(10).normal(size=20)
    difference = paired_difference(values, values, prompts_of(10), seed=0)
    assert difference[:6] == (0, 0, 0, 1, 20, 0.5)
    assert 0 < difference.wins_low < 0.5 < difference.wins_high < 1


def test_paired_difference_turns_with_its_arguments() -> None:
    a, b = np.random.default_rng(11).normal(size=(2, 40))
    groups = prompts_of(20)
    here, there = (paired_difference(x, y, groups, seed=5) for x, y in ((a, b), (b, a)))
    assert (there.value, there.p_value) == pytest.approx((-here.value, here.p_value))
    assert (there.low, there.high) == pytest.approx((-here.high, -here.low))
    assert there.wins == pytest.approx(1 - here.wins)


def test_a_pair_with_a_missing_value_is_skipped() -> None:
    a, b = np.array([1.0, np.nan, 3.0, 4.0]), np.array([0.0, 0.0, np.nan, 2.0])
    difference = paired_difference(a, b, np.array(["p", "p", "q", "r"]), seed=0)
    assert difference.value == pytest.approx(1.5)
    assert difference.n == 2


def test_permutation_p_values_are_uniform_without_an_effect() -> None:
    generator, groups = np.random.default_rng(13), prompts_of(30)
    p_values = [
        paired_difference(*generator.normal(size=(2, 60)), groups, seed=k).p_value
        for k in range(120)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) < 0.05) < 0.12


def test_p_value_equals_the_exact_permutation_test() -> None:
    differences = np.random.default_rng(14).normal(0.5, 1, size=10)
    exact = stats.permutation_test(
        (differences, 0 * differences), lambda x, y: np.mean(x - y), permutation_type="samples"
    ).pvalue
    found = paired_difference(differences, 0 * differences, np.arange(10), seed=1).p_value
    assert found == pytest.approx(exact, abs=0.02)


def test_differences_need_the_same_images() -> None:
    with pytest.raises(BenchError, match="same images"):
        paired_difference(np.zeros(3), np.zeros(4), np.arange(3), seed=0)


def test_resamples_are_of_the_same_size_and_repeat_by_seed() -> None:
    counts, again, other = (next(prompt_counts(17, 50, seed)) for seed in (3, 3, 4))
    assert (counts.sum(1) == 17).all()
    assert (counts == again).all()
    assert (counts != other).any()


# Blocks, and many prompts


def plain_counts(num_prompts: int, num_resamples: int, seed: int) -> np.ndarray:
    """All resamples drawn at once."""
    drawn = np.random.default_rng([seed, 0]).integers(
        num_prompts, size=(num_resamples, num_prompts)
    )
    return np.stack([np.bincount(row, minlength=num_prompts) for row in drawn])


def plain_flips(sums: np.ndarray, seed: int) -> float:
    """p of the sign flips, all drawn at once."""
    size = (NUM_PERMUTATIONS, len(sums))
    drawn = np.random.default_rng([seed, 1]).integers(0, 2, size, dtype=np.int8)
    flipped = np.abs((drawn * 2.0 - 1) @ sums)
    as_extreme = np.sum(flipped >= abs(sums.sum()) - 1e-12 * np.abs(sums).sum())
    return float((1 + as_extreme) / (1 + NUM_PERMUTATIONS))


@pytest.mark.parametrize("block", [1, 37, 1_000, 2**20])
@pytest.mark.parametrize("num_prompts", [2, 17, 80])
def test_blocks_draw_the_same_numbers(
    block: int, num_prompts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "BLOCK", block)
    counts = np.concatenate(list(prompt_counts(num_prompts, 203, 5)))
    assert (counts == plain_counts(num_prompts, 203, 5)).all()
    generator = np.random.default_rng([5, 1])
    packed = np.concatenate(list(resampling._sign_bytes(num_prompts, generator, False)))
    signs = np.unpackbits(packed, axis=1)[:, :num_prompts]
    size = (NUM_PERMUTATIONS, num_prompts)
    whole = np.random.default_rng([5, 1]).integers(0, 2, size, dtype=np.int8)
    assert (signs == whole).all()


@pytest.mark.parametrize("num_prompts", [2, 80, 392, MANY_PROMPTS])
def test_a_difference_is_the_t_interval_with_the_flips_of_whole_matrices(num_prompts: int) -> None:
    generator = np.random.default_rng(num_prompts)
    a, b = generator.exponential(size=(2, 2 * num_prompts))
    found = paired_difference(a, b, prompts_of(num_prompts), seed=3)
    sums = (a - b).reshape(-1, 2).sum(1)
    expected = stats.ttest_1samp(sums / 2, 0).confidence_interval()
    assert found[1:3] == pytest.approx(tuple(expected), rel=1e-12)
    assert found.p_value == plain_flips(sums, 3)


def test_the_effective_number_by_hand() -> None:
    assert effective_number(np.array([2.0, -2.0, 2.0, 2.0])) == pytest.approx(4)
    assert effective_number(np.array([0.0, 1e-200, 0.0, -1e-200])) == pytest.approx(2)
    assert effective_number(np.zeros(5)) == 0
    normal = np.random.default_rng(0).normal(size=30_000)
    assert effective_number(normal) == pytest.approx(10_000, rel=0.1)


@pytest.mark.parametrize(("differing", "excess"), [(30, 12), (1_000, 60), (5_000, 30)])
def test_p_of_many_prompts_is_the_binomial_test_s(differing: int, excess: int) -> None:
    """Binary values: the flips of those that differ are coins."""
    values = np.zeros(6_001)
    values[:differing] = -1
    right = (differing + excess) // 2
    values[:right] = 1
    exact = stats.binomtest(right, differing).pvalue
    found = [
        paired_difference(values, 0 * values, np.arange(6_001), seed=k).p_value for k in range(4)
    ]
    assert np.mean(found) == pytest.approx(
        exact, abs=4 * math.sqrt(exact / (4 * NUM_PERMUTATIONS)) + 1e-4
    )


def test_p_of_many_prompts_is_uniform_without_an_effect_and_never_0() -> None:
    generator = np.random.default_rng(3)
    draws = generator.exponential(size=(120, 1_100)) * generator.choice([-1, 1], (120, 1_100))
    p_values = [resampling.sign_flip_p_value(sums, k) for k, sums in enumerate(draws)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert resampling.sign_flip_p_value(np.ones(20_000), 0) == 1 / (1 + NUM_PERMUTATIONS)


def test_memory_of_many_prompts_is_that_of_their_values() -> None:
    heavy = np.random.default_rng(4).standard_t(2, size=10_000)
    tracemalloc.start()
    paired_difference(heavy, 0 * heavy, np.arange(10_000), seed=0)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert peak < 20  # MiB; the flips at once are 95 as int8


# Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_does_not_count_what_is_missing() -> None:
    adjusted = holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert adjusted[2] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
