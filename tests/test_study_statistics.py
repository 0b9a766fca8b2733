"""What is computed of people's answers: known strengths, closed forms, coverage, other packages."""

from __future__ import annotations

import math
from itertools import permutations

import choix
import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from ddmd_bench.stats.choices import strengths_of
from ddmd_bench.stats.ends import LEAST_P, Array, t_quantile
from ddmd_bench.stats.rater_agreement import alpha_interval, kendall_w, krippendorff_alpha
from ddmd_bench.stats.raters import (
    Judges,
    independent_answers,
    judged_mean,
    judged_share,
    p_value,
    spread_of,
)

STRENGTHS = np.array([0.9, 0.2, -0.3, -0.8])


def rankings(n: int, strengths: Array, generator: np.random.Generator) -> Array:
    """Plackett and Luce's: the order of strengths with Gumbel noise."""
    noisy = strengths + generator.gumbel(size=(n, len(strengths)))
    return (-noisy).argsort(axis=1).argsort(axis=1) + 1.0


def test_strengths_are_those_of_another_package() -> None:
    generator = np.random.default_rng(0)
    ranks = rankings(300, STRENGTHS, generator)
    orders = [tuple(map(int, row.argsort())) for row in ranks]
    expected = choix.opt_rankings(4, orders)
    assert strengths_of(ranks).values == pytest.approx(expected - expected.mean(), abs=1e-5)
    pairs = [(0, 1)] * 30 + [(1, 0)] * 12 + [(1, 2)] * 20 + [(2, 1)] * 15 + [(2, 0)] * 5
    of_pairs = np.full((len(pairs), 3), np.nan)
    for row, (winner, loser) in zip(of_pairs, pairs, strict=True):
        row[winner], row[loser] = 1, 2
    expected = choix.opt_pairwise(3, pairs)
    assert strengths_of(of_pairs).values == pytest.approx(expected - expected.mean(), abs=1e-5)


def test_strength_of_two_is_the_log_odds_and_a_tie_is_a_half() -> None:
    ranks = np.array([[1.0, 2.0]] * 30 + [[2.0, 1.0]] * 10)
    assert np.ptp(strengths_of(ranks).values) == pytest.approx(math.log(3), abs=1e-9)
    tied = np.concatenate([ranks, np.full((20, 2), 1.5)])
    assert np.ptp(strengths_of(tied).values) == pytest.approx(math.log(40 / 20), abs=1e-9)
    # Of three that are all equal nobody is stronger.
    assert strengths_of(np.full((5, 3), 2.0)).values == pytest.approx(np.zeros(3), abs=1e-12)


def test_no_strength_is_made_up_of_one_who_always_wins() -> None:
    found = strengths_of(np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]))
    assert np.isnan(found.values).all()
    assert "always ranked above" in found.missing


@given(st.permutations(range(4)), st.integers(0, 99))
def test_strengths_do_not_depend_on_who_is_named_first(order: list[int], seed: int) -> None:
    ranks = rankings(60, STRENGTHS / 2, np.random.default_rng(seed))
    found, turned = strengths_of(ranks), strengths_of(ranks[:, order])
    assert turned.missing == found.missing
    if not found.missing:
        assert turned.values == pytest.approx(found.values[order], abs=1e-7)
        assert turned.influence == pytest.approx(found.influence[:, order], abs=1e-6)


def test_the_influence_of_a_ranking_is_what_leaving_it_out_shows() -> None:
    ranks = rankings(400, STRENGTHS, np.random.default_rng(3))
    whole = strengths_of(ranks)
    for row in (0, 7, 100):
        left = strengths_of(np.delete(ranks, row, axis=0)).values
        moved = (whole.values - left) * len(ranks)
        assert moved == pytest.approx(whole.influence[row], rel=0.02, abs=0.02)
    assert whole.influence.mean(axis=0) == pytest.approx(np.zeros(4), abs=1e-8)


