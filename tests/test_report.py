"""The report is a pure function of a run's files."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_run import make_run, make_suite

from ddmd_bench.files.records import write_json
from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting.differences import make_compare, negated, win_rates
from ddmd_bench.reporting.dynamics import real_levels
from ddmd_bench.reporting.figures import scale_of, styles_of
from ddmd_bench.reporting.notes import gating
from ddmd_bench.reporting.numbers import metric_shown, p_shown, shown
from ddmd_bench.reporting.record import plain
from ddmd_bench.reporting.runfiles import RunFiles, load_run, titles_of
from ddmd_bench.reporting.summary import summary
from ddmd_bench.scorers import METRICS
from ddmd_bench.stages.report import report
from ddmd_bench.stats.distances import DISTANCES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    plan = make_run(tmp_path_factory.mktemp("run"), make_suite())
    return plan, report(plan)


def texts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_files_give_the_same_bytes(made: tuple[Any, dict[str, Any]]) -> None:
    plan, record = made
    first = texts_of(plan.report_folder)
    expected = {"report.json", "report.md", "index.html", "table.csv", "table.tex",
                "differences.csv", "claims.csv", "agreement.csv", "methods.tex",
                "references.bib"}  # fmt: skip
    assert set(first) == expected
    assert report(plan) == record
    assert texts_of(plan.report_folder) == first
    assert json.loads(first["report.json"]) == record


def test_clock_times_stand_apart(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    before = report(plan)
    folder = plan.task("train", "dmd", 0).folder
    write_json(folder / "done.json", {**json.loads((folder / "done.json").read_text()),
                                      "seconds": 99.0})  # fmt: skip
    after = report(plan)
    assert before["clock"] != after["clock"]
    apart = {"clock": 0, "key": 0}  # the key tells one run's report from another's
    assert before["key"] != after["key"]
    assert {**before, **apart} == {**after, **apart}


def test_page_escapes_and_names_no_address(made: tuple[Any, dict[str, Any]]) -> None:
    html = (made[0].report_folder / "index.html").read_text()
    html = html.partition("<script>\n")[0]  # what that asks for the tests in a browser watch
    assert "<script>alert" not in html
    assert '<img src=x onerror="' not in html
    assert "&lt;script&gt;alert(2)" in html
    assert "A &lt;fake&gt; suite" in html
    linked = set(re.findall(r'href="([^#"][^"]*)"', html))
    assert linked == {p.name for p in made[0].report_folder.iterdir()} - {"index.html"}
    assert not re.search(r"https?:|src=\"(?!data:)|url\((?!#)|@import", html)
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', html)) <= set(ids)
    markdown = (made[0].report_folder / "report.md").read_text()
    assert "nan" not in markdown.lower().split()


def test_missing_student_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    (plan.task("score", "ca_only", 0).folder / "done.json").unlink()
    (plan.task("score", "decoupled_hybrid", 0).folder / "done.json").unlink()
    (plan.task("train", "decoupled_hybrid", 0).folder / "done.json").unlink()
    record = report(plan)
    assert record["students"]["ca_only"]["missing"] == "was not scored"
    assert record["students"]["decoupled_hybrid"]["missing"] == "was not trained"
    cell = record["table"]["ca_only"]["prompt_accuracy"]["all"]
    assert (cell["value"], cell["n"], cell["n_expected"]) == (None, 0, 80)
    assert record["table"]["ca_only"]["diversity"]["new"]["n_expected"] == 20
    verdicts = {c["claim"]: c for c in record["claims"]}
    assert verdicts["beats"]["verdict"] == "undecided"
    assert verdicts["beats"]["note"] == "Decoupled-Hybrid was not trained"
    assert verdicts["worst"]["verdict"] == "undecided"
    assert verdicts["rises"]["verdict"] == "supported"  # its training is there
    html = (plan.report_folder / "index.html").read_text()
    assert 'title="was not trained">-</td>' in html
    assert "Missing: Decoupled-Hybrid was not trained; CA only was not scored." in html


def test_where_none_is_trained_the_best_other_student_meets_the_baseline(tmp_path: Path) -> None:
    """As of a published student without and with a LoRA; real images are no student to meet."""
    steps = {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4}
    students = {"real": {"source": "real"}, "plain": steps, "lora": steps, "teacher": steps}
    pictures = report(make_run(tmp_path, make_suite([], students=students, baseline="plain")))[
        "pictures"
    ]
    assert pictures["challenger"] == "teacher"  # 0.85 of its answers are right, 0.7 of the other's
    assert "the best student other than the baseline" in pictures["rule"]
    assert any(row["gain"] for row in pictures["grid"])


def test_missing_reference_leaves_distances_undecided(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    shutil.rmtree(plan.task("reference").folder)
    rows = [d for d in report(plan)["differences"] if d["metric"] == "frechet_attributes"]
    assert {d["missing"] for d in rows} == {"the reference has no features"}
    assert {d["p_holm"] for d in rows} == {None}


def test_record_says_who_won(made: tuple[Any, dict[str, Any]]) -> None:
    record = made[1]
    assert record["best"]["prompt_accuracy"] == "decoupled_hybrid"
    assert record["pictures"]["challenger"] == "decoupled_hybrid"
    assert {c["claim"]: c["verdict"] for c in record["claims"]} == {
        "rises": "supported",
        "worst": "supported",
        "beats": "supported",
        "bounded": "supported",
        "same": "refuted",
    }
    assert "the best trained student other than the baseline" in record["pictures"]["rule"]
    rates = record["wins"]["rates"]
    assert rates["dmd"]["ca_only"] == pytest.approx(1 - rates["ca_only"]["dmd"])
    assert "real" not in rates
    assert set(record["dynamics"]) == {"dmd", "decoupled_hybrid", "ca_only"}
    assert "dm_norm" not in record["dynamics"]["ca_only"]
    assert len(record["dynamics"]["dmd"]["x0_std"]["value"]) == 50
    first = pd.read_parquet(made[0].task("train", "dmd", 0).folder / "diagnostics.parquet").iloc[0]
    assert record["first_updates"]["0"]["dmd"]["x0_std"] == pytest.approx(first["x0_std"])
    assert record["first_updates"]["0"]["ca_only"]["dm_norm"] is None
    assert record["provenance"]["common"]["packages"] == {"torch": "2"}
    page = (made[0].report_folder / "index.html").read_text()
    assert "Of 3 trained students, Decoupled-Hybrid has the best prompt accuracy" in page
    assert "claims: 4 supported, 1 refuted, 0 undecided" in page


def test_pictures_come_from_both_ends(made: tuple[Any, dict[str, Any]]) -> None:
    grid = made[1]["pictures"]["grid"]
    gains = [row["gain"] for row in grid]
    assert len({row["prompt_id"] for row in grid}) == 24
    assert gains == sorted(gains)
    assert len(made[1]["pictures"]["strip"]) == 8


def test_difference_of_swapped_students_is_negated(made: tuple[Any, dict[str, Any]]) -> None:
    compare = make_compare(load_run(made[0]))
    for metric in ("prompt_accuracy", "diversity"):
        ab, ba = compare(metric, "dmd", "ca_only"), compare(metric, "ca_only", "dmd")
        assert ab == negated(ba)
    assert compare("diversity", "dmd", "ca_only").n == 40  # a prompt's value counts once
    assert compare("prompt_accuracy", "dmd", "ca_only").n == 80


def test_shares_of_wins_take_no_resamples(
    made: tuple[Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run(made[0])
    rates = win_rates(run, make_compare(run), "prompt_accuracy")

    def drawn(*_: Any) -> None:
        raise AssertionError("resamples of prompts")

    monkeypatch.setattr("ddmd_bench.stats.intervals.sign_flip_p_value", drawn)
    signs = make_compare(run, resampled=False)
    assert win_rates(run, signs, "prompt_accuracy") == rates


def test_students_of_one_method_are_told_apart() -> None:
    students = {
        "dmd": {"method": "dmd"},
        "lora": {"method": "dmd", "train": {"lora_rank": 2}},
        "other": {"method": "dmd", "title": "Another"},
        "ca_only": {"method": "ca_only"},
    }
    suite = make_suite(claim_rows=[], students=students)
    shown = titles_of(suite)
    assert len(set(shown.values())) == len(students)
    assert shown["lora"] == "DMD (Coupled-Shared) (lora)"
    assert shown["other"] == "Another"
    assert shown["ca_only"] == "CA only"


def test_a_distance_examines_each_student_once(
    made: tuple[Any, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row, examined = DISTANCES["frechet"], list[int]()

    def examine(features: Any, *rest: Any) -> Any:
        examined.append(id(features))
        return row.examine(features, *rest)

    monkeypatch.setitem(DISTANCES, "frechet", replace(row, examine=examine))
    run = load_run(made[0])
    compare, names = make_compare(run), ("teacher", "dmd", "ca_only")
    for a, b in itertools.permutations(names, 2):
        compare("frechet_attributes", a, b)
    assert len(examined) == len(set(examined)) == len(names)


def test_pairs_are_the_images_that_both_students_have(made: tuple[Any, dict[str, Any]]) -> None:
    """Rows in another order, rows and values that only one has: as one would merge by hand."""
    run = load_run(made[0])
    files = run.students["dmd"][0]
    own, other = (run.students[name][0].per_image for name in ("ca_only", "dmd"))
    assert own is not None
    assert other is not None
    other = other.sample(frac=0.8, random_state=0)
    other.iloc[3, other.columns.get_loc("std")] = np.nan
    other.iloc[5, other.columns.get_loc("diversity")] = np.nan
    run.students["dmd"][0] = replace(files, per_image=other)
    compare = make_compare(run, resampled=False)
    for metric in ("std", "diversity"):
        keys = ["prompt_id", "image_index"]
        pairs = own[[*keys, metric]].merge(other[[*keys, metric]], on=keys).dropna()
        if metric == "diversity":
            pairs = pairs.drop_duplicates("prompt_id")
        gaps = pairs[f"{metric}_x"] - pairs[f"{metric}_y"]
        found = compare(metric, "ca_only", "dmd")
        assert found.n == len(pairs) < len(own)
        assert found.value == pytest.approx(gaps.mean())
        wins = np.sign(gaps.groupby(pairs["prompt_id"]).sum()) / 2 + 0.5
        assert found.wins == pytest.approx(wins.mean())
    run.students["dmd"][0] = replace(files, per_image=pd.concat([other, other]))
    with pytest.raises(pd.errors.MergeError, match="one-to-one"):
        compare("saturation", "ca_only", "dmd")


def test_real_levels_pool_all_pixels() -> None:
    scenes = np.random.default_rng(0).normal(size=(7, 50)) + np.arange(7)[:, None]
    table = pd.DataFrame({"mean": scenes.mean(1), "std": scenes.std(1)})
    levels = real_levels([table])
    assert levels["x0_std"] == pytest.approx(scenes.std())
    assert levels["x0_mean"] == pytest.approx(scenes.mean())
    assert real_levels([]) == {}


def test_numbers() -> None:
    assert plain({"a": float("nan"), "b": (np.float64(1 / 3), np.int64(2))}) == {
        "a": None,
        "b": [0.3333333333, 2],
    }
    assert shown(None, 2) == "-"
    assert shown(-0.0001, 2, sign=True) == "0.00"
    assert shown(-0.5, 1) == "\u22120.5"
    assert metric_shown("prompt_accuracy", 0.125, sign=True) == "+12.5"
    assert p_shown(0.0001) == "<0.001"


def test_axis_turns_logarithmic_for_a_runaway() -> None:
    calm, wild = {"value": [1.0, 1.1]}, {"value": [1.0, 50.0]}
    assert scale_of({"a": calm, "b": calm, "c": wild}) == "log"
    assert scale_of({"a": {"value": [-1.0, 1.0]}, "b": calm, "c": wild}) == "symlog"
    assert scale_of({"a": calm, "b": calm}) == ""


def test_thirty_students_are_told_apart(made: tuple[Any, dict[str, Any]]) -> None:
    names = [f"student_{k}" for k in range(30)]
    styles = styles_of(names)
    assert len(set(styles.values())) == 30
    assert all(styles[a].color != styles[b].color for a, b in itertools.pairwise(names))
    page = (made[0].report_folder / "index.html").read_text()
    legend = page[page.index('<div class="legend">') : page.index('<div class="figures">')]
    for name, style in styles_of(["dmd", "decoupled_hybrid", "ca_only"]).items():
        (entry,) = re.findall(rf'<span data-student="{name}">.*?</span>', legend, re.DOTALL)
        assert style.color in entry
        assert f'<g data-student="{name}">' in page  # its line in a figure


def test_summary_names_what_was_refuted() -> None:
    claims = [{"text": "A is better than B: C", "verdict": "refuted"},
              {"text": "A is better than D: C", "verdict": "supported"}]  # fmt: skip
    sentences = summary(
        {"claims": claims, "wins": {"metric": None}, "students": {}, "best": {}, "table": {}}
    )
    assert sentences[-1] == "Refuted: A is better than B: C."


def test_comparisons_their_family_and_what_gates_are_said(tmp_path: Path) -> None:
    gate = {"prompt_accuracy": {"margin": 0.02}, "frechet_attributes": {"share": 0.1}}
    plan = make_run(tmp_path, make_suite(gate=gate))
    report(plan)
    for name in ("index.html", "report.md"):
        text = (plan.report_folder / name).read_text()
        assert "15 comparisons: 3 students with the baseline on 5 metrics" in text
        assert "5 claims, 3 of them on a metric" in text
        assert "by 2 points, Fr" in text
        assert "by a share of 0.1 (the suite" in text


def test_without_a_gate_every_metric_with_a_better_direction_gates() -> None:
    suite = make_suite([]).model_dump(mode="json")
    said = gating(suite)
    assert "claims" not in said
    assert METRICS["prompt_accuracy"].title in said
    assert METRICS["std"].title not in said


@pytest.mark.long
def test_as_many_prompts_have_pictures_in_the_page_as_are_asked_for(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    for embedded, there in ((0, 0), (5, 5), (24, 24), (100, 40)):
        record = report(plan, embedded=embedded)
        page = (plan.report_folder / "index.html").read_text()
        assert page.count('"data:image/webp') == len(record["pictures"]["grid"]) == there
    assert len({row["prompt_id"] for row in record["pictures"]["grid"]}) == 40


def test_a_suite_of_plain_statistics_has_a_page_too(tmp_path: Path) -> None:
    """No metric has a better direction: nobody leads, and nothing is sorted by who does."""
    plan = make_run(tmp_path, make_suite([], metrics=["std"]))
    assert report(plan)["wins"]["metric"] is None
    page = (plan.report_folder / "index.html").read_text()
    assert "Standard deviation" in page
    assert 'class="ranked"' not in page


def test_a_task_that_ends_while_files_are_read_asks_for_a_new_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_run(tmp_path, make_suite())
    scored = plan.task("score", "dmd", 0)
    done = scored.folder / "done.json"
    kept = done.read_bytes()
    done.unlink()

    def read_slowly(plan: Plan) -> RunFiles:
        run = load_run(plan)
        done.write_bytes(kept)  # by a worker, meanwhile
        return run

    with monkeypatch.context() as patched:
        patched.setattr("ddmd_bench.stages.report.load_run", read_slowly)
        assert report(plan)["students"]["dmd"]["missing"]
    assert not plan.report_complete()
    assert not report(plan)["students"]["dmd"]["missing"]
    assert plan.report_complete()


def test_what_another_process_is_writing_is_not_removed(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    plan.report_folder.mkdir()
    living, dead = (plan.report_folder / f".index.html.{pid}.tmp" for pid in (os.getppid(), 2**22))
    for path in (living, dead):
        path.write_text("half of it")
    report(plan)
    assert living.exists()
    assert not dead.exists()
