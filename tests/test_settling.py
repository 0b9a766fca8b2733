"""A run that draws until its comparisons are settled: what it draws, decides, keeps and says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from settling_runs import SUITE, do_here, plan_of, run_here, speaking_early, suite_of

from ddmd_bench.commands.running import run_stage
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_jsonl
from ddmd_bench.measuring.looks import looks_at, outcome_named, prompt_differences, rule_of
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import Task
from ddmd_bench.reporting import gate
from ddmd_bench.reporting.baselines import Baseline
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.sequential import sentence
from ddmd_bench.run.settling import looks_file
from ddmd_bench.run.tasks import Outcome
from ddmd_bench.stages.report import report
from ddmd_bench.stats import sequential
from ddmd_bench.stats.ends import LEVEL
from ddmd_bench.stats.sequential import confidence_sequence, level_of, looks
from ddmd_bench.suite.files import load_suite

TOTAL, BLOCK, NUM_COMPARISONS = 36, 12, 2


@pytest.fixture(scope="module", autouse=True)
def early() -> Iterator[None]:
    with speaking_early():
        yield


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan = plan_of(tmp_path_factory.mktemp("settled"))
    run_here(plan)
    return plan


@pytest.fixture(scope="module")
def record(settled: Plan) -> dict[str, Any]:
    return report(settled)


def images_of(plan: Plan, student: str) -> dict[tuple[str, int], bytes]:
    folder = plan.task("generate", student, 0).folder / "images"
    rows = read_jsonl(folder / "metadata.jsonl")
    return {
        (r["prompt_id"], r["image_index"]): (folder / r["file_name"]).read_bytes() for r in rows
    }


# What is drawn


def test_a_student_ends_with_its_comparisons_and_the_baseline_with_the_last(settled: Plan) -> None:
    num = {name: len(images_of(settled, name)) for name in settled.suite.students}
    assert num["one"] < TOTAL  # far from the baseline
    assert num["same"] == num["two"] == num["real"] == TOTAL  # never to be told
    assert all(n % BLOCK == 0 for n in num.values())
    assert all(task.complete() for task in settled.tasks.values())
    last = {row["student"]: row for row in read_jsonl(looks_file(settled))}
    assert last["one"]["outcome"] == "differs"
    assert last["same"]["outcome"] == "open"
    assert {name: row["prompts"] for name, row in last.items()} == {
        name: num[name] for name in ("one", "same")
    }


def test_images_are_those_that_a_run_of_all_draws(
    settled: Plan, tmp_path_factory: pytest.TempPathFactory
) -> None:
    students = {"one": SUITE["students"]["one"]}
    folder = tmp_path_factory.mktemp("whole")
    whole = plan_of(folder, students=students, baseline="one", until_settled=None)
    run_here(whole)
    drawn, of_all = images_of(settled, "one"), images_of(whole, "one")
    assert len(of_all) == TOTAL
    assert drawn == {of: of_all[of] for of in drawn}
    # Nothing of a suite that draws all moves by the option: neither its key nor its protocol.
    assert "until_settled" not in whole.protocol
    assert "until_settled" not in whole.suite.model_dump()
    assert "sequential" not in report(whole)


@pytest.mark.long
@pytest.mark.parametrize("lost", ["two", "same"])
def test_scores_that_are_made_again_draw_nothing_again(
    settled: Plan, tmp_path: Path, lost: str
) -> None:
    shutil.copytree(settled.runs, tmp_path / "runs")
    plan = plan_of(tmp_path)
    assert not run_here(plan).num_done
    pictures = sorted(plan.runs.rglob("generate/*/images/*.png"))
    written = [path.stat().st_mtime_ns for path in pictures]
    shutil.rmtree(plan.task("score", lost, 0).folder)
    run_here(plan)
    assert all(task.complete() for task in plan.tasks.values())
    assert sorted(plan.runs.rglob("generate/*/images/*.png")) == pictures
    assert [path.stat().st_mtime_ns for path in pictures] == written
    for student in plan.suite.students:
        assert images_of(plan, student) == images_of(settled, student)


def test_sets_come_in_proportion_whatever_the_number(settled: Plan) -> None:
    ids = [prompt_id for prompt_id, _ in images_of(settled, "two")]
    for head in range(BLOCK, TOTAL + 1, BLOCK):
        assert sum(one.startswith("seen/") for one in ids[:head]) == round(head * 2 / 3)
    fewer = [prompt_id for prompt_id, _ in images_of(settled, "one")]
    assert fewer == ids[: len(fewer)]


def test_what_is_complete_is_not_done_again(settled: Plan, record: dict[str, Any]) -> None:
    files = [path for path in settled.runs.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    stamps = {path: path.stat().st_mtime_ns for path in files}
    lines = looks_file(settled).read_bytes()
    assert run_here(settled).num_done == 0
    assert looks_file(settled).read_bytes() == lines
    assert {path: path.stat().st_mtime_ns for path in files} == stamps
    assert settled.report_complete()


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from settling_runs import plan_of, run_here, speaking_early
import ddmd_bench.stages.generate, ddmd_bench.stages.score
import diffusers.models.unets.unet_2d_condition
plan = plan_of(Path(sys.argv[1]))
early = speaking_early()
early.__enter__()
random = random.Random(0)
for number in range(2):
    child = os.fork()
    if not child:
        run_here(plan)
        os._exit(0)
    drawn = len([*plan.runs.rglob("*.png")])
    while len([*plan.runs.rglob("*.png")]) < drawn + 20:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1])
print(run_here(plan).problems)
"""


