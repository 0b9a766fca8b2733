"""The report is a pure function of a run's files; its verdicts follow stated rules."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.prompts import Prompt
from ddmd_bench.records import mark_done, write_json, write_jsonl
from ddmd_bench.reporting import claims
from ddmd_bench.reporting.differences import Difference, make_compare, negated, no_difference
from ddmd_bench.reporting.dynamics import real_levels
from ddmd_bench.reporting.figures import scale_of
from ddmd_bench.reporting.numbers import metric_shown, p_shown, shown
from ddmd_bench.reporting.record import plain
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.summary import summary
from ddmd_bench.scorers import METRICS
from ddmd_bench.stages.report import report
from ddmd_bench.stats.intervals import mean_interval
from ddmd_bench.suite import Suite

MALICIOUS = '<img src=x onerror="alert(1)"> | <script>alert(2)</script>'
IMAGE_METRICS = ["prompt_accuracy", "saturation", "std"]
QUALITY = {"real": 0.95, "teacher": 0.85, "dmd": 0.6, "decoupled_hybrid": 0.8, "ca_only": 0.1}
DIM = 5


@dataclass(frozen=True)
class FakeTask:
    folder: Path

    def complete(self) -> bool:
        return (self.folder / "done.json").is_file()


def make_suite(claim_rows: list[dict[str, Any]] | None = None) -> Suite:
    return Suite.model_validate(
        {
            "name": "fake",
            "title": "A <fake> suite",
            "description": "Numbers made up & drawn from a seed.",
            "backend": "shapes",
            "prompts": {
                "seen": {"source": "x", "num_prompts": 20},
                "new": {"source": "x", "num_prompts": 20},
            },
            "students": {
                "real": {"source": "real", "title": "Real scenes"},
                "teacher": {"source": "teacher", "num_inference_steps": 4, "guidance_scale": 4},
                "dmd": {"method": "dmd"},
                "decoupled_hybrid": {"method": "decoupled_hybrid"},
                "ca_only": {"method": "ca_only"},
            },
            "baseline": "dmd",
            "metrics": [*IMAGE_METRICS, "diversity", "frechet_attributes"],
            "claims": claim_rows
            if claim_rows is not None
            else [
                {"claim": "rises", "student": "ca_only", "series": "x0_std", "paper": "Fig. 3"},
                {"claim": "worst", "student": "ca_only", "metric": "prompt_accuracy"},
                {
                    "claim": "beats",
                    "student": "decoupled_hybrid",
                    "other": "dmd",
                    "metric": "frechet_attributes",
                    "paper": "Tab. 2",
                },
                {"claim": "bounded", "student": "dmd", "series": "x0_std", "margin": 1.2},
                {
                    "claim": "same",
                    "student": "dmd",
                    "other": "decoupled_hybrid",
                    "metric": "prompt_accuracy",
                    "margin": 0.01,
                },
            ],
        }
    )


def make_run(folder: Path, suite: Suite) -> Any:
    """A whole run's files with made-up numbers, and the plan that points at them."""
    texts = [MALICIOUS, *(f"a red star number {k}" for k in range(39))]
    sets = ["seen"] * 20 + ["new"] * 20
    prompts = tuple(
        Prompt(f"{s}/{k:04d}", s, t) for k, (s, t) in enumerate(zip(sets, texts, strict=True))
    )
    tasks = {("reference", ""): FakeTask(folder / "reference")}
    (folder / "reference").mkdir(parents=True)
    draws = np.random.default_rng(0)
    np.save(folder / "reference/features_attributes.npy", draws.normal(size=(200, DIM)))
    rows = [
        {"prompt_id": p.prompt_id, "prompt_set": p.prompt_set} for p in prompts for _ in "five!"
    ]
    write_jsonl(folder / "reference/metadata.jsonl", rows)
    mark_done(folder / "reference", {"key": "r"})
    ids = [(p, k) for p in prompts for k in range(2)]
    for number, (name, student) in enumerate(suite.students.items()):
        draws = np.random.default_rng(number)
        for stage in ("train", "generate", "score"):
            if stage != "train" or student.source == "train":
                tasks[stage, name] = FakeTask(folder / stage / name)
                (folder / stage / name).mkdir(parents=True)
        if student.source == "train":
            write_train(folder / "train" / name, name, draws)
        write_images(folder / "generate" / name, ids, draws)
        write_scores(folder / "score" / name, name, ids, draws, suite)
    return SimpleNamespace(
        suite=suite,
        prompts=prompts,
        tasks=tasks,
        protocol={"resolution": [32, 32], "seed_rule": "by image"},
        fingerprint="0123456789ab",
        report_folder=folder / "report",
        report_key="ba9876543210",
    )


