"""Limits of a further seed: how often they are wrong, and what they rest on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma
from scipy.stats import t as student_t

from benchmarks.gate import World, wrong
from ddmd_bench.reporting.seed_spreads import _trigamma_inverse, limit, scale_of, spreads_of

INDEPENDENT = np.random.default_rng(0).normal(size=(40, 8, 3))


@pytest.mark.parametrize(
    "world",
    [World("independent"), World("shared", shared=0.8), World("copies", groups=3)],
    ids=lambda world: world.name,
)
def test_nothing_changed_is_seldom_drift(world: World) -> None:
    """2 % are meant: 6 of 60 or more have a chance of 1 in 1,000. With limits from each student's
    own three seeds and the normal distribution it is a quarter of the suites."""
    assert wrong(world, 60, ())[0] <= 0.09


def test_a_loss_is_seen_where_seeds_move_all_students_alike() -> None:
    assert wrong(World("shared", shared=0.8), 20, (8.0,))[1] == [1.0]


def test_students_that_are_alike_know_one_another() -> None:
    """Equal spreads: nearly one for all, and degrees of freedom of all of them."""
    spreads = spreads_of(list(INDEPENDENT))
    own = np.array([s.own for s in spreads])
    assert own.std(1).max() < 0.35 * own.mean()
    assert own.mean() == pytest.approx(np.sqrt(7 / 8), rel=0.1)
    assert np.mean([s.own_df for s in spreads]) > 8
    assert {s.common_df for s in spreads} == {2}


def test_students_that_go_together_are_no_more_than_one() -> None:
    alike = [values[:1] * np.linspace(-1, 1, 8)[:, None] for values in INDEPENDENT]
    assert {s.own_df for s in spreads_of(alike)} == {2.0}


def test_spreads_that_differ_stay_apart() -> None:
    uneven = [values * np.geomspace(1, 100, 8)[:, None] for values in INDEPENDENT]
    found = spreads_of(uneven)
    assert np.median([s.own[7] / s.own[0] for s in found]) > 3
    assert max(s.own_df for s in found) < 2 + 2  # hardly more than a student's own
    assert [s.common for s in found] == pytest.approx([v.mean(0).std(ddof=1) for v in uneven])


def test_one_student_alone_has_its_own_degrees_of_freedom() -> None:
    (found,) = spreads_of([np.array([[1.0, 2.0, 4.0]])])
    assert found.own.tolist() == [pytest.approx(np.std([1, 2, 4], ddof=1))]
    assert found.own_df == 2
    half = limit(1.0, 2, 3, 0.05)
    assert half == pytest.approx(student_t.ppf(0.975, 2) * np.sqrt(4 / 3))


def test_the_inverse_of_the_trigamma_function() -> None:
    for x in (0.01, 0.5, 1.0, 7.3, 400.0):
        assert _trigamma_inverse(float(polygamma(1, x))) == pytest.approx(x)


def test_scales_go_there_and_back() -> None:
    for metric in ("prompt_accuracy", "frechet_attributes", "mean", "no_longer_known"):
        scale = scale_of(metric)
        for value in (0.01, 0.3, 0.98):
            assert float(scale.back(scale.to(value))) == pytest.approx(value)
    share = scale_of("prompt_accuracy")
    assert float(share.back(share.to(0.99) + 0.5)) == 1.0  # not beyond, and not back again
