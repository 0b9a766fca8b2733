"""A command that a launcher started several times: one run, whose work its processes share."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY
from on_ranks import Ended, on_ranks
from safetensors.torch import load_file
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.files import ranks
from ddmd_bench.files.records import read_done
from ddmd_bench.measuring import feature_parts, measure
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.run import together
from ddmd_bench.stages import train
from ddmd_bench.suite.files import load_suite
from ddmd_bench.training.course import Course

Planner = Callable[[Path], Plan]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = copy.deepcopy(TINY)
    data["students"].pop("ca_only")
    data["train"] |= {"fake_score_updates": 1, "t_list": [1.0, 0.5], "batch_size": 4}
    data["evaluation"] = {
        "at": [1, 6],
        "num_prompts": 1,
        "metrics": ["prompt_accuracy"],
        "keep_best": "prompt_accuracy",
    }
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def planned(suite: str) -> Planner:
    def make(runs: Path) -> Plan:
        return make_plan(load_suite(suite, []), runs, Path(f"{runs}_reports"))

    return make


@pytest.fixture(scope="module")
def alone(planned: Planner, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The whole run of one process."""
    runs = tmp_path_factory.mktemp("alone") / "runs"
    assert CliRunner().invoke(app, arguments(suite, runs)).exit_code == 0
    return planned(runs)


def arguments(suite: str, folder: Path, *more: str) -> list[str]:
    runs, reports = str(folder), f"{folder}_reports"
    return ["run", suite, "--runs", runs, "--reports", reports, *more]