def write_train(folder: Path, name: str, draws: np.random.Generator, num: int = 120) -> None:
    k = np.arange(1, num + 1)
    rise = np.exp(k / 25) if name == "ca_only" else np.ones(num)
    table = pd.DataFrame(
        {
            "iteration": k,
            "x0_std": 0.5 * rise + draws.normal(size=num) * 0.01,
            "x0_mean": draws.normal(size=num) * 0.1,
            "saturation": 0.01 * rise,
            "dm_norm": np.full(num, np.nan) if name == "ca_only" else 1 / k + 0.2,
            "ca_norm": 0.5 + draws.random(num),
            "loss_student": draws.random(num),
            "loss_fake_score": np.full(num, np.nan) if name == "ca_only" else 1 / k,
        }
    )
    table.to_parquet(folder / "diagnostics.parquet")
    forwards = {"teacher": 240, "fake_score": 480, "student": 120}
    clock = {"seconds": 12.5, "peak_memory_gib": 1.25}
    mark_done(
        folder,
        {"key": "t", "num_iterations": num, "forwards": forwards, **clock,
         "provenance": {"commit": "abc", "packages": {"torch": "2"}}},
    )  # fmt: skip


def write_images(folder: Path, ids: list[Any], draws: np.random.Generator) -> None:
    (folder / "images").mkdir()
    rows = []
    for n, (prompt, k) in enumerate(ids):
        name = f"{n:05d}.png"
        pixels = draws.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        rows.append({"file_name": name, "prompt_id": prompt.prompt_id, "image_index": k})
    write_jsonl(folder / "images/metadata.jsonl", rows)
    facts = {"n": len(ids), "num_inference_steps": 4, "network_evaluations": 4}
    mark_done(folder, {"key": "g", **facts, "seconds": 2.0, "images_per_s": 40.0})