def test_alpha_is_that_of_another_package() -> None:
    generator = np.random.default_rng(1)
    for _ in range(20):
        values = generator.integers(1, 4, (12, 5)).astype(np.float64)
        values[generator.random(values.shape) < 0.3] = np.nan
        expected = krippendorff.alpha(values.T, level_of_measurement="ordinal")
        assert krippendorff_alpha(values) == pytest.approx(expected, abs=1e-10)
    assert krippendorff_alpha(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])) == 1
    assert math.isnan(krippendorff_alpha(np.array([[1.0, np.nan], [2.0, np.nan]])))


def test_alphas_interval_covers_and_is_the_jackknifes() -> None:
    """Over sets of three images that five people rank, as far as they agree; truth by many sets."""
    generator = np.random.default_rng(7)

    def drawn(num: int, agree: float) -> tuple[Array, NDArray[np.int64]]:
        worth = agree * generator.normal(size=(num, 1, 3)) + generator.gumbel(size=(num, 5, 3))
        ranks = (-worth).argsort(axis=2).argsort(axis=2) + 1.0
        return ranks.transpose(0, 2, 1).reshape(-1, 5), np.repeat(np.arange(num), 3)

    values, groups = drawn(12, 1.0)
    value, low, high, n = alpha_interval(values, groups)
    left = [krippendorff_alpha(values[groups != group]) for group in range(12)]
    spread = np.var(left) * 11
    assert (value, n) == (pytest.approx(krippendorff_alpha(values)), 12)
    assert high - low == pytest.approx(2 * t_quantile(12) * math.sqrt(spread))
    for agree in (0.0, 0.7, 1.5):
        truth = krippendorff_alpha(drawn(20_000, agree)[0])
        found = [alpha_interval(*drawn(40, agree)) for _ in range(300)]
        covered = np.mean([one.low <= truth <= one.high for one in found])
        assert 0.92 <= covered <= 0.98, (agree, covered)
    alone = alpha_interval(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([0, 0]))
    assert math.isnan(alone.low)


def test_w_is_1_of_one_order_and_0_of_all_orders() -> None:
    assert kendall_w(np.array([[1.0, 2.0, 3.0]] * 4)) == 1
    every = np.array([*permutations([1.0, 2.0, 3.0])])
    assert kendall_w(every) == pytest.approx(0)
    # Kendall and Gibbons' correction: all agree on a tie.
    assert kendall_w(np.array([[1.0, 2.5, 2.5]] * 3)) == pytest.approx(1)
    assert math.isnan(kendall_w(np.array([[1.0, 2.0]])))


def test_without_repeated_people_or_prompts_a_share_is_the_binomial_one() -> None:
    """Each answer by a person of their own on a prompt of its own: nothing but n counts."""
    values = np.repeat([1.0, 0.0], [299, 201])
    judges = Judges.of(np.arange(500), np.arange(500))
    assert independent_answers(values, judges) == pytest.approx(500, rel=0.005)
    value, low, high, n = judged_share(values, judges)
    assert (value, n) == (0.598, 500)
    half = norm.isf(0.025) * math.sqrt(0.598 * 0.402 / 500)
    assert (low, high) == pytest.approx((0.598 - half, 0.598 + half), abs=0.002)
    expected = 2 * norm.sf(0.098 / math.sqrt(0.598 * 0.402 / 500))
    assert p_value(0.098, 0.598 - values, judges) == pytest.approx(expected, rel=0.3)


def test_people_who_always_answer_alike_count_once() -> None:
    values = np.repeat([1.0, 0.0, 1.0, 1.0], 50)  # four people, fifty prompts each
    judges = Judges.of(np.tile(np.arange(50), 4), np.repeat(np.arange(4), 50))
    assert independent_answers(values, judges) < 4
    assert judged_share(values, judges).low < 0.3


def test_all_of_one_mind_has_a_one_sided_limit() -> None:
    people = np.arange(15)
    value, low, high, _ = judged_share(np.ones(15), Judges.of(people, np.zeros(15)))
    assert (value, high) == (1, 1)
    assert low == pytest.approx(0.025 ** (1 / 15))


