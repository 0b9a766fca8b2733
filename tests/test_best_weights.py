"""Students that are drawn from the best weights of a training, which others may share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.commands.cli import app
from ddmd_bench.data.images import image_ids
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import mark_done, read_done, read_json
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.planning.outlook import Outlook, memory_lines
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.superseded import remember_asked, superseded
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.students.sources import SOURCES, trained_weights
from ddmd_bench.suite.files import load_suite

Planner = Callable[..., Plan]
EVALUATION = "evaluation={at: [0, 2, 4], num_prompts: 3, metrics: [std, saturation], keep_best: %s}"
BEST = "students.best={method: ca_only, weights: best}"
KEPT = EVALUATION % "saturation"


def quiet(*_: Any) -> None:
    """No progress."""


@pytest.fixture
def suite_name(tiny: dict[str, Any], write_suite: Callable[[Any], str]) -> str:
    """CA alone saturates more from update to update: its best weights are its first, untrained."""
    tiny["train"] |= {"num_iterations": 4, "learning_rate": 1e-3, "ema": 0}
    return write_suite(tiny)


@pytest.fixture
def planned(tmp_path: Path, suite_name: str) -> Planner:
    """Plans the tiny suite with overrides."""

    def make(*overrides: str) -> Plan:
        suite = load_suite(suite_name, overrides)
        return make_plan(suite, tmp_path / "runs", tmp_path / "reports")

    return make


# Plan


def test_what_a_student_is_drawn_from_is_no_input_of_its_training(planned: Planner) -> None:
    last = planned(KEPT)
    best = planned(KEPT, "students.ca_only.weights=best")
    keys = {name: task.key for name, task in last.tasks.items()}
    changed = {name for name, task in best.tasks.items() if keys[name] != task.key}
    assert changed == {("generate", "ca_only", 0), ("score", "ca_only", 0)}


def test_an_option_that_is_not_used_is_in_no_record(planned: Planner) -> None:
    plan = planned(KEPT, "students.ca_only.weights=last")
    assert "weights" not in plan.suite.students["ca_only"].model_dump()
    assert plan.report_inputs == planned(KEPT).report_inputs
    assert planned(KEPT, BEST).suite.students["best"].model_dump()["weights"] == "best"


def test_students_of_one_training_share_it(planned: Planner) -> None:
    plan = planned(KEPT, BEST, "seeds=[0, 1]")
    assert [(t.student, t.seed) for t in plan.of_stage("train")] == [
        ("dmd", 0), ("dmd", 1), ("ca_only", 0), ("ca_only", 1),
    ]  # fmt: skip
    for seed in (0, 1):
        shared = plan.task("train", "ca_only", seed)
        assert plan.task("train", "best", seed) is shared
        images = [plan.task("generate", name, seed) for name in ("ca_only", "best")]
        assert all(shared.name in task.needs for task in images)
        assert images[0].key != images[1].key
    alone = planned(KEPT, "seeds=[0, 1]")
    assert alone.task("train", "ca_only", 1).key == plan.task("train", "best", 1).key


def test_a_shared_training_is_counted_once(planned: Planner) -> None:
    with_it, without = planned(KEPT, BEST), planned(KEPT)
    for known in (True, False):
        found = [
            Outlook(Asked.of(plan.suite), plan if known else None) for plan in (with_it, without)
        ]
        assert found[0].disk()["train"] == found[1].disk()["train"]
        assert memory_lines(found[0]) == memory_lines(found[1])
        assert found[0].num_todo(("train", "best")) == 0
        assert found[0].num_todo(("generate", "best")) == 1


@pytest.mark.parametrize("complete", [True, False])
def test_a_training_is_found_under_whichever_name_it_began(
    planned: Planner, complete: bool
) -> None:
    """Its other student came later, and stands before it in the suite."""
    task = planned(KEPT).task("train", "ca_only", 0)
    task.folder.mkdir(parents=True)
    if complete:
        mark_done(task.folder, {"key": task.key})
    later = "students={early: {method: ca_only, weights: best}, ca_only: {method: ca_only}}"
    plan = planned(KEPT, later, "baseline=ca_only")
    assert plan.task("train", "early", 0).folder == task.folder
    assert plan.task("train", "early", 0).complete() is complete
    shutil.rmtree(task.folder)
    assert planned(KEPT, later, "baseline=ca_only").of_stage("train")[0].student == "early"


def test_another_version_s_training_is_known_under_either_name(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = planned(KEPT, "students={best: {method: ca_only, weights: best}}", "baseline=best")
    task = alone.task("train", "best", 0)
    mark_done(task.folder, {"key": task.key})
    remember_asked(task)
    monkeypatch.setitem(VERSIONS, "train", 99)
    found = superseded(planned(KEPT, BEST), ["train"])
    assert [str(one.task) for one in found] == ["train ca_only"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((BEST,), r"students.best.weights: best, but nothing says by which metric.*keep_best"),
        ((EVALUATION % "null", BEST), "students.best.weights: best, but nothing says"),
        ((KEPT, "students.teacher_2.weights=best"), r"'teacher' takes no \['weights'\]"),
        ((KEPT, "students.ca_only.weights=first"), "'last' or 'best'"),
    ],
)
def test_best_weights_need_a_metric_and_a_training(
    planned: Planner, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        planned(*overrides)


# Images


@pytest.mark.long
def test_it_is_drawn_from_its_best_weights(planned: Planner) -> None:
    """The teacher's own, at no update: the images are those of the untrained network."""
    plan = planned(KEPT, BEST)
    task = plan.task("train", "ca_only", 0)
    train(plan, task, quiet)
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    drawn = {}
    for name in ("ca_only", "best"):
        student = plan.seeded(name, 0)
        source = SOURCES["train"](student, make_backend(), "cpu")
        assert source.sampled.endswith("best weights") == (name == "best")
        drawn[name] = source.draw(images)
        file = {"ca_only": "student", "best": "best"}[name]
        kept = load_file(task.folder / f"{file}.safetensors")
        assert all(torch.equal(kept[k], value) for k, value in trained_weights(student).items())
    teacher = make_backend().load_teacher().state_dict()
    best = trained_weights(plan.seeded("best", 0))
    assert all(torch.equal(best[name], value) for name, value in teacher.items())
    assert not torch.equal(drawn["best"], drawn["ca_only"])