@pytest.mark.long
def test_killed_again_and_again_it_ends_with_the_same_looks_and_report(
    settled: Plan, record: dict[str, Any], tmp_path: Path
) -> None:
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == [str(int(signal.SIGKILL))] * 2 + ["[]"]
    again = plan_of(tmp_path)
    assert looks_file(again).read_bytes() == looks_file(settled).read_bytes()
    for name in settled.suite.students:
        assert images_of(again, name) == images_of(settled, name)
    apart = ("key", "clock", "provenance", "folders")
    found = report(again)
    assert {k: v for k, v in found.items() if k not in apart} == {
        k: v for k, v in record.items() if k not in apart
    }


@pytest.mark.long
def test_a_student_that_failed_goes_on_later_and_takes_the_baseline_along(
    settled: Plan, tmp_path: Path
) -> None:
    """The others end without it, and the baseline with them; mended, all is as if it never had."""
    plan = plan_of(tmp_path)

    def failing(plan: Plan, todo: Sequence[Task], *others: Any) -> Outcome:
        lost = [t for t in todo if t.student == "same" and plan.num_prompts["same"] > BLOCK]
        do_here(plan, [t for t in todo if t not in lost], *others)
        return Outcome(0, [str(t) for t in lost])

    assert run_here(plan, do=failing).problems == ["generate same", "score same"]
    assert not plan.task("generate", "same", 0).complete()
    ended = images_of(plan, "two")
    assert plan.task("score", "two", 0).complete()
    assert len(ended) == len(images_of(settled, "one")) < TOTAL
    assert run_here(plan).problems == []
    assert ended.items() < images_of(plan, "two").items()
    for name in settled.suite.students:
        assert images_of(plan, name) == images_of(settled, name)
    assert looks_file(plan).read_bytes() == looks_file(settled).read_bytes()
    assert all(task.complete() for task in plan.tasks.values())


# What is decided


def table_of(values: np.ndarray, prompts: list[str], images: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prompt_id": np.repeat(prompts, images),
            "image_index": np.tile(np.arange(images), len(prompts)),
            "std": values,
        }
    )


def test_differences_are_of_prompts_that_both_have_in_their_order() -> None:
    rule = rule_of(suite_of())
    assert rule is not None
    names = [f"p{k}" for k in (5, 1, 9, 3)]
    a = table_of(np.array([1.0, 3, 5, 5, np.nan, 7, 2, 2]), names, images=2)
    b = table_of(np.array([0.0, 1, 1, 1, 1, 1]), names[:3], images=2)
    values, ends = prompt_differences(rule, "std", a, b)
    assert values.tolist() == [1.5, 4.0, 6.0]  # the last by the image that has a value
    assert ends == [3]


