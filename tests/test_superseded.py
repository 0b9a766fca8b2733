"""What another version of the code has made is told before any work, and redone only when asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.commands.running import ALL_STAGES
from ddmd_bench.files.records import mark_done, write_whole
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.superseded import ASKED, remember_asked, superseded, superseded_lines
from ddmd_bench.run.tasks import Outcome
from ddmd_bench.suite.files import load_suite

Planner = Callable[..., Plan]


@pytest.fixture
def planned(
    tmp_path: Path,
    tiny: dict,
    write_suite: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> Planner:
    """Plans the tiny suite, of which everything is finished: an hour each."""
    name = write_suite(tiny)
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Plan:
        return make_plan(load_suite(name, overrides), Path("runs"), Path("reports"))

    for task in make().tasks.values():
        mark_done(task.folder, {"key": task.key, "seconds": 3600.0})
        remember_asked(task)
    return make


def kinds(plan: Plan) -> set[tuple[str, str]]:
    return {(one.task.stage, one.task.student) for one in superseded(plan, ALL_STAGES)}


def test_a_raised_version_tells_what_hangs_on_it(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kinds(planned()) == set()
    monkeypatch.setitem(VERSIONS, "train", VERSIONS["train"] + 1)
    trained = ("dmd", "ca_only")
    expected = {(stage, s) for stage in ("train", "generate", "score") for s in trained}
    assert kinds(planned()) == expected
    lines = superseded_lines(superseded(planned(), ALL_STAGES))
    assert f"train {VERSIONS['train'] - 1} -> {VERSIONS['train']}" in lines[0]
    assert lines[1].strip() == "train: 2 (dmd, ca_only), 2.0 h by their records"
    monkeypatch.setitem(VERSIONS, "backend shapes", 5)
    assert kinds(planned()) == {(task.stage, task.student) for task in planned().tasks.values()}


def test_another_wish_supersedes_nothing(planned: Planner) -> None:
    assert kinds(planned("train.guidance_scale=3")) == set()


def test_what_is_redone_is_not_told_again(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERSIONS, "score", VERSIONS["score"] + 1)
    tasks = planned().of_stage("score")
    for task in tasks:
        mark_done(task.folder, {"key": task.key})
    assert kinds(planned()) == set()


def test_a_cut_file_is_no_result(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in Path("runs").glob(f"*/*/*/{ASKED}"):
        write_whole(path, path.read_text()[:20])
    monkeypatch.setitem(VERSIONS, "train", VERSIONS["train"] + 1)
    assert kinds(planned()) == set()


def test_redoing_waits_for_the_word(planned: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run_tasks(plan: Plan, *rest: Any) -> Outcome:
        ran.append(plan)
        return Outcome(0, [])

    monkeypatch.setattr("ddmd_bench.run.settling.run_tasks", run_tasks)
    monkeypatch.setitem(VERSIONS, "train", VERSIONS["train"] + 1)
    refused = CliRunner().invoke(app, ["train", "tiny.yaml"])
    assert refused.exit_code == 2
    said = refused.stderr
    assert f"train {VERSIONS['train'] - 1} -> {VERSIONS['train']}" in said
    assert "2.0 h by their records" in said
    assert "--redo" in said
    assert not ran
    told = CliRunner().invoke(app, ["plan", "tiny.yaml"])
    assert told.exit_code == 0
    assert "train: 2 (dmd, ca_only), 2.0 h by their records" in told.stdout
    assert CliRunner().invoke(app, ["train", "tiny.yaml", "--redo"]).exit_code == 0
    assert len(ran) == 1