def test_a_training_without_a_best_says_so(planned: Planner) -> None:
    plan = planned(KEPT, BEST)
    task = plan.task("train", "best", 0)
    train(plan, task, quiet)
    (task.folder / "best.safetensors").unlink()
    with pytest.raises(BenchError, match=r"^best: no evaluation while it trained had a value"):
        generate(plan, plan.task("generate", "best", 0), quiet)
    (task.folder / "student.safetensors").unlink()
    with pytest.raises(BenchError, match=r"^ca_only: .*student.safetensors is missing. Delete"):
        generate(plan, plan.task("generate", "ca_only", 0), quiet)


@pytest.mark.long
def test_a_whole_run(suite_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One training, two students: scored, reported, checked, and done once."""
    monkeypatch.chdir(tmp_path)
    given = [suite_name, *(part for one in (KEPT, BEST) for part in ("--set", one))]
    found = CliRunner().invoke(app, ["run", *given, "--workers", "1"])
    assert found.exit_code == 0, found.output
    (folder,) = Path("runs/tiny/train").glob("ca_only-*")
    assert not list(Path("runs/tiny/train").glob("best-*"))
    done = read_done(folder)
    assert done is not None
    assert done["best"]["iteration"] == 0

    (folder,) = Path("reports").iterdir()  # of a run with overrides, its own
    record = read_json(folder / "report.json")
    cells = {name: record["table"][name]["saturation"]["all"] for name in ("ca_only", "best")}
    assert cells["best"]["value"] < cells["ca_only"]["value"]
    assert record["students"]["best"]["best"] == {"metric": "saturation", "iterations": [0]}
    assert "best" not in record["students"]["ca_only"]
    assert record["dynamics"]["best"] == record["dynamics"]["ca_only"]
    page = (folder / "report.md").read_text()
    assert "while it trained (after 0 of 4 updates)" in page
    scores = {
        name: pd.read_parquet(next(Path("runs/tiny/score").glob(f"{name}-*")) / "per_image.parquet")
        for name in cells
    }
    assert not scores["best"].equals(scores["ca_only"])

    again = CliRunner().invoke(app, ["run", *given, "--workers", "1"])
    assert "0 tasks done" in again.output
    planned = CliRunner().invoke(app, ["plan", *given])
    assert "train best: one with that of ca_only" in planned.output
    assert planned.output.count("to do") == 0