def test_looks_come_at_ends_of_blocks_and_stop_at_the_first_that_tells() -> None:
    rule = rule_of(suite_of())
    assert rule is not None
    assert rule.level == level_of(NUM_COMPARISONS) == pytest.approx(1 - 0.05 / 2)
    draws = np.random.default_rng(0)
    names = [f"p{k}" for k in range(TOTAL)]
    gap = 0.8 + draws.normal(size=TOTAL)
    found = looks_at(
        rule, "std", table_of(gap, names), table_of(np.zeros(TOTAL), names), rule.level
    )
    ends = [look.num_prompts for look in found]
    assert ends == list(range(BLOCK, BLOCK * len(found) + 1, BLOCK))
    assert [look.answer for look in found] == [None] * (len(found) - 1) + ["above"]
    # The interval is the sequence's at that level, and the looks before did not tell.
    sequence = confidence_sequence(gap, TOTAL // 3, rule.level)
    assert found[-1].low == sequence.low[ends[-1] - 1] > 0
    assert len(ends) == 1 or sequence.low[ends[-2] - 1] <= 0


def test_alike_is_within_the_margin() -> None:
    settling = {"metrics": ["std"], "block": BLOCK, "margins": {"std": 1.0}}
    rule = rule_of(suite_of(until_settled=settling))
    assert rule is not None
    names, draws = [f"p{k}" for k in range(TOTAL)], np.random.default_rng(2)
    tables = [table_of(draws.normal(size=TOTAL), names) for _ in range(2)]
    found = looks_at(rule, "std", tables[0], tables[1], rule.level)
    assert found[-1].answer == "alike"
    assert outcome_named("std", "alike") == "alike"
    assert outcome_named("prompt_accuracy", "above") == outcome_named("saturation", "below")
    assert outcome_named("saturation", "above") == "worse"


def test_comparisons_that_hold_together_err_in_5_percent_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six without a difference, correlated as one baseline makes them, looked at every 50."""
    monkeypatch.setattr(sequential, "FIRST", 50)
    monkeypatch.setattr(sequential, "FEWEST_VARYING", 20.0)
    draws, wrong, num = np.random.default_rng(1), 0, 400
    for _ in range(num):
        shared = draws.exponential(size=600)
        family = (draws.exponential(size=600) - shared for _ in range(6))
        ends = list(range(50, 601, 50))
        wrong += any(looks(x, ends, 600, level_of(6))[-1].answer for x in family)
    assert wrong / num <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / num)
    plain = looks(draws.normal(size=600), [0, 50, 50, 100], 600)
    assert [look.num_prompts for look in plain] == [0, 50, 50, 100]  # blocks without a value too


# What is refused


TWO = SUITE["students"]["two"]
OF_SETS = ["std", "frechet_attributes"]
BEATS = {"claim": "beats", "student": "one", "other": "two", "metric": "frechet_attributes"}
UNEQUAL = {**SUITE["prompts"], "new": {**SUITE["prompts"]["new"], "images_per_prompt": 2}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": [0, 1]}, "takes one seed"),
        ({"metrics": OF_SETS, "until_settled": {"metrics": OF_SETS}},
         "frechet_attributes has no value of a prompt"),
        ({"metrics": ["std"], "until_settled": {}}, "no metric of images with a better direction"),
        ({"until_settled": {"metrics": ["std"], "margins": {"mean": 0.1}}}, "mean"),
        ({"students": {"two": TWO, "real": {"source": "real"}}}, "no student is compared"),
        ({"prompts": UNEQUAL}, "all sets take one images_per_prompt"),
        ({"metrics": OF_SETS, "claims": [BEATS]}, r"claims\[0\]: on frechet_attributes"),
        ({"metrics": OF_SETS, "gate": {"frechet_attributes": {"share": 0.1}}},
         "gate.frechet_attributes"),
        ({"until_settled": {"metrics": ["stdd"]}}, "Did you mean 'std'"),
    ],
)  # fmt: skip
def test_what_cannot_be_settled_is_refused_before_any_work(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises((BenchError, ValueError), match=told):
        plan_of(tmp_path, **changes)


@pytest.mark.parametrize("stage", ["generate", "score"])
def test_drawing_or_scoring_alone_is_refused(stage: str, tmp_path: Path, write_suite: Any) -> None:
    with pytest.raises(BenchError, match=f"{stage}: this suite draws until its comparisons are"):
        run_stage(stage, write_suite(SUITE), None, tmp_path, tmp_path, 0, False)


def test_defaults_are_the_headline_metric_and_the_gate_s_margins(write_suite: Any) -> None:
    suite = load_suite(
        write_suite(SUITE),
        ["until_settled={}", "gate={saturation: {margin: 0.01}, std: {spreads: 0.1}}"],
    )
    rule = rule_of(suite)
    assert rule is not None
    assert rule.metrics == ("saturation",)
    assert rule.margins == {"saturation": 0.01}
    assert rule.block == 50


# What is said


def test_the_record_says_that_it_was_sequential(settled: Plan, record: dict[str, Any]) -> None:
    found = record["sequential"]
    num = {name: len(images_of(settled, name)) for name in settled.suite.students}
    assert found["images"] == num
    assert (found["block"], found["num_comparisons"]) == (BLOCK, NUM_COMPARISONS)
    assert found["level"] == pytest.approx(level_of(NUM_COMPARISONS))
    outcomes = {one["student"]: one["outcome"] for one in found["comparisons"]}
    assert outcomes == {"one": "differs", "same": "undecided"}
    assert record["protocol"]["until_settled"]["order"] == found["order"]
    drawn, whole = sum(num.values()), TOTAL * len(num)
    said = (
        f"{drawn} of {whole} images ({100 * (1 - drawn / whole):.0f} % saved); 1 of 2 comparisons"
    )
    assert said in sentence(record)
    pages = [settled.report_folder / name for name in ("index.html", "report.md")]
    for page in pages:
        text = page.read_text()
        assert sentence(record) in text
        assert "confidence sequence" in text
        assert f"differs after {num['one']} prompts" in text


def test_its_differences_have_no_p_and_the_sequence_s_interval(
    settled: Plan, record: dict[str, Any]
) -> None:
    rows = {(d["student"], d["metric"]): d for d in record["differences"]}
    assert all(d["p_value"] is None and d["p_holm"] is None for d in rows.values())
    assert all(d["least"] is None for d in rows.values())
    one, two = (
        pd.read_parquet(settled.task("score", name, 0).folder / "per_image.parquet")
        for name in ("one", "two")
    )
    for metric, level in (("std", level_of(NUM_COMPARISONS)), ("mean", LEVEL)):
        gaps = (one[metric] - two[metric][: len(one)]).to_numpy()
        sequence = confidence_sequence(gaps, TOTAL // 3, level)
        d = rows["one", metric]
        assert d["n"] == len(one)
        assert d["value"] == pytest.approx(gaps.mean())
        assert (d["low"], d["high"]) == pytest.approx((sequence.low[-1], sequence.high[-1]))
    assert rows["one", "std"]["outcome"] == "differs"
    assert rows["one", "mean"]["outcome"] == "not asked"
    assert "too few that differ" in rows["same", "std"]["missing"]


def test_a_gate_holds_them_over_the_prompts_that_both_have(settled: Plan) -> None:
    run = load_run(settled)
    found = gate.against_baseline(run, Baseline.of(run), [("one", "two")])
    assert any("hold together" in note for note in found.notes)
    (held,) = (one for one in found.held if one.name.endswith("Saturation"))
    assert held.status in ("ok", "failed", "too few")
    counted = [one for one in found.held if "not scored" in one.name]
    assert [one.status for one in counted] == ["ok"]


def test_looks_are_lines_of_json(settled: Plan) -> None:
    lines = looks_file(settled).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prompts"] for row in rows] == sorted(row["prompts"] for row in rows)
    assert {row["outcome"] for row in rows} == {"open", "differs"}