def write_scores(
    folder: Path, name: str, ids: list[Any], draws: np.random.Generator, suite: Suite
) -> None:
    n, quality = len(ids), QUALITY[name]
    table = pd.DataFrame(
        {
            "prompt_id": [p.prompt_id for p, _ in ids],
            "prompt_set": [p.prompt_set for p, _ in ids],
            "image_index": [k for _, k in ids],
            "prompt_accuracy": (draws.random(n) < quality).astype(float),
            "saturation": draws.random(n) * (1 - quality),
            "std": 0.5 + 0.1 * draws.random(n),
            "diversity": np.repeat(draws.random(n // 2), 2),
        }
    )
    table.to_parquet(folder / "per_image.parquet")
    features = draws.normal(size=(n, DIM)) + (1 - quality)
    np.save(folder / "features_attributes.npy", features.astype(np.float32))
    aggregates: dict[str, dict[str, Any]] = {m: {} for m in suite.metrics}
    for group in ("all", *suite.prompts):
        rows = table if group == "all" else table[table["prompt_set"] == group]
        for metric in suite.metrics:
            kind = METRICS[metric].kind
            values = np.zeros(n) if kind == "distribution" else rows[metric].to_numpy()
            ids_ = rows["prompt_id"].to_numpy()
            value = mean_interval(values if len(values) == len(ids_) else values[: len(ids_)], ids_)
            cell = value._asdict() if kind != "distribution" else None
            cell = cell or {"value": 1 - quality, "low": None, "high": None, "n": len(rows)}
            aggregates[metric][group] = {**cell, "n_expected": len(rows)}
    write_json(folder / "aggregates.json", aggregates)
    mark_done(folder, {"key": "s", "n": n, "seconds": 1.0, "weights_sha256": {"attributes": "ff"}})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    plan = make_run(tmp_path_factory.mktemp("run"), make_suite())
    return plan, report(plan)


def texts_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_files_give_the_same_bytes(made: tuple[Any, dict[str, Any]]) -> None:
    plan, record = made
    first = texts_of(plan.report_folder)
    expected = {"report.json", "report.md", "index.html", "table.csv", "differences.csv",
                "claims.csv"}  # fmt: skip
    assert set(first) == expected
    assert report(plan) == record
    assert texts_of(plan.report_folder) == first
    assert json.loads(first["report.json"]) == record


def test_clock_times_stand_apart(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    before = report(plan)
    folder = plan.tasks["train", "dmd"].folder
    write_json(folder / "done.json", {**json.loads((folder / "done.json").read_text()),
                                      "seconds": 99.0})  # fmt: skip
    after = report(plan)
    assert before["clock"] != after["clock"]
    assert {**before, "clock": 0} == {**after, "clock": 0}


def test_page_escapes_and_names_no_address(made: tuple[Any, dict[str, Any]]) -> None:
    html = (made[0].report_folder / "index.html").read_text()
    assert "<script>alert" not in html
    assert '<img src=x onerror="' not in html
    assert "&lt;script&gt;alert(2)" in html
    assert "A &lt;fake&gt; suite" in html
    assert not re.search(r"https?:|src=\"(?!data:)|href=\"(?!#)|url\((?!#)|@import", html)
    markdown = (made[0].report_folder / "report.md").read_text()
    assert "nan" not in markdown.lower().split()


def test_missing_student_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    (plan.tasks["score", "ca_only"].folder / "done.json").unlink()
    (plan.tasks["score", "decoupled_hybrid"].folder / "done.json").unlink()
    (plan.tasks["train", "decoupled_hybrid"].folder / "done.json").unlink()
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


def test_missing_reference_leaves_distances_undecided(tmp_path: Path) -> None:
    plan = make_run(tmp_path, make_suite())
    shutil.rmtree(plan.tasks["reference", ""].folder)
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
    rates = record["wins"]["rates"]
    assert rates["dmd"]["ca_only"] == pytest.approx(1 - rates["ca_only"]["dmd"])
    assert "real" not in rates
    assert set(record["dynamics"]) == {"dmd", "decoupled_hybrid", "ca_only"}
    assert "dm_norm" not in record["dynamics"]["ca_only"]
    assert len(record["dynamics"]["dmd"]["x0_std"]["value"]) == 50
    first = pd.read_parquet(made[0].tasks["train", "dmd"].folder / "diagnostics.parquet").iloc[0]
    assert record["first_updates"]["dmd"]["x0_std"] == pytest.approx(first["x0_std"])
    assert record["first_updates"]["ca_only"]["dm_norm"] is None
    assert record["provenance"]["common"]["packages"] == {"torch": "2"}
    page = (made[0].report_folder / "index.html").read_text()
    assert "Of 3 trained students, Decoupled-Hybrid has the best prompt accuracy" in page
    assert "5 claims, 4 supported, 1 refuted, 0 undecided" in page


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


def d(low: float, high: float) -> Difference:
    return Difference((low + high) / 2, low, high, 0.01, 10, 0.5)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "supported"), (-0.3, -0.1, "refuted"), (-0.1, 0.3, "undecided")],
)
def test_beats(low: float, high: float, verdict: str) -> None:
    assert claims.beats(d(low, high)).verdict == verdict


def test_worst() -> None:
    sure, unsure, lost = d(0.1, 0.3), d(-0.1, 0.3), no_difference("a was not scored")
    assert claims.worst({"a": sure, "b": d(0.05, 0.4)}).low == 0.05  # the least margin
    assert claims.worst({"a": sure, "b": sure}).verdict == "supported"
    assert claims.worst({"a": sure, "b": unsure}).verdict == "undecided"
    assert claims.worst({"a": sure, "b": d(-0.3, -0.1)}).verdict == "refuted"
    assert claims.worst({"a": sure, "b": lost}).verdict == "undecided"
    assert claims.worst({"a": d(-0.3, -0.1), "b": lost}).verdict == "refuted"
    assert claims.worst({"a": lost}).note == "a was not scored"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.04, 0.03, "supported"), (0.06, 0.1, "refuted"), (-0.2, -0.06, "refuted"),
     (0.03, 0.08, "undecided"), (-0.2, 0.2, "undecided")],
)  # fmt: skip
def test_same(low: float, high: float, verdict: str) -> None:
    assert claims.same(d(low, high), 0.05).verdict == verdict


