"""A run seen from outside: what it tells beside its lock, and the table that is made of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddmd_bench.commands import watching
from ddmd_bench.commands.cli import app
from ddmd_bench.commands.plans import planned
from ddmd_bench.files.records import mark_done
from ddmd_bench.planning.plan import Plan
from ddmd_bench.run import progress
from ddmd_bench.run.events import Event, Note, Standing
from ddmd_bench.run.progress import FILE, read_progress, told_beside


def plan_of(suite: str, folder: Path) -> Plan:
    return planned(suite, ["seeds=[0, 1]"], folder / "runs", folder / "reports")


def looked(suite: str, folder: Path) -> str:
    given = ["watch", suite, "--set", "seeds=[0, 1]", "--runs", str(folder / "runs")]
    result = CliRunner().invoke(app, [*given, "--reports", str(folder / "reports"), "--once"])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_tells_how_far_it_is_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    seen: list[Any] = []
    assert read_progress(tmp_path) is None
    with told_beside(tmp_path, seen.append) as told:
        told(Event("train dmd", 3, 10))
        told(Standing(1, 4, None, True))
        told(Event("train ca_only", 10, 10))
        found = read_progress(tmp_path)
        assert found is not None
        assert found["tasks"] == {"train dmd": [3, 10]}
        assert found["standing"] == [1, 4, None, True]
        told(Note("train dmd", "fails"))
        found = read_progress(tmp_path)
        assert found is not None
        assert found["tasks"] == {}
    assert len(seen) == 4
    assert not (tmp_path / FILE).exists()


def test_a_disk_that_takes_nothing_stops_no_run(tmp_path: Path) -> None:
    seen: list[Any] = []
    (tmp_path / FILE).mkdir()  # what cannot be written over
    with told_beside(tmp_path, seen.append) as told:
        told(Event("train dmd", 3, 10))
    assert seen == [Event("train dmd", 3, 10)]


def test_the_table_tells_what_is_done_fails_and_waits(
    tiny: dict, write_suite: Callable[[Any], str], tmp_path: Path
) -> None:
    suite = write_suite(tiny)
    plan = plan_of(suite, tmp_path)
    for seed in (0, 1):
        task = plan.task("train", "dmd", seed)
        mark_done(task.folder, {"key": task.key})
    plan.task("train", "ca_only", 0).note_failure("no")
    folder = plan.runs / plan.suite.name
    told = {"at": time.time(), "tasks": {"generate dmd, seed 1": [3, 10]}}
    (folder / FILE).write_text(json.dumps({**told, "standing": [1, 9, 75.0, False]}))
    rows = {
        row[0]: row[1:] for line in looked(suite, tmp_path).splitlines() if (row := line.split())
    }
    assert rows["dmd"] == ["2/2", "0/2,", "3", "of", "10", "0/2"]
    assert rows["ca_only"] == ["0/2,", "1", "failed", "0/2", "0/2"]
    assert rows["teacher_2"] == ["-", "0/2", "0/2"]
    assert "about 1:15 left in all" in looked(suite, tmp_path)
    (folder / FILE).write_text(json.dumps({**told, "at": time.time() - 600, "standing": []}))
    assert "heard of last 10 min ago" in looked(suite, tmp_path)
    (folder / FILE).unlink()
    assert "no run is under way here" in looked(suite, tmp_path)


def test_it_looks_until_the_run_ends_and_makes_the_report_as_students_are_scored(
    tiny: dict, write_suite: Callable[[Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(tiny)
    plan = plan_of(suite, tmp_path)
    folder = plan.runs / plan.suite.name
    monkeypatch.setattr(watching, "POLL_S", 0.01)
    monkeypatch.setattr(type(watching.console), "is_terminal", True)
    made: list[int] = []

    def report(plan: Plan) -> str:
        made.append(sum(task.complete() for task in plan.of_stage("score")))
        return "report: there"

    monkeypatch.setattr(watching, "_report", report)
    folder.mkdir(parents=True)
    told = {"at": time.time(), "tasks": {}, "standing": []}
    (folder / FILE).write_text(json.dumps(told))

    def others() -> None:
        for name in ("dmd", "ca_only"):
            time.sleep(0.3)
            task = plan.task("score", name, 0)
            mark_done(task.folder, {"key": task.key})
        time.sleep(0.3)
        (folder / FILE).unlink()

    run = threading.Thread(target=others)
    run.start()
    given = ["--set", "seeds=[0, 1]", "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, ["watch", suite, *given])
    run.join()
    assert result.exit_code == 0, result.output
    assert made == [1, 2]
    assert "the run has ended" in result.output