def invoked(given: list[list[str]]) -> tuple[int, str, str]:
    """Exit code, output and errors of a rank's command."""
    result = CliRunner().invoke(app, given[ranks.number() % len(given)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.long
def test_torchrun_does_one_run_with_two_processes(
    planned: Planner, alone: Plan, suite: str, tmp_path: Path
) -> None:
    """What is drawn from given weights is equal to the byte, what is trained to rounding."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "ddmd_bench", *arguments(suite, tmp_path / "two")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    one, two = alone, planned(tmp_path / "two")
    assert run.stdout.count(f"tiny: {len(two.tasks)} tasks done, 0 were complete") == 1
    assert all(task.complete() for task in two.tasks.values())
    for student in ("real", "teacher_2"):
        pairs = [plan.task("generate", student, 0).folder / "images" for plan in (one, two)]
        names = [sorted(path.name for path in folder.iterdir()) for folder in pairs]
        assert names[0] == names[1]
        for name in names[0]:
            assert (pairs[0] / name).read_bytes() == (pairs[1] / name).read_bytes(), name
        tables = [
            plan.task("score", student, 0).folder / "per_image.parquet" for plan in (one, two)
        ]
        assert tables[0].read_bytes() == tables[1].read_bytes()
    weights = [weights_of(plan) for plan in (one, two)]
    assert (weights[0] - weights[1]).abs().mean() < 1e-5
    records = [read_done(plan.task("train", "dmd", 0).folder) for plan in (one, two)]
    assert [record["ranks"] for record in records] == [1, 2]
    assert records[0]["forwards"] == records[1]["forwards"]
    assert not list((tmp_path / "two").rglob("drawn*.jsonl"))


def weights_of(plan: Plan) -> torch.Tensor:
    state = load_file(plan.task("train", "dmd", 0).folder / "student.safetensors")
    return torch.cat([state[name].flatten() for name in sorted(state)])


@contextmanager
def unreachable(*_: Any) -> Iterator[None]:
    """A tracker, which the first rank alone has."""
    if ranks.is_first():
        raise OSError("no network")
    yield


def resumed_with_a_tracker(suite: str, runs: Path) -> str:
    """What a rank raises where a training goes on and the tracker of the first cannot begin."""
    train.tracked = unreachable  # type: ignore[assignment]
    Course.resume = lambda course: course.rows.append({})  # type: ignore[method-assign]
    Course.advance = lambda course: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    plan = make_plan(load_suite(suite, []), runs, runs)
    with pytest.raises(Exception) as found:  # noqa: PT011 - any kind
        train.train(plan, plan.task("train", "dmd", 0), lambda *_: None)
    return f"{type(found.value).__name__}: {found.value}"


@pytest.mark.long
def test_a_tracker_that_fails_ends_all_before_an_update(suite: str, tmp_path: Path) -> None:
    assert on_ranks(2, resumed_with_a_tracker, suite, tmp_path) == ["OSError: no network"] * 2


def killed_on_the_way(given: list[str]) -> tuple[int, str, str]:
    """The last rank is killed after three updates, when a checkpoint of two is there."""
    advance = Course.advance

    def counted(course: Course) -> dict[str, float]:
        if len(course.rows) == 3 and ranks.number() == ranks.num() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(course)

    Course.advance = counted  # type: ignore[method-assign]
    (code, out, err) = invoked([given])
    Path(given[given.index("--runs") + 1], f"said{ranks.number()}.json").write_text(
        json.dumps([code, out, err])
    )
    return code, out, err


@pytest.mark.long
def test_a_rank_that_is_killed_ends_all_and_any_number_goes_on(
    planned: Planner, alone: Plan, suite: str, tmp_path: Path
) -> None:
    """Two that keep their weights in parts, and three that do not."""
    given = arguments(suite, tmp_path / "killed")
    with pytest.raises(Ended) as ended:
        on_ranks(2, killed_on_the_way, [*given, "--set", "train.sharding=weights"])
    assert ended.value.codes == [0, -signal.SIGKILL]
    code, _, err = json.loads((tmp_path / "killed" / "said0.json").read_text())
    assert code != 0
    assert "ended in the middle of a pass, and the others with it" in err
    assert "run again to go on" in err
    plan = planned(tmp_path / "killed")
    assert (plan.task("train", "dmd", 0).folder / "checkpoint.pt").is_file()

    three = on_ranks(3, invoked, [given])
    assert [code for code, *_ in three] == [0, 0, 0], three
    assert "tasks done" in three[0][1]
    assert three[1][1:] == three[2][1:] == ("", "")
    assert (weights_of(plan) - weights_of(alone)).abs().mean() < 1e-5


@pytest.mark.long
def test_a_failure_on_one_rank_is_the_tasks(suite: str, tmp_path: Path) -> None:
    found = on_ranks(2, failing, arguments(suite, tmp_path / "runs"))
    assert [code for code, *_ in found] == [3, 0]
    assert "train dmd" in found[0][2]
    assert "OSError: the disk is gone (where: " in found[0][2]
    assert "has left this task" not in found[0][2]
    assert "generate dmd" not in found[0][1]
    assert "score teacher_2" in found[0][1]  # the others went on
    assert found[1][1:] == ("", "")


def failing(given: list[str]) -> tuple[int, str, str]:
    """The second rank meets an error in its third update, outside of any agreement."""
    advance = Course.advance

    def counted(course: Course) -> dict[str, float]:
        if len(course.rows) == 2 and ranks.number() == 1:
            raise OSError("the disk is gone")
        return advance(course)

    Course.advance = counted  # type: ignore[method-assign]
    return invoked([given])


def scored_in_small_parts(given: list[str]) -> tuple[int, int]:
    """Exit code, and how many parts of images this rank has scored."""
    num_parts = 0
    write_part = measure.write_part

    def counted(*of_part: Any) -> None:
        nonlocal num_parts
        num_parts += 1
        write_part(*of_part)

    measure.PART_SIZE, measure.write_part = 2, counted  # type: ignore[attr-defined]
    code, *_ = invoked([given])
    return code, num_parts


@pytest.mark.long
def test_the_parts_of_a_scoring_are_dealt(
    planned: Planner, alone: Plan, suite: str, tmp_path: Path
) -> None:
    shutil.copytree(alone.runs, tmp_path / "runs")
    for folder in ("score", "answers"):
        shutil.rmtree(tmp_path / "runs" / "tiny" / folder)
    found = on_ranks(3, scored_in_small_parts, arguments(suite, tmp_path / "runs"))
    assert [code for code, _ in found] == [0, 0, 0]
    assert all(num_parts > 0 for _, num_parts in found)
    plans = alone, planned(tmp_path / "runs")
    for student in alone.suite.students:
        folders = [plan.task("score", student, 0).folder for plan in plans]
        tables = [(folder / "per_image.parquet").read_bytes() for folder in folders]
        assert tables[0] == tables[1]


def referred_in_small_parts(given: list[str]) -> tuple[int, int]:
    """Exit code, and how many parts of the reference this rank has made."""
    num_parts = 0
    write = feature_parts._write

    def counted(*of_part: Any) -> None:
        nonlocal num_parts
        num_parts += 1
        write(*of_part)

    feature_parts.PART, feature_parts._write = 2, counted  # type: ignore[misc]
    code, *_ = invoked([given])
    return code, num_parts


@pytest.mark.long
def test_the_parts_of_a_reference_are_dealt(suite: str, tmp_path: Path) -> None:
    """Five images in parts of two, and files of the same bytes. One process has a worker do it,
    whose parts are not so small: on some processors other batches are other last bits."""
    files = []
    for num, parts_of_ranks in ((1, [0]), (2, [2, 1]), (3, [1, 1, 1])):
        runs = tmp_path / str(num)
        given = ["reference", suite, "--runs", str(runs), "--set", "metrics=[frechet_attributes]"]
        found = on_ranks(num, referred_in_small_parts, given)
        assert found == [(0, num_parts) for num_parts in parts_of_ranks]
        (folder,) = runs.glob("tiny/reference/*")
        files.append({path.name: path.read_bytes() for path in folder.glob("*[yl]")})
    assert files[1] == files[2]
    assert sorted(files[0]) == ["features_attributes.npy", "metadata.jsonl"]
    assert files[0]["metadata.jsonl"] == files[1]["metadata.jsonl"]
    features = [np.load(io.BytesIO(found["features_attributes.npy"])) for found in files[:2]]
    assert features[0] == pytest.approx(features[1], rel=1e-4, abs=1e-4)


def refused(suite: str, folder: Path) -> dict[str, list[tuple[int, str, str]]]:
    """What ranks are told that cannot work together."""
    given = arguments(suite, folder)
    differing = invoked([given, [*given, "--set", "train.learning_rate=0.5"]])
    version = together.version
    together.version = lambda name: f"{name} {ranks.number()}"  # type: ignore[assignment]
    packages = invoked([given])
    together.version = version
    return {
        "few": invoked([[*given, "--set", "train.batch_size=2"]]),
        "workers": invoked([[*given, "--workers", "2"]]),
        "differing": differing,
        "packages": packages,
        "one lacks": invoked([given, [*given[:1], str(folder / "none.yaml"), *given[2:]]]),
    }


def test_what_cannot_be_shared_is_refused_before_any_work(suite: str, tmp_path: Path) -> None:
    found = on_ranks(3, refused, suite, tmp_path / "runs")
    expected = {
        "few": "train.batch_size of dmd is 2: fewer samples than the 3 processes",
        "workers": "--workers 2: a launcher started this command 3 times",
        "differing": "the processes differ in the keys of the suite's tasks: rank 1 on",
        "packages": "the processes differ in their packages: rank 1 on",
        "one lacks": "rank 1 on ",
    }
    for key, text in expected.items():
        assert [answers[key][0] for answers in found] == [2, 2, 2], key
        said = [answers[key][2] for answers in found]
        # The first speaks for all; whoever met it alone may say it too.
        assert text in said[0], said
        if key != "one lacks":
            assert said[1:] == ["", ""]
    assert "none.yaml" in found[0]["one lacks"][2]
    assert not (tmp_path / "runs").exists()


def test_images_are_dealt_in_the_batches_that_one_rank_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ddmd_bench.stages.generate import _own

    missing = [*range(3), *range(6, 20)]
    whole = [missing[k : k + 3] for k in range(0, len(missing), 3)]
    dealt: list[list[int]] = []
    for rank in range(4):
        monkeypatch.setattr(ranks._Here, "number", rank)
        monkeypatch.setattr(ranks._Here, "num", 4)
        own = _own(missing, 3)
        dealt += [own[k : k + 3] for k in range(0, len(own), 3)]
    assert sorted(dealt) == whole
    assert np.concatenate(dealt).size == len(missing)