def test_a_pair_of_one_mind_has_the_sign_test_over_prompts() -> None:
    """It is below 5 % where the one-sided limit leaves out a half, from six prompts on."""
    for num in (1, 2, 5, 6, 15, 300):
        judges = Judges.of(np.arange(num), np.zeros(num))
        found = p_value(0.5, np.zeros(num), judges)
        assert found == pytest.approx(max(binomtest(num, num).pvalue, LEAST_P), rel=1e-12)
        assert (found < 0.05) == (judged_share(np.ones(num), judges).low > 0.5)
        assert p_value(0.0, np.zeros(num), judges) == 1


def test_people_who_differ_alike_on_every_prompt_still_vary() -> None:
    """Three of four people for one side on each of 50 prompts: nothing varies but the people."""
    judges = Judges.of(np.tile(np.arange(50), 4), np.repeat(np.arange(4), 50))
    influence = np.repeat([0.25, 0.25, 0.25, -0.75], 50)
    assert p_value(0.25, influence, judges) > 0.3


COVERED = [
    # prompts, people, seen by, sd of people, sd of prompts (on the scale of log-odds)
    (500, 10, 1, 0.0, 0.0),
    (200, 10, 3, 0.0, 0.8),
    (200, 10, 3, 0.4, 0.8),
    (100, 30, 5, 0.6, 0.5),
]


@pytest.mark.parametrize(
    ("num_prompts", "num_people", "seen_by", "of_people", "of_prompts"), COVERED
)
def test_intervals_cover_what_they_say(
    num_prompts: int, num_people: int, seen_by: int, of_people: float, of_prompts: float
) -> None:
    """Shares and ranks of two students, people and prompts drawn anew each time."""
    generator = np.random.default_rng(11)
    prompts = np.repeat(np.arange(num_prompts), seen_by)
    people = np.arange(num_prompts * seen_by) % num_people
    judges = Judges.of(prompts, people)
    # The mean over all people and prompts.
    drawn = 0.4 + math.hypot(of_people, of_prompts) * generator.normal(size=1_000_000)
    truth = float(np.mean(1 / (1 + np.exp(-drawn))))
    covered, num_runs = np.zeros(2), 600
    for _ in range(num_runs):
        odds = 0.4 + of_people * generator.normal(size=num_people)[people]
        odds = odds + of_prompts * generator.normal(size=num_prompts)[prompts]
        won = (generator.random(len(prompts)) < 1 / (1 + np.exp(-odds))).astype(np.float64)
        share, rank = judged_share(won, judges), judged_mean(2 - won, judges)
        covered += [share.low <= truth <= share.high, rank.low <= 2 - truth <= rank.high]
    assert (covered / num_runs >= 0.925).all(), covered / num_runs
    assert (covered / num_runs <= 0.985).all(), covered / num_runs


DESIGNS = [(200, 10, 1), (500, 10, 1), (200, 10, 3), (100, 30, 5), (60, 4, 1)]


@pytest.mark.parametrize(("num_prompts", "num_people", "seen_by"), DESIGNS)
def test_intervals_of_strengths_cover_the_strengths(
    num_prompts: int, num_people: int, seen_by: int
) -> None:
    """Of four students; a little wide: the spread by people is never taken to be below 0."""
    generator = np.random.default_rng(77)
    people = np.arange(num_prompts * seen_by) % num_people
    judges = Judges.of(np.repeat(np.arange(num_prompts), seen_by), people)
    covered, num_runs = np.zeros(4), 300
    for _ in range(num_runs):
        found = strengths_of(rankings(num_prompts * seen_by, STRENGTHS, generator))
        for k in range(4):
            half = spread_of(found.influence[:, k], judges).half_width()
            covered[k] += abs(found.values[k] - STRENGTHS[k]) <= half
    assert 0.93 < covered.mean() / num_runs < 0.985, covered / num_runs
    assert (covered / num_runs > 0.92).all(), covered / num_runs
