"""Distances in many features: closed forms, identities, and intervals that hold what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import METRICS, SCORERS
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import (
    Gaussian,
    RealFeatures,
    _bootstrap,
    frechet_difference,
    frechet_distance,
    frechet_interval,
    gaussian_of,
)
from ddmd_bench.stats.frechet_infinity import infinity_interval, infinity_value
from ddmd_bench.stats.frechet_many import joint, joint_difference, many_interval
from ddmd_bench.stats.frechet_wide import wide_distance, wide_estimate, wide_interval
from ddmd_bench.stats.influence import estimate_difference, estimate_interval
from ddmd_bench.stats.intervals import Interval, PairedDifference
from ddmd_bench.stats.kernel import gaussian_estimate, kernel_estimate
from ddmd_bench.stats.manifold import (
    coverage_estimate,
    density_values,
    precision_values,
    recall_estimate,
)
from ddmd_bench.stats.moments import factored, gaussian_of_parts
from ddmd_bench.stats.resampling import MANY_PROMPTS

Features = NDArray[np.float64]


def normal(n: int, d: int, seed: int = 0, **kwargs: float) -> Features:
    return np.random.default_rng(seed).normal(size=(n, d), **kwargs)


def prompts_of(num_prompts: int, per_prompt: int = 2) -> NDArray[np.int64]:
    return np.repeat(np.arange(num_prompts), per_prompt)


def reference_of(features: Features) -> RealFeatures:
    return RealFeatures(features, np.arange(len(features)), factored(gaussian_of(features)))


# Streaming


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    features = normal(1_000, 12) * np.arange(1, 13) + 1e4  # far from 0, as no feature is
    at_once = gaussian_of(features)
    streamed = gaussian_of_parts(np.split(features.astype(np.float32), [1, 2, 400, 999]))
    np.testing.assert_allclose(streamed.mean, at_once.mean, rtol=1e-6)
    streamed = gaussian_of_parts(np.split(features, [1, 2, 400, 999]))
    np.testing.assert_allclose(streamed.mean, at_once.mean, rtol=1e-12)
    np.testing.assert_allclose(streamed.cov, at_once.cov, rtol=1e-9, atol=1e-9)


# Fréchet distance


@pytest.mark.parametrize("n", [10, 40, 41, 200])
def test_either_form_of_the_wide_distance_is_the_plain_one(n: int) -> None:
    real, features = normal(300, 40, seed=1), normal(n, 40, seed=2) * 1.3 + 0.2
    expected = frechet_distance(gaussian_of(real), gaussian_of(features))
    # Without full rank the plain form adds up the roots of what rounding makes of zeros.
    tolerance = 1e-9 if n > 40 else 1e-7
    found = wide_distance(factored(gaussian_of(real)), features)
    assert found == pytest.approx(expected, rel=tolerance)


def test_the_wide_distance_of_known_gaussians() -> None:
    a, b = np.array([1.0, 4.0, 9.0, 0.25]), np.array([4.0, 4.0, 1.0, 1.0])
    mean = np.array([0.0, 1.0, -2.0, 0.5])
    # +-sqrt(n / 2) along each axis has exactly the mean 0 and a diagonal covariance.
    points = np.concatenate([np.eye(4), -np.eye(4)]) * np.sqrt(7 / 2 * b)
    real = factored(Gaussian(mean, np.diag(a)))
    expected = mean @ mean + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert wide_distance(real, points) == pytest.approx(expected, rel=1e-12)


def test_equal_sets_have_distance_0_and_a_shift_adds_its_square() -> None:
    for n in (30, 200):
        features = normal(n, 50)
        real = factored(gaussian_of(features))
        shift = np.linspace(-1, 1, 50)
        assert wide_distance(real, features) == pytest.approx(0, abs=1e-6)
        assert wide_distance(real, features + shift) == pytest.approx(shift @ shift, rel=1e-6)


def weighted_distance(real: Gaussian, features: Features, weights: Features) -> float:
    """The distance to a population in which image i has the share weights[i] of n, plainly."""
    n = len(features)
    mean = weights @ features / n
    centred = features - mean
    return frechet_distance(real, Gaussian(mean, (centred.T * weights) @ centred / (n - 1)))


@pytest.mark.parametrize("n", [12, 60])  # below and above the number of features
def test_influences_are_the_derivative_of_the_distance(n: int) -> None:
    d = 20
    features, real = normal(n, d, seed=1) * 1.5, gaussian_of(normal(100, d))
    estimate = wide_estimate(factored(real), features)
    assert estimate.value == pytest.approx(wide_distance(factored(real), features), rel=1e-9)
    step = 1e-3
    slopes = []
    for k in range(n):
        # Towards image k, away from all: the weights still add up to n.
        towards = n * step * (np.eye(n)[k] - 1 / n)
        above, below = (weighted_distance(real, features, 1 + s * towards) for s in (1, -1))
        slopes.append((above - below) / (2 * step))
    # The covariance divides by n - 1, so that its part counts n / (n - 1) times.
    gap = features.mean(0) - real.mean
    of_mean = 2 * (features - features.mean(0)) @ gap
    of_cov = estimate.influence - of_mean
    expected = of_mean + (of_cov - of_cov.mean()) * n / (n - 1)
    np.testing.assert_allclose(slopes, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("n", [30, 400])  # below and above the number of features
def test_the_order_of_images_does_not_matter(n: int) -> None:
    features, groups = normal(n, 40, seed=2) + 0.1, prompts_of(n // 2)
    order = np.random.default_rng(0).permutation(n)
    reference = reference_of(normal(300, 40))
    for name in (
        "frechet_wide",
        "kernel",
        "gaussian_kernel",
        "precision",
        "recall",
        "density",
        "coverage",
    ):
        row = DISTANCES[name]
        here = row.interval(features, reference, groups, 5)
        there = row.interval(features[order], reference, groups[order], 5)
        assert here == pytest.approx(there, rel=1e-9), name
        assert row.value(features, reference) == pytest.approx(here.value, rel=1e-9)


def correlated(seed: int, num_prompts: int, d: int) -> Features:
    """Two images a prompt, which share half of their variance."""
    generator = np.random.default_rng(seed)
    shared = np.repeat(generator.normal(size=(num_prompts, d)), 2, axis=0)
    return (shared + generator.normal(size=shared.shape)) * np.linspace(0.5, 2, d) + 0.3


def test_the_interval_of_influences_agrees_with_the_bootstrap() -> None:
    gaussian, groups = gaussian_of(normal(2_000, 3)), prompts_of(50)
    real = factored(gaussian)
    features, other = correlated(1, 50, 3), correlated(2, 50, 3) * 1.1
    estimates = [wide_estimate(real, f) for f in (features, other)]
    interval = estimate_interval(estimates[0], groups)
    drawn = _bootstrap([features, other], gaussian, groups, 0, 400)
    assert interval.high - interval.value == pytest.approx(1.96 * drawn[0].std(), rel=0.1)
    assert wide_interval(real, features, groups) == interval
    difference = estimate_difference(*estimates, groups)
    half = difference.high - difference.value
    assert half == pytest.approx(1.96 * (drawn[0] - drawn[1]).std(), rel=0.1)
    drawn_from = RealFeatures(np.empty((0, 3)), np.empty(0), real)
    row = DISTANCES["frechet_wide"]
    assert row.difference(features, other, drawn_from, groups, 0, True) == difference
    # Images of a prompt are alike: as many independent ones would know more.
    alone = estimate_interval(estimates[0], np.arange(100))
    assert alone.high - alone.low < 0.9 * (interval.high - interval.low)


@pytest.mark.parametrize("num_prompts", [15, 200])  # fewer images than features, and more
def test_intervals_cover_the_spread_over_prompts(num_prompts: int) -> None:
    real, groups = factored(gaussian_of(normal(2_000, 40))), prompts_of(num_prompts)
    draws = [correlated(k, num_prompts, 40) for k in range(200)]
    found = [wide_interval(real, features, groups) for features in draws]
    values = np.array([interval.value for interval in found])
    covered = np.mean([i.low <= values.mean() <= i.high for i in found])
    assert 0.9 <= covered <= 0.995
    half = np.mean([i.high - i.value for i in found])
    t_quantile = 2.14 if num_prompts == 15 else 1.97
    assert half / t_quantile == pytest.approx(values.std(), rel=0.25)


@pytest.mark.parametrize("n", [30, 200])
def test_a_paired_difference_of_equals_is_nothing(n: int) -> None:
    reference, groups = reference_of(normal(300, 40)), prompts_of(n // 2)
    features = normal(n, 40, seed=1)
    for name, row in DISTANCES.items():
        if n < row.fewest(40):
            continue
        same = row.difference(features, features, reference, groups, 0, True)
        assert (same.value, same.p_value) == (0, 1), name
        # Of yes-or-no answers that tie on every prompt others may not: a limit, not a point.
        assert -0.5 < same.low == -same.high <= 0, name
        assert same.low == 0 or name in ("precision", "recall", "coverage"), name
        assert same.low < 0 or name != "precision"
        other = normal(n, 40, seed=2) * 2 + 1
        there = row.difference(features, other, reference, groups, 0, True)
        back = row.difference(other, features, reference, groups, 0, True)
        assert there.value == pytest.approx(-back.value)
        expected = row.value(features, reference) - row.value(other, reference)
        assert there.value == pytest.approx(expected), name
        assert there.low <= there.value <= there.high
        alone = row.difference(features, other, reference, groups, 0, False)
        assert alone.value == pytest.approx(there.value)
        assert math.isnan(alone.low)


def test_paired_differences_see_what_single_intervals_do_not() -> None:
    reference, groups = reference_of(normal(1_000, 10)), prompts_of(150)
    a = correlated(0, 150, 10)
    b = a + 0.02 * normal(300, 10, seed=9) + 0.05
    for name in ("frechet_wide", "kernel", "gaussian_kernel"):
        row = DISTANCES[name]
        paired = row.difference(a, b, reference, groups, 0, True)
        single = row.interval(a, reference, groups, 0)
        assert paired.high - paired.low < 0.5 * (single.high - single.low), name
        assert paired.high < 0  # b is further away
        assert paired.p_value < 0.01


def test_one_prompt_has_no_interval() -> None:
    reference, groups = reference_of(normal(100, 5)), np.zeros(40)
    for row in DISTANCES.values():
        found = row.interval(normal(40, 5), reference, groups, 0)
        assert math.isnan(found.low)
        assert math.isfinite(found.value)


# Many prompts


class Drawn:
    """Real images, three a prompt, and those of two students, two a prompt, of shared contents."""

    def __init__(self, seed: int, num_prompts: int, d: int = 4) -> None:
        generator = np.random.default_rng(seed)
        # Contents are skewed, as features behind a ReLU are.
        contents = generator.exponential(size=(num_prompts, d))

        def images(num: int, noise: float) -> Features:
            rows = np.repeat(contents, num, axis=0)
            return rows + noise * generator.normal(size=rows.shape)

        self.groups = prompts_of(num_prompts)
        self.real = RealFeatures(images(3, 0.5), prompts_of(num_prompts, 3))
        self.a, self.b = images(2, 0.9), 1.1 * images(2, 0.7)


@pytest.mark.parametrize("fixed", [False, True])
def test_influences_of_many_prompts_agree_with_the_bootstrap(fixed: bool) -> None:
    """Half widths within the Monte Carlo error of 200 resamples, about a tenth."""
    ratios = []
    for seed in range(4):
        drawn = Drawn(seed, 300)
        gaussian = gaussian_of(drawn.real.features)
        real = drawn.real._replace(fixed=factored(gaussian) if fixed else None)
        reference = gaussian if fixed else real
        of_a = many_interval(real, drawn.a, drawn.groups)
        resampled = frechet_interval(drawn.a, reference, drawn.groups, seed=seed)
        difference = difference_of(drawn, real)
        expected = frechet_difference(drawn.a, drawn.b, reference, drawn.groups, seed=seed)
        assert (of_a.value, of_a.n) == (resampled.value, resampled.n)
        assert (difference.value, difference.n) == (expected.value, expected.n)
        ratios.append([width(of_a) / width(resampled), width(difference) / width(expected)])
    assert np.mean(ratios, axis=0) == pytest.approx([1, 1], abs=0.1)


def difference_of(drawn: Drawn, real: RealFeatures) -> PairedDifference:
    return joint_difference(*(joint(real, x, drawn.groups) for x in (drawn.a, drawn.b)))


def width(interval: Interval | PairedDifference) -> float:
    return interval.high - interval.low


def test_intervals_of_many_prompts_cover_as_the_bootstrap_s_do() -> None:
    """The truth is the mean of the distance over fresh sets of prompts."""
    sets = [Drawn(k, 300) for k in range(300)]
    found = [many_interval(s.real, s.a, s.groups) for s in sets]
    pairs = [difference_of(s, s.real) for s in sets]
    truth, gap = (np.mean([i.value for i in these]) for these in (found, pairs))
    covered = [[i.low <= truth <= i.high for i in found], [i.low <= gap <= i.high for i in pairs]]
    assert np.mean(covered, axis=1) == pytest.approx([0.95, 0.95], abs=0.035)
    few = [frechet_interval(s.a, s.real, s.groups, seed=k) for k, s in enumerate(sets[:60])]
    resampled = [i.low <= truth <= i.high for i in few]
    assert np.mean(covered[0][:60]) >= np.mean(resampled) - 0.05


def test_the_real_images_of_a_prompt_are_drawn_with_it() -> None:
    """They share its contents: together the distance varies less than against a fixed reference."""
    drawn = Drawn(0, 500)
    joint = many_interval(drawn.real, drawn.a, drawn.groups)
    gaussian = factored(gaussian_of(drawn.real.features))
    alone = many_interval(drawn.real._replace(fixed=gaussian), drawn.a, drawn.groups)
    assert joint.value == alone.value
    assert width(joint) < 0.8 * width(alone)


def test_a_row_of_many_prompts_takes_the_influences() -> None:
    row = DISTANCES["frechet"]
    for num_prompts, many in ((MANY_PROMPTS, False), (MANY_PROMPTS + 1, True)):
        drawn = Drawn(1, num_prompts, 2)
        of_a, seeds = (drawn.a, drawn.real, drawn.groups), (0, 1)
        # What is not drawn depends on no seed.
        assert (len({row.interval(*of_a, seed) for seed in seeds}) == 1) == many
        pairs = [
            row.difference(drawn.a, drawn.b, drawn.real, drawn.groups, seed, True)[:4]
            for seed in seeds
        ]
        assert (pairs[0] == pairs[1]) == many
        alone = row.difference(drawn.a, drawn.b, drawn.real, drawn.groups, 0, False)
        assert math.isnan(alone.low)
        assert alone.value == pairs[0][0]


def test_many_prompts_of_another_reference_are_refused() -> None:
    drawn = Drawn(2, 20)
    with pytest.raises(BenchError, match="it has 20, they have 10, 10 are in both"):
        many_interval(drawn.real, drawn.a[:20], drawn.groups[:20])


# Extrapolation


def test_the_extrapolated_distance_loses_the_bias() -> None:
    d, real = 20, factored(Gaussian(np.zeros(20), np.eye(20)))
    draws = [normal(300, d, seed=k) for k in range(40)]  # truly at distance 0
    plain = np.mean([wide_distance(real, features) for features in draws])
    extrapolated = [infinity_value(real, features) for features in draws]
    error = np.std(extrapolated) / math.sqrt(40)
    assert plain > 0.4
    assert abs(np.mean(extrapolated)) < 3 * error + 0.02 * plain
    found = [infinity_interval(real, f + 0.5, prompts_of(150)) for f in draws]
    covered = np.mean([i.low <= 0.25 * d <= i.high for i in found])
    assert covered >= 0.85


# Kernel distance


def test_the_kernel_distance_is_unbiased() -> None:
    same = [kernel_estimate(normal(60, 8, k), normal(50, 8, 1_000 + k)).value for k in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(300)
    assert min(same) < 0 < max(same)


def test_the_kernel_distance_of_two_points_each() -> None:
    # By hand: d = 1, k(x, y) = (xy + 1)^3; x = {0, 1}, y = {1, 2}.
    own, real, cross = 1, 27, (1 + 1 + 8 + 27) / 4
    found = kernel_estimate(np.array([[1.0], [2.0]]), np.array([[0.0], [1.0]])).value
    assert found == pytest.approx(own + real - 2 * cross)


def test_the_kernel_interval_covers() -> None:
    real, groups = normal(200, 5), prompts_of(60)
    draws = [correlated(k, 60, 5) for k in range(120)]
    found = [estimate_interval(kernel_estimate(real, f), groups) for f in draws]
    truth = np.mean([i.value for i in found])
    covered = np.mean([i.low <= truth <= i.high for i in found])
    assert covered >= 0.85


def test_cmmds_kernel_is_the_published_formula() -> None:
    """Restated from google-research/cmmd: means of kernel matrices, an image with itself too."""
    generator = np.random.default_rng(4)
    x, y = (generator.normal(size=(n, 12)) for n in (40, 60))
    x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x + 0.3, y))

    def mean_of(a: Features, b: Features) -> float:
        return float(np.exp(-cdist(a, b, "sqeuclidean") / (2 * 10**2)).mean())

    expected = mean_of(x, x) + mean_of(y, y) - 2 * mean_of(x, y)
    assert gaussian_estimate(y, x).value == pytest.approx(expected, rel=1e-9)
    assert gaussian_estimate(x, x).value == pytest.approx(0.0, abs=1e-12)
    # Two points at distance 5.
    one, other = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
    found = gaussian_estimate(one, other).value
    assert found == pytest.approx(2 - 2 * math.exp(-25 / 200))


def test_cmmds_interval_covers() -> None:
    real, groups = normal(200, 5) + 1, prompts_of(60)
    draws = [correlated(k, 60, 5) for k in range(120)]
    found = [estimate_interval(gaussian_estimate(real, f), groups) for f in draws]
    truth = np.mean([i.value for i in found])
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.9


# Manifolds


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, features = normal(90, 6), normal(70, 6, 1)
    reference, groups = RealFeatures(real, np.arange(90)), prompts_of(35)
    names = ("kernel", "gaussian_kernel", "precision", "recall", "density", "coverage")
    whole = [DISTANCES[n].interval(features, reference, groups, 0) for n in names]
    monkeypatch.setattr("ddmd_bench.stats.kernel.BLOCK", 16)
    monkeypatch.setattr("ddmd_bench.stats.manifold.BLOCK", 16)
    parts = [DISTANCES[n].interval(features, reference, groups, 0) for n in names]
    assert np.array(parts) == pytest.approx(np.array(whole), rel=1e-9)


def test_equal_sets_have_all_and_disjoint_ones_nothing() -> None:
    real, groups = normal(80, 5), prompts_of(40)
    assert precision_values(real, real).mean() == 1
    assert recall_estimate(real, real, groups).value == 1
    assert coverage_estimate(real, real, groups).value == 1
    assert density_values(real, real).mean() == 1
    far = real + 100
    assert precision_values(real, far).mean() == 0
    assert recall_estimate(real, far, groups).value == 0
    assert coverage_estimate(real, far, groups).value == 0
    assert density_values(real, far).mean() == 0


def test_a_collapsed_student_is_precise_and_recalls_little() -> None:
    real, groups = normal(300, 4), prompts_of(150)
    collapsed = 0.05 * normal(300, 4, 1)
    assert precision_values(real, collapsed).mean() == 1
    assert recall_estimate(real, collapsed, groups).value < 0.05
    assert density_values(real, collapsed).mean() > 1
    wide = 4 * normal(300, 4, 2)
    assert precision_values(real, wide).mean() < 0.3
    assert recall_estimate(real, wide, groups).value > 0.9


def test_manifolds_on_a_line() -> None:
    real = np.arange(6.0)[:, None]  # radii at k = 3: 3, 2, 2, 2, 2, 3; at k = 5: 5, 4, 3, 3, 4, 5
    features = np.array([[-3.0], [2.0], [8.5], [2.5], [3.0], [2.2]])
    assert list(precision_values(real, features)) == [1, 1, 0, 1, 1, 1]  # -3 lies on an edge
    inside = [
        [abs(x - r) < e for r, e in zip(range(6), (5, 4, 3, 3, 4, 5), strict=True)]
        for x in features[:, 0]
    ]
    assert list(density_values(real, features) * 5) == [sum(row) for row in inside]
    # Radii of the features at k = 3: 5.2, 0.8, 6, 0.5, 1, 0.8
    assert recall_estimate(real, features, np.arange(6)).value == 1
    near = np.array([[2.0], [2.1], [2.2], [2.3], [2.4], [2.5]])
    assert recall_estimate(real, near, np.arange(6)).value == pytest.approx(1 / 6)
    assert coverage_estimate(real, near, np.arange(6)).value == 1


def test_influences_of_coverage_are_the_jackknife() -> None:
    real, features, groups = normal(60, 3), 0.5 * normal(30, 3, 1), prompts_of(15)
    estimate = coverage_estimate(real, features, groups)
    without = [
        coverage_estimate(real, features[groups != g], groups[groups != g]).value for g in range(15)
    ]
    variance = 14 / 15 * np.square(without - np.mean(without)).sum()
    from scipy.stats import t as student_t

    interval = estimate_interval(estimate, groups)
    half = student_t.ppf(0.975, 14) * math.sqrt(variance)
    assert interval.high - interval.value == pytest.approx(half)


@pytest.mark.parametrize("name", ["precision", "recall", "density", "coverage"])
def test_intervals_of_manifolds_cover(name: str) -> None:
    reference, groups = RealFeatures(normal(150, 3), np.arange(150)), prompts_of(60)
    draws = [correlated(k, 60, 3) for k in range(120)]
    found = [DISTANCES[name].interval(features, reference, groups, 0) for features in draws]
    truth = np.mean([i.value for i in found])
    assert np.mean([i.low <= truth <= i.high for i in found]) >= 0.88


def test_every_metric_between_distributions_names_its_distance() -> None:
    rows = {name: row for name, row in METRICS.items() if row.kind == "distribution"}
    assert {row.distance for row in rows.values()} == set(DISTANCES)
    assert all(SCORERS[row.extractor or ""].num_features for row in rows.values())
    assert not [n for n, row in METRICS.items() if row.distance and n not in rows]
