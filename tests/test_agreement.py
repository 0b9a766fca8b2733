"""Whether metrics tell the same story, against known correlations and made-up reports."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import make_run, make_suite
from scipy import stats

from ddmd_bench.reporting.agreement import _opposed
from ddmd_bench.reporting.tables import markdown
from ddmd_bench.stages.report import report
from ddmd_bench.stats.agreement import correlation_ends, disagreeing, rank_correlations


def drawn(generator: np.random.Generator, signs: list[float], n: int, noise: float) -> np.ndarray:
    """Measures [n, k] of one hidden quality, seen with noise and a sign."""
    hidden = generator.normal(size=(n, 1))
    return hidden * np.array(signs) + noise * generator.normal(size=(n, len(signs)))


def test_each_two_have_spearman_s_correlation_over_what_both_know() -> None:
    values = drawn(np.random.default_rng(0), [1, 1, -1], 60, 1.0).round(1)
    values[:7, 1] = math.nan
    found, rows = rank_correlations([values])
    expected = stats.spearmanr(values[7:, 1], values[7:, 2]).statistic
    assert found[1, 2] == pytest.approx(expected)
    assert found[0, 2] == pytest.approx(stats.spearmanr(values[:, 0], values[:, 2]).statistic)
    assert rows[0, 1] == 53
    assert rows[0, 2] == 60


def test_what_never_varies_has_no_correlation_and_several_are_averaged() -> None:
    generator = np.random.default_rng(1)
    one, other = (drawn(generator, [1, 1], 40, 1.0) for _ in range(2))
    alone = [rank_correlations([x])[0][0, 1] for x in (one, other)]
    assert rank_correlations([one, other])[0][0, 1] == pytest.approx(np.mean(alone))
    one[:, 0] = 0.0
    assert math.isnan(rank_correlations([one])[0][0, 1])
    assert rank_correlations([one, other])[0][0, 1] == pytest.approx(alone[1])


def test_rows_are_of_the_comparisons_that_have_a_correlation() -> None:
    generator = np.random.default_rng(4)
    one, other = (drawn(generator, [1, 1, 1], 40, 1.0) for _ in range(2))
    one[30:, 0] = math.nan
    other[5:, 0] = math.nan  # too few for a correlation
    one[:, 2] = other[:, 2] = 0.0
    rows = rank_correlations([one, other])[1]
    assert rows[0, 1] == 30
    assert rows[1, 2] == 0


def test_the_interval_holds_the_correlation() -> None:
    generator, truth = np.random.default_rng(2), 6 / math.pi * math.asin(0.25)  # of r = 0.5
    inside = 0
    for _ in range(400):
        values = drawn(generator, [1, 1], 60, 1.0)
        low, high = correlation_ends(float(rank_correlations([values])[0][0, 1]), 60)
        inside += low < truth < high
    assert 0.92 < inside / 400 < 0.98


def test_the_one_that_ranks_against_the_rest_is_named_and_unrelated_ones_are_not() -> None:
    generator = np.random.default_rng(3)
    signs, named, falsely = [1, 1, -1, 1], 0, 0
    for _ in range(100):
        found, rows = rank_correlations([drawn(generator, signs, 100, 1.0)])
        named += disagreeing(found, rows) == [2]
        found, rows = rank_correlations([generator.normal(size=(100, 4))])
        falsely += bool(disagreeing(found, rows))
    assert named >= 95
    assert falsely <= 5
    assert disagreeing(found[:2, :2], rows) == []  # of two nobody knows which


def test_measures_of_other_prompts_hide_nobody_and_are_nobody_s_rest() -> None:
    """Three of one set of prompts, of which the last ranks against the others; two of another
    set, opposed to each other: of those nobody knows which is wrong."""
    generator = np.random.default_rng(5)
    values = np.full((200, 5), math.nan)
    values[:100, :3] = drawn(generator, [1, 1, -1], 100, 0.5)
    values[100:, 3:] = drawn(generator, [1, -1], 100, 0.5)
    assert disagreeing(*rank_correlations([values])) == [2]


def test_a_report_tells_which_metric_disagrees(tmp_path: Path) -> None:
    suite = make_suite(metrics=["prompt_accuracy", "image_reward", "pick_score", "hps_v21",
                                "saturation", "frechet_attributes"])  # fmt: skip
    plan = make_run(tmp_path, suite)
    for name in suite.students:
        path = plan.task("score", name, 0).folder / "per_image.parquet"
        table, draws = pd.read_parquet(path), np.random.default_rng(len(name))
        quality = draws.normal(size=len(table))
        for metric, sign in (("image_reward", 1), ("pick_score", 1), ("hps_v21", -1)):
            table[metric] = sign * quality + 0.3 * draws.normal(size=len(table))
        table["prompt_accuracy"] = (quality + draws.normal(size=len(table)) > 0).astype(float)
        table.to_parquet(path)
    record = report(plan)
    assert record["agreement"]["disagree"] == ["hps_v21"]
    pairs = {(p["metric"], p["other"]): p for p in record["agreement"]["pairs"]}
    assert len(pairs) == 10  # of five image metrics
    assert pairs["image_reward", "pick_score"]["low"] > 0.5
    assert pairs["image_reward", "hps_v21"]["high"] < -0.5
    assert pairs["image_reward", "hps_v21"]["n_prompts"] == 40
    text = markdown(record)
    assert "disagrees with the other metrics, prompt by prompt" in text
    page = (plan.report_folder / "index.html").read_text()
    assert "Do the metrics agree?" in page
    assert len((plan.report_folder / "agreement.csv").read_text().splitlines()) == 11


def test_one_image_metric_has_nothing_to_agree_with(tmp_path: Path) -> None:
    suite = make_suite([], metrics=["prompt_accuracy", "frechet_attributes"])
    plan = make_run(tmp_path, suite)
    assert report(plan)["agreement"] == {}
    assert "Do the metrics agree?" not in (plan.report_folder / "index.html").read_text()


def test_an_outcome_against_two_others_is_said() -> None:
    outcomes = {"hps_v21": "worse", "image_reward": "better", "pick_score": "better"}
    rows = [{"student": "a", "metric": m, "outcome": o} for m, o in outcomes.items()]
    record = {"differences": rows, "students": {"a": {"title": "A"}}}
    (said,) = _opposed(record)
    assert "says that A is worse than the baseline, where" in said
    assert list(_opposed({**record, "differences": rows[:2]})) == []  # one against one
