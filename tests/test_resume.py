"""Killed work is taken up again and ends the same, bit for bit; finished work is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.files import stopping
from ddmd_bench.files.records import mark_done, read_done
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.task import Task
from ddmd_bench.run.tasks import run_tasks
from ddmd_bench.stages import reference as reference_stage
from ddmd_bench.stages import score as score_stage
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.reference import reference
from ddmd_bench.stages.score import score
from ddmd_bench.stages.train import train
from ddmd_bench.suite.files import load_suite
from ddmd_bench.training.course import CHECKPOINT

STAGES = ("reference", "train", "generate", "score")
NUM_ITERATIONS = 12
Planner = Callable[..., Plan]


def quiet(*_: Any) -> None:
    """No progress."""


@pytest.fixture
def suite_name(tiny: dict, write_suite: Callable[[Any], str]) -> str:
    return write_suite(tiny)


@pytest.fixture
def planned(tmp_path: Path, suite_name: str) -> Planner:
    """Plans the tiny suite into a folder of the test's."""

    def make(runs: str, *overrides: str) -> Plan:
        return make_plan(load_suite(suite_name, overrides), tmp_path / runs, tmp_path / "reports")

    return make


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return condition()


# Training


def _stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, None where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def _children(pid: int) -> list[int]:
    every = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [child for child in every if (stat := _stat(child)) and stat[1] == pid]


