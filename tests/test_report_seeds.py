"""What the report says of several seeds, and what it says where one of them is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_run import make_run, make_suite
from scipy import stats

from ddmd_bench.files.records import write_json
from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting.differences import Difference, make_compare, over_seeds
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.seeds import joined_cell, joined_curve, joined_reason
from ddmd_bench.stages.report import report
from ddmd_bench.stats import frechet, intervals, seeds

SEEDS = (2, 0, 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Any]]:
    plan = make_run(tmp_path_factory.mktemp("run"), make_suite(seeds=SEEDS))
    return plan, report(plan)


def page_of(plan: Plan) -> str:
    return (plan.report_folder / "index.html").read_text()


def scores(plan: Plan, student: str, seed: int) -> pd.DataFrame:
    return pd.read_parquet(plan.task("score", student, seed).folder / "per_image.parquet")


def undo(plan: Plan, student: str, seed: int) -> None:
    """As if this student had never been made with this seed."""
    for stage in ("train", "generate", "score"):
        (plan.task(stage, student, seed).folder / "done.json").unlink()


def fail(plan: Plan, student: str, seed: int, key: str = "t") -> None:
    record = {"key": key, "message": "x0_std is infinite", "iteration": 7, "term": "ca"}
    write_json(plan.task("train", student, seed).folder / "failed.json", record)


# Values


def test_a_cell_is_over_the_seeds_and_the_prompts_that_they_share(made: tuple[Any, Any]) -> None:
    plan, record = made
    cell = record["table"]["dmd"]["saturation"]["all"]
    tables = [scores(plan, "dmd", seed) for seed in SEEDS]
    values = [table["saturation"].mean() for table in tables]
    of_prompts = np.stack([t.groupby("prompt_id")["saturation"].mean() for t in tables])
    covariances = np.cov(of_prompts)[np.triu_indices(3, 1)]
    assert cell["over"] == "prompts and seeds"
    half = np.hypot(
        stats.t.ppf(0.975, 2) * stats.sem(values),
        stats.t.ppf(0.975, 39) * np.sqrt(max(covariances.mean(), 0) / 40),
    )
    assert cell["value"] == pytest.approx(np.mean(values))
    assert cell["high"] - cell["value"] == pytest.approx(half)
    assert cell["low"] == pytest.approx(max(np.mean(values) - half, 0))
    assert [cell["by_seed"][str(seed)]["value"] for seed in SEEDS] == pytest.approx(values)
    assert (cell["n"], cell["n_expected"]) == (240, 240)
    assert (cell["n_seeds"], cell["n_seeds_expected"]) == (3, 3)
    assert record["table"]["dmd"]["frechet_attributes"]["all"]["over"] == "seeds"


def test_one_seed_keeps_its_interval_over_prompts() -> None:
    cell = {"value": 0.5, "low": 0.4, "high": 0.7, "n": 8, "n_expected": 10}
    joined = joined_cell({4: cell})
    assert {key: joined[key] for key in cell} == cell
    assert joined["by_seed"] == {4: {"value": 0.5, "n": 8}}


def test_a_seed_interval_by_hand() -> None:
    # Values 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.302653.
    interval = seeds.seed_interval([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5, 3))
    for values in ([], [1.5], [0.3, 0.3, 0.3]):
        assert np.isnan(seeds.seed_interval(values)[1:3]).all()


# Differences


@pytest.mark.parametrize("metric", ["prompt_accuracy", "diversity"])
def test_a_difference_is_over_the_seeds_own(made: tuple[Any, Any], metric: str) -> None:
    plan, record = made
    (row,) = [
        d for d in record["differences"] if (d["student"], d["metric"]) == ("ca_only", metric)
    ]
    frames = [[scores(plan, name, seed)[metric] for seed in SEEDS] for name in ("ca_only", "dmd")]
    means = np.array([[frame.mean() for frame in frames_of] for frames_of in frames])
    test = stats.ttest_rel(*means)
    interval = test.confidence_interval(0.95)
    found = (row["value"], row["low"], row["high"], row["p_value"])
    assert found == pytest.approx(
        ((means[0] - means[1]).mean(), interval.low, interval.high, test.pvalue)
    )
    assert list(row["by_seed"].values()) == pytest.approx(means[0] - means[1])
    assert list(row["by_seed"]) == [str(seed) for seed in SEEDS]
    by_prompt = [
        np.sign((a - b).groupby(np.arange(80) // 2).sum()) / 2 + 0.5
        for a, b in zip(*frames, strict=True)
    ]
    assert row["wins"] == pytest.approx(np.mean(by_prompt))
    assert row["n_seeds"] == 3


def test_a_distance_s_difference_is_over_the_seeds_own(made: tuple[Any, Any]) -> None:
    plan, _ = made
    found = make_compare(load_run(plan))("frechet_attributes", "dmd", "ca_only")
    real = np.load(plan.task("reference").folder / "features_attributes.npy")
    distances = [
        [
            frechet.frechet_distance(
                frechet.gaussian_of(real),
                frechet.gaussian_of(
                    np.load(plan.task("score", name, seed).folder / "features_attributes.npy")
                ),
            )
            for seed in SEEDS
        ]
        for name in ("dmd", "ca_only")
    ]
    test = stats.ttest_rel(*distances)
    assert (found.value, found.p_value) == pytest.approx(
        (np.mean(distances[0]) - np.mean(distances[1]), test.pvalue)
    )


def test_several_seeds_are_not_resampled(
    made: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(made[0])

    def drawn(*_: Any) -> None:
        raise AssertionError("resamples of prompts")

    monkeypatch.setattr(intervals, "sign_flip_p_value", drawn)
    monkeypatch.setattr(frechet, "prompt_counts", drawn)
    for metric in ("prompt_accuracy", "frechet_attributes"):
        assert np.isfinite(make_compare(run)(metric, "dmd", "ca_only").low)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.0], (0, 0, 0, 1)), ([0.1, 0.1], (0.1, None, None, None)),
     ([0.1], (0.1, None, None, None))],
)  # fmt: skip
def test_differences_that_show_no_spread(values: list[float], expected: tuple[Any, ...]) -> None:
    found = seeds.paired_t(values)
    assert [None if np.isnan(v) else pytest.approx(v) for v in found] == list(expected)


def test_differences_of_more_seeds_are_surer() -> None:
    draws = np.random.default_rng(0)
    for _ in range(20):
        values = list(draws.normal(0.1, 1, 6))
        few, many = (over_seeds(of_values(v)) for v in (values, values * 4))
        assert many.high - many.low < few.high - few.low
        assert few.value == pytest.approx(many.value)
        assert (few.low > 0 or few.high < 0) == (few.p_value < 0.05)


def of_values(values: list[float]) -> dict[int, Difference]:
    nan = float("nan")
    return {k: Difference(v, nan, nan, nan, 8, 0.5) for k, v in enumerate(values)}


# Seeds that are missing


def test_a_seed_that_failed_is_told_and_counted(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite(seeds=SEEDS))
    undo(plan, "ca_only", 0)
    fail(plan, "ca_only", 0)
    record = report(plan)
    assert (
        record["students"]["ca_only"]["missing"]
        == "with seed 0 stopped in train: x0_std is infinite"
    )
    cell = record["table"]["ca_only"]["saturation"]["all"]
    values = [scores(plan, "ca_only", seed)["saturation"].mean() for seed in (2, 5)]
    assert cell["value"] == pytest.approx(np.mean(values))
    assert (cell["n_seeds"], cell["n"], cell["n_expected"]) == (2, 160, 240)
    rows = [d for d in record["differences"] if d["student"] == "ca_only"]
    assert {(d["n_seeds"], d["n_seeds_expected"]) for d in rows} == {(2, 3)}
    assert rows[0]["by_seed"]["0"] is None
    page, markdown = page_of(plan), (plan.report_folder / "report.md").read_text()
    assert page.count('<small class="warn">2 of 3 seeds</small>') > 10
    assert "CA only with seed 0 stopped in train: x0_std is infinite" in page
    assert "2 of 3 seeds)" in markdown
    verdicts = {c["claim"]: c for c in record["claims"]}
    assert verdicts["rises"]["verdict"] == "undecided"  # never told from fewer seeds
    assert verdicts["rises"]["note"] == (
        "of 3 seeds 2 supported, 1 undecided; "
        "with seed 0 CA only stopped in train: x0_std is infinite"
    )


@pytest.mark.long
def test_one_seed_alone_has_no_interval(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite(seeds=(0, 1)))
    undo(plan, "ca_only", 1)
    record = report(plan)
    cell = record["table"]["ca_only"]["saturation"]["all"]
    assert cell["value"] is not None
    assert (cell["low"], cell["n_seeds"]) == (None, 1)
    row = next(d for d in record["differences"] if d["student"] == "ca_only")
    assert row["missing"] == "1 of 2 seeds; with seed 1 CA only was not trained"
    assert (row["p_holm"], row["outcome"]) == (None, "undecided")


def test_a_failure_says_why_nothing_was_trained(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    fail(plan, "dmd", 0)  # overtaken by a training that came to its end
    undo(plan, "ca_only", 0)
    fail(plan, "ca_only", 0)
    undo(plan, "decoupled_hybrid", 0)
    fail(plan, "decoupled_hybrid", 0, key="another")
    students = report(plan)["students"]
    assert students["dmd"]["missing"] == ""
    assert students["ca_only"]["missing"] == "stopped in train: x0_std is infinite"
    assert students["decoupled_hybrid"]["missing"] == "was not trained"
    page = page_of(plan)
    assert 'title="stopped in train: x0_std is infinite">-</td>' in page
    assert "CA only stopped in train: x0_std is infinite" in page


def test_reasons() -> None:
    assert joined_reason({0: ""}) == joined_reason({0: "", 1: ""}) == ""
    assert joined_reason({0: "was not scored"}) == "was not scored"
    assert joined_reason({0: "a", 1: "a"}) == "a"
    assert joined_reason({0: "", 1: "a", 2: "b"}) == "with seed 1 a; with seed 2 b"


# Claims


def test_claims_rest_on_the_interval_over_seeds(made: tuple[Any, Any]) -> None:
    record = made[1]
    (beats,) = [c for c in record["claims"] if c["claim"] == "beats"]
    (row,) = [
        d
        for d in record["differences"]
        if (d["student"], d["metric"]) == ("decoupled_hybrid", "frechet_attributes")
    ]
    assert (beats["low"], beats["high"]) == (-row["high"], -row["low"])
    assert beats["verdict"] == ("supported" if beats["low"] > 0 else "undecided")
    assert {c["claim"]: c["verdict"] for c in record["claims"]}["rises"] == "supported"
    page = page_of(made[0])
    assert "refuted if refuted on more than half of them" in page
    assert "of 3 seeds 3 supported" in page


# Curves


def test_a_curve_is_the_mean_with_its_band() -> None:
    nan = float("nan")
    joined = joined_curve({0: {1.0: 2.0, 2.0: nan, 3.0: nan}, 1: {1.0: 4.0, 2.0: 1.0, 3.0: nan}})
    assert joined["iteration"] == [1.0, 2.0, 3.0]
    assert joined["value"][:2] == [3.0, 1.0]
    assert (joined["low"][:2], joined["high"][:2]) == ([2.0, 1.0], [4.0, 1.0])
    assert np.isnan([joined[key][2] for key in ("value", "low", "high")]).all()
    assert joined_curve({0: {1.0: 2.0}}) == {"iteration": [1.0], "value": [2.0]}


def test_dynamics_have_a_band_over_seeds(made: tuple[Any, Any]) -> None:
    line = made[1]["dynamics"]["dmd"]["x0_std"]
    assert len(line["iteration"]) == 50
    assert all(np.array(line["low"]) <= line["value"])
    assert all(np.array(line["value"]) <= line["high"])


def evaluate(plan: Plan, student: str, seed: int, values: list[float], n: int = 80) -> None:
    rows = [
        {"iteration": 10 * k, "metric": metric, "value": value, "n": n}
        for k, value in enumerate(values, 1)
        for metric in ("prompt_accuracy", "frechet_attributes")
    ]
    folder = plan.task("train", student, seed).folder
    pd.DataFrame(rows).to_parquet(folder / "evaluations.parquet")


@pytest.mark.long
def test_evaluations_are_drawn_and_recorded(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite(seeds=(0, 1)))
    assert "Values during the training" not in (report(plan), page_of(plan))[1]
    evaluate(plan, "dmd", 0, [0.1, 0.5])
    evaluate(plan, "dmd", 1, [0.3, 0.5])
    evaluate(plan, "ca_only", 0, [0.2, 0.1])
    found = report(plan)["evaluations"]
    assert set(found) == {"dmd", "ca_only"}
    assert set(found["dmd"]) == {"prompt_accuracy", "frechet_attributes"}
    line = found["dmd"]["prompt_accuracy"]
    assert line["iteration"] == [10, 20]
    assert line["value"] == pytest.approx([0.2, 0.5])
    assert (line["low"], line["high"]) == ([0.1, 0.5], [0.3, 0.5])
    assert line["by_seed"]["1"]["value"] == [0.3, 0.5]
    page = page_of(plan)
    assert page.index('<section id="training">') < page.index('<section id="evaluations">')
    assert page.count("each point over 80 images; dashed grey: real scenes") == 2
    evaluate(plan, "ca_only", 0, [0.2, 0.1], n=40)
    report(plan)
    # A distance over other counts is no level to compare with.
    assert page_of(plan).count("each point over 40 to 80 images; dashed grey: real scenes") == 1


# The page


def test_the_page_speaks_of_seeds_only_where_there_are_several(
    made: tuple[Any, Any], tmp_path: Path
) -> None:
    plan = make_run(tmp_path, make_suite())
    report(plan)
    one, several = page_of(plan), page_of(made[0])
    for words in ("over the seeds", "with each seed", "t-interval", "of 1 seeds", "band"):
        assert words not in one
    assert "not the training seed: one training each" in one
    assert "Intervals cover the seed of training and noise (3 seeds)" in several
    assert "one training each" not in several
    assert "t-interval over the seeds" in several
    assert "Pictures and gains are those of seed 2." in several
    for page in (one, several):
        assert page.count("A claim rests on its own interval alone") == 2
    first = json.loads((plan.report_folder / "report.json").read_text())
    assert first["table"]["dmd"]["saturation"]["all"]["n_seeds"] == 1


def test_pictures_are_those_of_the_first_seed(made: tuple[Any, Any]) -> None:
    plan, record = made
    ours, theirs = (
        scores(plan, name, SEEDS[0]).groupby("prompt_id")["prompt_accuracy"].mean()
        for name in ("decoupled_hybrid", "dmd")
    )
    for row in record["pictures"]["grid"]:
        assert row["gain"] == pytest.approx((ours - theirs)[row["prompt_id"]])
