"""A verdict follows its stated rule."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fake_run import make_run, make_suite

from ddmd_bench.errors import BenchError
from ddmd_bench.planning.claims import CLAIMS
from ddmd_bench.reporting.claims.judging import judge
from ddmd_bench.reporting.claims.of_differences import beats, same, worst
from ddmd_bench.reporting.claims.of_series import bounded, rises
from ddmd_bench.reporting.claims.verdicts import REFUTED, SUPPORTED, UNDECIDED, Verdict, over_seeds
from ddmd_bench.reporting.differences import Difference, make_compare, no_difference
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, load_run


def d(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, 0.01, 10, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "supported"), (-0.3, -0.1, "refuted"), (-0.1, 0.3, "undecided")],
)
def test_beats(low: float, high: float, verdict: str) -> None:
    assert beats(d(low, high)).verdict == verdict


def test_worst() -> None:
    sure, unsure, lost = d(0.1, 0.3), d(-0.1, 0.3), no_difference("a was not scored")
    assert worst({"a": sure, "b": d(0.05, 0.4)}).low == 0.05  # the least margin
    assert worst({"a": sure, "b": sure}).verdict == "supported"
    assert worst({"a": sure, "b": unsure}).verdict == "undecided"
    assert worst({"a": sure, "b": d(-0.3, -0.1)}).verdict == "refuted"
    assert worst({"a": sure, "b": lost}).verdict == "undecided"
    assert worst({"a": d(-0.3, -0.1), "b": lost}).verdict == "refuted"
    assert worst({"a": lost}).note == "a was not scored"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.04, 0.03, "supported"), (0.06, 0.1, "refuted"), (-0.2, -0.06, "refuted"),
     (0.03, 0.08, "undecided"), (-0.2, 0.2, "undecided")],
)  # fmt: skip
def test_same(low: float, high: float, verdict: str) -> None:
    assert same(d(low, high), 0.05).verdict == verdict


def test_rises() -> None:
    k = np.arange(100.0)
    assert rises(k).verdict == "supported"
    assert rises(k).value == pytest.approx(90)  # between the middles of ten windows
    assert rises(-k).verdict == "refuted"
    assert rises(np.minimum(k, 60) - 2 * np.maximum(k - 80, 0)).verdict == "undecided"
    assert rises(np.append(k, np.full(10, -50.0))).verdict == "refuted"  # ends below
    assert rises(np.array([1.0, 2, 3])).verdict == "undecided"
    assert rises(np.where(k == 5, np.nan, k)).verdict == "supported"


def test_bounded() -> None:
    assert bounded(np.full(40, 2.0), 1.1).verdict == "supported"
    assert bounded(np.linspace(1, 2, 40), 1.5).verdict == "refuted"
    assert bounded(np.linspace(2, 1, 40), 1.5).verdict == "refuted"
    verdict = bounded(np.linspace(1, 1.1, 40), 1.2)
    assert (verdict.verdict, verdict.low) == ("supported", 1.0)
    assert bounded(np.zeros(40), 1.2).verdict == "undecided"
    assert bounded(np.append(np.ones(36), np.full(4, np.inf)), 2).verdict == "undecided"


def test_less_is_better_turns_the_sign() -> None:
    row = {"claim": "beats", "student": "decoupled_hybrid", "other": "dmd", "metric": "saturation"}
    run = SimpleNamespace(suite=make_suite([row]))
    verdict = judge(run, lambda *_: d(-0.3, -0.1), run.suite.claims[0])  # type: ignore[arg-type]
    assert (verdict.verdict, verdict.low, verdict.high) == ("supported", 0.1, 0.3)


def test_unknown_series_is_named(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, make_suite()))
    claim = make_suite([{"claim": "rises", "student": "dmd", "series": "x0_sdt"}]).claims[0]
    with pytest.raises(BenchError, match=r"x0_sdt.*x0_std"):
        judge(run, make_compare(run), claim)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "supported"), (-0.3, -0.1, "refuted"), (-0.1, 0.3, "undecided")],
)
@pytest.mark.parametrize("metric", ["std", "saturation", "prompt_accuracy"])
def test_above_asks_for_the_larger_value(
    metric: str, low: float, high: float, verdict: str
) -> None:
    row = {"claim": "above", "student": "decoupled_hybrid", "other": "dmd", "metric": metric}
    run = SimpleNamespace(suite=make_suite([row]))
    found = judge(run, lambda *_: d(low, high), run.suite.claims[0])  # type: ignore[arg-type]
    assert (found.verdict, found.low, found.high) == (verdict, low, high)


# What of the other's there is


def kept(student: np.ndarray, other: np.ndarray, share: float) -> Verdict:
    """The verdict on a diversity per prompt of a student and of the other."""
    row = {"claim": "keeps", "student": "decoupled_hybrid", "other": "dmd", "metric": "diversity",
           "share": share}  # fmt: skip
    ids = [f"seen/{k:04d}" for k in range(len(student))]

    def files(values: np.ndarray) -> dict[int, StudentFiles]:
        table = pd.DataFrame(
            {"prompt_id": ids, "prompt_set": "seen", "image_index": 0, "diversity": values}
        )
        cell = {"diversity": {"all": {"value": float(np.nanmean(values))}}}
        return {0: StudentFiles("", per_image=table, aggregates=cell)}

    suite = make_suite([row])
    students = {"decoupled_hybrid": files(student), "dmd": files(other)}
    run = RunFiles(suite, dict.fromkeys(ids, ""), {}, {}, "", students, {})
    return judge(run, make_compare(run), suite.claims[0])


def test_a_share_that_is_kept_is_the_ratio_of_means() -> None:
    other = np.random.default_rng(0).uniform(0.1, 0.3, 200)
    assert kept(0.8 * other, other, 0.75).verdict == "supported"
    assert kept(0.8 * other, other, 0.85).verdict == "refuted"
    exact = kept(0.8 * other, other, 0.75)
    assert (exact.value, exact.low, exact.high) == pytest.approx((0.8, 0.8, 0.8))
    noisy = kept(0.8 * np.random.default_rng(1).permutation(other), other, 0.8)
    assert (noisy.verdict, noisy.why) == ("undecided", "too few to tell")
    assert noisy.value == pytest.approx(0.8)
    assert kept(other, 0 * other, 0.9).note == "DMD (Coupled-Shared) has none of it"


def test_the_interval_of_a_share_holds_the_truth() -> None:
    """Of 300 made-up runs of 60 prompts, means 0.15 and 0.2, unequal and correlated."""
    held = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        prompts = generator.gamma(4, 0.25, 60)
        other = 0.2 * prompts * generator.gamma(9, 1 / 9, 60)
        student = 0.15 * prompts * generator.gamma(9, 1 / 9, 60)
        found = kept(student, other, 0.5)
        held += found.low <= 0.75 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_a_share_is_of_what_images_or_prompts_have() -> None:
    row = {"claim": "keeps", "student": "dmd", "other": "teacher", "metric": "frechet_attributes",
           "share": 0.9}  # fmt: skip
    asked = SimpleNamespace(suite=make_suite([row]))
    (problem,) = CLAIMS.problems(asked)  # type: ignore[arg-type]
    assert "'keeps' takes a metric that images or prompts have" in problem


# Several seeds


def verdicts(*names: str) -> dict[int, Verdict]:
    return {k: Verdict(name, float(k), k - 1.0, k + 1.0) for k, name in enumerate(names)}


S, R, U = SUPPORTED, REFUTED, UNDECIDED


@pytest.mark.parametrize(
    ("found", "expected"),
    [((S, S, S), S), ((S, S, U), U), ((S, S, R), U), ((R, R, S), R), ((R, R, U), R), ((R, S), U),
     ((R, U), U), ((R, R), R), ((U, U), U), ((S,), S), ((R,), R)],
)  # fmt: skip
def test_a_series_is_judged_on_every_seed(found: tuple[str, ...], expected: str) -> None:
    verdict = over_seeds(verdicts(*found))
    assert verdict.verdict == expected
    n = len(found)
    assert verdict[1:4] == ((n - 1) / 2, -1.0, n)