def _has_ended(pid: int) -> bool:
    stat = _stat(pid)
    return stat is None or stat[0] == "Z"


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="reads processes from /proc")
def test_a_killed_training_goes_on_and_ends_the_same(
    planned: Planner, tmp_path: Path, suite_name: str
) -> None:
    """With all that a training can carry: a GAN, an average, a step embedding, evaluations."""
    overrides = (
        f"train.num_iterations={NUM_ITERATIONS}",
        "students={dmd: {method: dmd2, train: {ema: 0.9, fake_score_sees: step}}}",
        "evaluation={at: [0, 3, 9], num_prompts: 3, metrics: [std, saturation]}",
        "evaluation.keep_best=saturation",
    )
    killed, whole = planned("killed", *overrides), planned("whole", *overrides)
    folder = killed.task("train", "dmd", 0).folder
    command = [sys.executable, "-m", "ddmd_bench", "run", suite_name, "--workers", "1"]
    command += ["--runs", str(tmp_path / "killed"), "--reports", str(tmp_path / "reports")]
    command += [part for override in overrides for part in ("--set", override)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            begun = wait_until(
                lambda: run.poll() is not None or (folder / CHECKPOINT).is_file(), 120
            )
            workers = _children(run.pid)
        finally:
            run.send_signal(signal.SIGKILL)
    assert begun
    assert workers
    assert wait_until(lambda: all(map(_has_ended, workers)), 60)
    assert not killed.task("train", "dmd", 0).complete()

    taken_up: list[int] = []
    train(killed, killed.task("train", "dmd", 0), lambda done, _: taken_up.append(done))
    assert 2 < taken_up[0] <= NUM_ITERATIONS  # not from the start
    assert taken_up[-1] == NUM_ITERATIONS
    train(whole, whole.task("train", "dmd", 0), quiet)

    other = whole.task("train", "dmd", 0).folder
    names = {p.name for p in folder.iterdir()} - {"asked.json"}  # of a run, which the other is not
    assert names == {p.name for p in other.iterdir()}
    weights, expected = (load_file(f / "student.safetensors") for f in (folder, other))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    tables = [pd.read_parquet(f / "diagnostics.parquet").drop(columns="seconds")
              for f in (folder, other)]  # fmt: skip
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert tables[0]["iteration"].tolist() == list(range(1, NUM_ITERATIONS + 1))
    for name in ("evaluations.parquet", "best.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    records = [read_done(f) for f in (folder, other)]
    for fact in ("forwards", "backwards", "samples", "best"):
        assert records[0][fact] == records[1][fact]


@pytest.mark.long
@pytest.mark.parametrize("option", ["train.ema=0.9", "train.fake_score_sees=step"])
def test_a_checkpoint_holds_all_that_a_training_needs(planned: Planner, option: str) -> None:
    """Stopped by an error at an odd iteration, so that one is done again."""
    stopped, whole = planned("stopped", option), planned("whole", option)

    task = stopped.task("train", "dmd", 0)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, task, stop)
    seen: list[int] = []
    train(stopped, task, lambda done, _: seen.append(done))
    assert seen == [5, 6]
    train(whole, whole.task("train", "dmd", 0), quiet)
    folders = [plan.task("train", "dmd", 0).folder for plan in (stopped, whole)]
    weights, expected = (load_file(f / "student.safetensors") for f in folders)
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_request_to_stop_leaves_a_checkpoint(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM, as Slurm sends it, amid an update that no checkpoint was due after."""
    plan = planned("stopped", "train.checkpoint_every=50")
    task = plan.task("train", "dmd", 0)
    monkeypatch.setattr(stopping._Request, "asked", False)
    before = signal.getsignal(signal.SIGTERM)
    stopping.obey()

    def ask(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(stopping.Stopped):
            train(plan, task, ask)
    finally:
        signal.signal(signal.SIGTERM, before)
    monkeypatch.setattr(stopping._Request, "asked", False)
    assert (task.folder / CHECKPOINT).is_file()
    seen: list[int] = []
    train(plan, task, lambda done, _: seen.append(done))
    assert seen == [4, 5, 6]


def test_a_request_to_stop_in_the_last_update_ends_more_than_the_training(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("stopped", "train.num_iterations=1")
    task = plan.task("train", "dmd", 0)
    monkeypatch.setattr(stopping._Request, "asked", False)

    def ask(done: int, total: int) -> None:
        stopping._Request.asked = True

    with pytest.raises(stopping.Stopped):
        train(plan, task, ask)
    assert task.complete()


# Images and scores

# Ends itself with SIGKILL, as no handler can catch: amid the images, or with all but done.json.
KILLED = """
import os, signal, sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
import torch
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.students.prepared import Prepared
from ddmd_bench.suite.files import load_suite

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
suite, runs, name = sys.argv[1:]
plan = make_plan(load_suite(suite), Path(runs), Path(runs) / "reports")
stage = import_module(f"ddmd_bench.stages.{name}")
(task,) = [t for t in plan.of_stage(name) if t.student in ("", "teacher_2")]
if name == "generate":
    opened = Prepared.opened
    Prepared.opened = lambda *asked: replace(opened(*asked), images_at_once=4)
    getattr(stage, name)(plan, task, lambda done, _: done >= 8 and kill())
else:
    stage.mark_done = kill
    getattr(stage, name)(plan, task, lambda *_: None)
"""


def _contents(folder: Path) -> dict[str, bytes]:
    """Files but for `done.json`, which holds the seconds taken."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "done.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("stage", ["reference", "generate", "score"])
def test_a_killed_stage_ends_the_same(
    planned: Planner, tmp_path: Path, suite_name: str, stage: str
) -> None:
    redo = {"reference": reference, "generate": generate, "score": score}[stage]
    whole, killed = planned("whole"), planned("killed")
    reference(whole, whole.task("reference"), quiet)
    generate(whole, whole.task("generate", "teacher_2", 0), quiet)
    score(whole, whole.task("score", "teacher_2", 0), quiet)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    name = (stage,) if stage == "reference" else (stage, "teacher_2", 0)
    task = killed.task(*name)
    shutil.rmtree(task.folder)

    command = [sys.executable, "-c", KILLED, suite_name, str(tmp_path / "killed"), stage]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert _contents(task.folder)  # something was written
    assert not task.complete()
    if stage == "generate":
        (task.folder / "images" / "99999.png").write_bytes(b"left over")

    redo(killed, task, quiet)
    assert task.complete()
    assert _contents(task.folder) == _contents(whole.task(*name).folder)


# Kills itself amid the part that holds the last of so many images.
KILLED_AT = """
import os, signal, sys
from importlib import import_module
from pathlib import Path
import torch
from ddmd_bench.measuring import feature_parts, features, measure
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import load_suite

torch.set_num_threads(1)
suite, runs, override, stage, last = sys.argv[1:]
overrides = [one for one in override.split(";") if one]
plan = make_plan(load_suite(suite, overrides), Path(runs), Path(runs) / "reports")
feature_parts.PART, features.CHUNK_SIZE, measure.PART_SIZE = 8, 4, 2
(task,) = [t for t in plan.of_stage(stage) if t.student in ("", "teacher_2")]
getattr(import_module(f"ddmd_bench.stages.{stage}"), stage)(
    plan, task, lambda done, _: done >= int(last) and os.kill(os.getpid(), signal.SIGKILL)
)
"""


def _killed(suite_name: str, runs: Path, overrides: Sequence[str], stage: str, last: int) -> None:
    command = [sys.executable, "-c", KILLED_AT, suite_name, str(runs), ";".join(overrides), stage]
    command.append(str(last))
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.long
def test_a_killed_reference_goes_on_at_the_part(
    planned: Planner, tmp_path: Path, suite_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("metrics=[mean, std, frechet_attributes]", "reference.images_per_prompt=5")
    whole, killed = planned("whole", *overrides), planned("killed", *overrides)
    drawn: list[str] = []
    draw = reference_stage.draw_reference

    def noted(draw_real: Any, image: Any) -> Any:
        drawn.append(f"{image.prompt.prompt_id} {image.image_index}")
        return draw(draw_real, image)

    monkeypatch.setattr(reference_stage, "draw_reference", noted)
    monkeypatch.setattr("ddmd_bench.measuring.feature_parts.PART", 8)
    monkeypatch.setattr("ddmd_bench.measuring.features.CHUNK_SIZE", 4)
    task = whole.task("reference")
    reference(whole, task, quiet)
    every = list(drawn)
    assert len(set(every)) == 25

    for last, kept in ((4, 0), (12, 8), (25, 24)):
        _killed(suite_name, tmp_path / "killed", overrides, "reference", last)
        parts = killed.task("reference").folder / "parts"
        assert len(list(parts.glob("*/*.npz"))) == kept // 8
    drawn.clear()
    seen: list[int] = []
    reference(killed, killed.task("reference"), lambda done, _: seen.append(done))
    assert drawn == every[24:]
    assert seen == [25]
    found = _contents(killed.task("reference").folder)
    assert found == _contents(task.folder)
    assert found.keys() == {"features_attributes.npy", "metadata.jsonl"}


def test_a_killed_scoring_goes_on_at_the_part(
    planned: Planner, tmp_path: Path, suite_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddmd_bench.measuring.measure.PART_SIZE", 2)
    whole, killed = planned("whole"), planned("killed")
    generate(whole, whole.task("generate", "teacher_2", 0), quiet)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    reference(whole, whole.task("reference"), quiet)
    score(whole, whole.task("score", "teacher_2", 0), quiet)

    task = killed.task("score", "teacher_2", 0)
    num = len(list(killed.task("generate", "teacher_2", 0).folder.glob("images/*.png")))
    _killed(suite_name, tmp_path / "killed", (), "score", num - 2)
    assert not task.complete()
    opened: list[Path] = []
    decoded = score_stage.decoded
    monkeypatch.setattr(score_stage, "decoded", lambda path: opened.append(path) or decoded(path))
    reference(killed, killed.task("reference"), quiet)
    score(killed, task, quiet)
    assert 0 < len(opened) < num
    assert _contents(task.folder) == _contents(whole.task("score", "teacher_2", 0).folder)


# Order and skipping


def _times(tasks: list[Task]) -> dict[str, int]:
    return {str(task): (task.folder / "done.json").stat().st_mtime_ns for task in tasks}


@pytest.mark.long
def test_only_what_changed_is_done_again(planned: Planner) -> None:
    plan = planned("runs", "train.num_iterations=2")
    assert run_tasks(plan, STAGES, quiet, workers=1).num_done == len(plan.tasks)
    assert all(task.complete() for task in plan.tasks.values())
    times = _times(list(plan.tasks.values()))
    assert run_tasks(plan, STAGES, quiet, workers=1).num_done == 0
    assert _times(list(plan.tasks.values())) == times

    change = "students.ca_only.train.learning_rate=2e-4"
    changed = planned("runs", "train.num_iterations=2", change)
    todo = [str(task) for task in changed.tasks.values() if not task.complete()]
    assert todo == ["train ca_only", "generate ca_only", "score ca_only"]
    assert run_tasks(changed, STAGES, quiet, workers=1).num_done == 3
    assert all(task.complete() for task in changed.tasks.values())
    # What was there before still is: going back to it costs nothing.
    assert _times(list(plan.tasks.values())) == times


@pytest.mark.long
def test_a_student_or_a_seed_that_fails_leaves_the_others_whole(planned: Planner) -> None:
    diverging = "students.ca_only.train.learning_rate=1e6"
    plan = planned("runs", "train.num_iterations=2", "seeds=[0, 1]", diverging)
    key = plan.report_key
    broken = plan.task("train", "dmd", 1)
    broken.folder.mkdir(parents=True)
    weights = make_backend().load_teacher().state_dict()
    unusable = {key: value.new_full(value.shape, torch.nan) for key, value in weights.items()}
    save_file(unusable, broken.folder / "student.safetensors")
    mark_done(broken.folder, {"key": broken.key})

    problems = sorted(run_tasks(plan, STAGES, quiet, workers=1).problems)
    assert len(problems) == 3
    stopped = "training stopped at iteration 2 of 2: the student's x0 is not finite"
    for seed, problem in enumerate(problems[1:]):
        assert problem.startswith(f"train ca_only, seed {seed}: {stopped}")
    assert problems[0] == "generate dmd, seed 1: its images hold values that are not finite"
    left = {str(task) for task in plan.tasks.values() if not task.complete()}
    of_ca_only = {f"{stage} ca_only, seed {seed}" for stage in STAGES[1:] for seed in (0, 1)}
    assert left == of_ca_only | {"generate dmd, seed 1", "score dmd, seed 1"}
    # A report made now is another one than that of the whole run.
    assert plan.report_key != key


def test_done_json_alone_says_done(planned: Planner) -> None:
    task = planned("runs").task("train", "dmd", 0)
    task.folder.mkdir(parents=True)
    assert not task.complete()
    (task.folder / ".done.json.123.tmp").write_text('{"schema": 1, "ke')
    (task.folder / "student.safetensors").write_bytes(b"")
    assert not task.complete()
    mark_done(task.folder, {"key": "another"})
    assert not task.complete()
    mark_done(task.folder, {"key": task.key})
    assert task.complete()