def test_rises() -> None:
    k = np.arange(100.0)
    assert claims.rises(k).verdict == "supported"
    assert claims.rises(k).value == pytest.approx(90)  # between the middles of ten windows
    assert claims.rises(-k).verdict == "refuted"
    assert claims.rises(np.minimum(k, 60) - 2 * np.maximum(k - 80, 0)).verdict == "undecided"
    assert claims.rises(np.append(k, np.full(10, -50.0))).verdict == "refuted"  # ends below
    assert claims.rises(np.array([1.0, 2, 3])).verdict == "undecided"
    assert claims.rises(np.where(k == 5, np.nan, k)).verdict == "supported"


def test_bounded() -> None:
    assert claims.bounded(np.full(40, 2.0), 1.1).verdict == "supported"
    assert claims.bounded(np.linspace(1, 2, 40), 1.5).verdict == "refuted"
    assert claims.bounded(np.linspace(2, 1, 40), 1.5).verdict == "refuted"
    verdict = claims.bounded(np.linspace(1, 1.1, 40), 1.2)
    assert (verdict.verdict, verdict.low) == ("supported", 1.0)
    assert claims.bounded(np.zeros(40), 1.2).verdict == "undecided"
    assert claims.bounded(np.append(np.ones(36), np.full(4, np.inf)), 2).verdict == "undecided"


def test_claim_on_a_metric_without_direction_is_refused(made: tuple[Any, dict[str, Any]]) -> None:
    row = {"claim": "beats", "student": "decoupled_hybrid", "other": "dmd", "metric": "std"}
    run = SimpleNamespace(suite=make_suite([row]))
    with pytest.raises(BenchError, match="std: this metric has no better direction"):
        claims.judge(run, lambda *_: d(0, 1), run.suite.claims[0])  # type: ignore[arg-type]


def test_less_is_better_turns_the_sign(made: tuple[Any, dict[str, Any]]) -> None:
    row = {"claim": "beats", "student": "decoupled_hybrid", "other": "dmd", "metric": "saturation"}
    run = SimpleNamespace(suite=make_suite([row]))
    verdict = claims.judge(run, lambda *_: d(-0.3, -0.1), run.suite.claims[0])  # type: ignore[arg-type]
    assert (verdict.verdict, verdict.low, verdict.high) == ("supported", 0.1, 0.3)


def test_unknown_series_is_named(made: tuple[Any, dict[str, Any]]) -> None:
    run = load_run(made[0])
    claim = make_suite([{"claim": "rises", "student": "dmd", "series": "x0_sdt"}]).claims[0]
    with pytest.raises(BenchError, match=r"x0_sdt.*x0_std"):
        claims.judge(run, make_compare(run), claim)


def test_real_levels_pool_all_pixels() -> None:
    scenes = np.random.default_rng(0).normal(size=(7, 50)) + np.arange(7)[:, None]
    table = pd.DataFrame({"mean": scenes.mean(1), "std": scenes.std(1)})
    levels = real_levels(table)
    assert levels["x0_std"] == pytest.approx(scenes.std())
    assert levels["x0_mean"] == pytest.approx(scenes.mean())
    assert real_levels(None) == {}


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


def test_summary_names_what_was_refuted() -> None:
    claims = [{"text": "A is better than B: C", "verdict": "refuted"},
              {"text": "A is better than D: C", "verdict": "supported"}]  # fmt: skip
    sentences = summary(
        {"claims": claims, "wins": {"metric": None}, "students": {}, "best": {}, "table": {}}
    )
    assert sentences[-1] == "Refuted: A is better than B: C."
