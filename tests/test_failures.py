"""Whatever one student does, the others go on: the report names it, and so do the exit codes.

Workers are forked from the test here, so that they have the students that it makes: real processes
on real pipes, as in any run.
"""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import multiprocessing
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ddmd_bench.commands.cli import app
from ddmd_bench.data.images import ImageId
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.task import Task
from ddmd_bench.reporting.checked import NOT_RUN
from ddmd_bench.run import workers
from ddmd_bench.stages import generate, score, train
from ddmd_bench.students.sources import SOURCES, ImageSource
from ddmd_bench.suite.files import load_suite


class Unreadable(Exception):
    """Its text cannot be had, nor can it be sent to another process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise AttributeError("no text")


class PanicException(BaseException):
    """As the Rust in tokenizers and safetensors panics: no Exception."""


def thrower(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


def die_with_words() -> None:
    """As C code that gives up: past Python, with a line that says why."""
    os.write(1, b"first\n" * 9)
    os.write(2, b"terminate called: no device\n\n")
    faulthandler.disable()  # pytest's, which has words of its own
    os.abort()


LAST_WORDS = (
    "its process was ended by SIGABRT. Run again: what is complete is kept. "
    "The last that it wrote: first | first | terminate called: no device"
)


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


# What a student does while it is drawn, and what the report says of it.
WAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "refuses": (thrower(BenchError("a.png: no such\nfile | here")), "a.png: no such file | here"),
    "throws": (thrower(ValueError("no <b>square</b> \udcff")), "ValueError: no <b>square</b>"),
    "unreadable": (thrower(Unreadable()), "Unreadable: its message cannot be read"),
    "exits": (thrower(SystemExit(0)), "SystemExit: 0"),
    "interrupts": (thrower(KeyboardInterrupt()), "KeyboardInterrupt: no message"),
    "panics": (thrower(PanicException("index out of range")), "PanicException: index out of"),
    "is_gone": (lambda: os._exit(0), "its process ended with exit code 0"),
    "is_killed": (
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        "its process was ended by SIGKILL, probably for want of memory",
    ),
    "aborts": (
        die_with_words,
        LAST_WORDS,
    ),
    "real_time": (
        lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3),
        f"its process was ended by signal {signal.SIGRTMIN + 3}",
    ),
    "too_large": (run_out_of_memory, "drawing a single image does not fit into the memory of"),
}
TEACHER = {"source": "teacher", "num_inference_steps": 1, "guidance_scale": 1}


@pytest.fixture
def tiny(tiny: dict[str, Any]) -> dict[str, Any]:
    """As little as has a report of several students."""
    prompts = {"seen": {"source": "shapes/seen", "num_prompts": 2}}
    train = {"num_iterations": 1, "batch_size": 4, "fake_score_updates": 1}
    return {**tiny, "prompts": prompts, "train": train, "metrics": ["saturation", "std"]}


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in workers.PRELOADED:  # once, not in each fork
        import_module(name)
    fork, serve = multiprocessing.get_context("fork"), workers._serve

    def alone(*given: Any) -> None:
        connection = given[-1]
        for other in [one for one in gc.get_objects() if type(one) is type(connection)]:
            if other is not connection:  # a fork has the test's ends too: none would ever close
                other.close()
        serve(*given)

    monkeypatch.setattr(workers, "_context", lambda slot: fork)
    monkeypatch.setattr(workers, "_serve", alone)


@pytest.fixture
def command(
    tmp_path: Path, write_suite: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)

    def invoke(name: str, suite: dict[str, Any], *options: str) -> Result:
        result = CliRunner().invoke(app, [name, write_suite(suite), *options])
        assert "Traceback" not in result.output, result.output
        return result

    return invoke


def plan_of(suite: dict[str, Any]) -> Plan:
    """As the command makes it."""
    Path("tiny.yaml").write_text(json.dumps(suite))  # which is YAML too
    return make_plan(load_suite("tiny.yaml"), Path("runs"), Path("reports"))


def times(plan: Plan) -> dict[str, int]:
    """When each complete task was finished."""
    whole = [task for task in plan.tasks.values() if task.complete()]
    return {str(task): (task.folder / "done.json").stat().st_mtime_ns for task in whole}


def texts(plan: Plan) -> dict[str, str]:
    names = ("index.html", "report.md", "report.json")
    return {name: (plan.report_folder / name).read_text() for name in names}


@pytest.mark.long
def test_no_way_to_fail_costs_another_student_anything(
    forked: None,
    command: Callable[..., Result],
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny["students"] = (
        {"fine": TEACHER} | dict.fromkeys(WAYS, TEACHER) | {"real": tiny["students"]["real"]}
    )
    tiny["baseline"] = "throws"
    made = SOURCES["teacher"]

    def failing(student: Any, *others: Any) -> ImageSource:
        source = made(student, *others)
        if student.name not in WAYS:
            return source

        def draw(images: Sequence[ImageId]) -> torch.Tensor:
            WAYS[student.name][0]()
            return source.draw(images)

        return source._replace(draw=draw)

    monkeypatch.setitem(SOURCES, "teacher", failing)  # type: ignore[arg-type]
    result = command("run", tiny, "--workers", "2")
    assert result.exit_code == 3
    plan = plan_of(tiny)
    left = {str(task) for task in plan.tasks.values() if not task.complete()}
    assert left == {f"{stage} {name}" for stage in ("generate", "score") for name in WAYS}
    record = read_json(plan.report_folder / "report.json")
    said = texts(plan)
    for name, (_, reason) in WAYS.items():
        missing = record["students"][name]["missing"]
        assert missing.startswith(f"stopped in generate: {reason}")
        assert f"\n  generate {name}: {reason}" in result.stderr
        assert reason.replace("|", "\\|").replace("<", "&lt;") in said["report.md"]
        assert reason.replace("<", "&lt;").replace(">", "&gt;") in said["index.html"]
    assert f"{len(WAYS)} of {len(plan.tasks)} tasks failed, and {len(WAYS)}" in result.stderr
    for name in ("fine", "real"):
        assert record["students"][name]["missing"] == ""
        assert record["table"][name]["saturation"]["all"]["value"] is not None
    kept = plan.task("generate", "throws", 0).folder / "traceback.txt"
    assert "ValueError: no <b>square</b>" in kept.read_text()
    assert f"(where: {kept})" in result.stderr.replace("\n", "")

    checked = command("check", tiny)
    assert checked.exit_code == NOT_RUN
    for name, (_, reason) in WAYS.items():
        assert f"generate {name}: {reason}" in checked.output

    # Mended: what is missing is done, and nothing is left of the failures.
    before = times(plan)
    monkeypatch.setitem(SOURCES, "teacher", made)
    mended = command("run", tiny, "--workers", "2")
    assert mended.exit_code == 0, mended.output
    assert mended.stderr == ""
    assert {name: times(plan)[name] for name in before} == before
    assert all(task.complete() for task in plan.tasks.values())
    assert not [*Path("runs").rglob("failed.json"), *Path("runs").rglob("traceback.txt")]
    assert "stopped" not in "".join(texts(plan).values())
    students = read_json(plan.report_folder / "report.json")["students"]
    assert not [name for name, student in students.items() if student["missing"]]


@pytest.mark.long
def test_a_stage_that_throws_stops_what_needs_it(
    forked: None,
    command: Callable[..., Result],
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each student in another stage; the second run repeats nothing but what failed."""
    stages = {"train": train, "generate": generate, "score": score}
    trained = tiny["students"]["ca_only"]
    tiny["students"] = {"fine": TEACHER, "generate": TEACHER, "score": TEACHER, "train": trained}
    tiny["baseline"] = "fine"

    def broken(name: str, do: Any) -> Callable[..., None]:
        def stage(plan: Plan, task: Task, progress: Any) -> None:
            if task.student == name:
                raise RuntimeError("shapes differ")
            do(plan, task, progress)

        return stage

    with monkeypatch.context() as patched:
        for name, module in stages.items():
            patched.setattr(module, name, broken(name, getattr(module, name)))
        result = command("run", tiny, "--workers", "1")
        assert result.exit_code == 3
        assert "3 of 10 tasks failed, and 3 that need them were not begun" in result.stderr
        plan = plan_of(tiny)
        assert {str(task) for task in plan.tasks.values() if not task.complete()} == {
            *("train train", "generate train", "score train"),
            *("generate generate", "score generate"),
            "score score",
        }
        before = times(plan)
        again = command("run", tiny, "--workers", "1")
        assert (again.exit_code, times(plan)) == (3, before)
        assert "report.json" in {p.name for p in plan.report_folder.iterdir()}
        assert (
            command("generate", tiny, "--workers", "1").exit_code == 2
        )  # what it needs is lacking
    students = read_json(plan.report_folder / "report.json")["students"]
    for name in stages:
        assert f"{name} {name}: RuntimeError: shapes differ (where: " in result.stderr
        assert f"{name} {name}: failed: RuntimeError: shapes differ" in result.stdout
        assert students[name]["missing"] == f"stopped in {name}: RuntimeError: shapes differ"
    assert students["fine"]["missing"] == ""
    assert command("run", tiny, "--workers", "1").exit_code == 0
    assert {one: when for one, when in times(plan).items() if one in before} == before
    students = read_json(plan.report_folder / "report.json")["students"]
    assert not any(student["missing"] for student in students.values())


def test_what_all_students_need_is_named_for_each(
    forked: None,
    command: Callable[..., Result],
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny["students"] = {"fine": TEACHER}
    tiny["baseline"] = "fine"
    monkeypatch.setattr("ddmd_bench.stages.reference.extract", lambda *_: 1 / 0)
    assert command("run", tiny, "--workers", "1").exit_code == 3
    missing = read_json(Path("reports/tiny/report.json"))["students"]["fine"]["missing"]
    assert missing == "stopped in reference: ZeroDivisionError: division by zero"


@pytest.mark.long
def test_weights_that_are_damaged_and_images_that_are_gone(
    forked: None, command: Callable[..., Result], tiny: dict[str, Any]
) -> None:
    tiny["students"] = {name: tiny["students"][name] for name in ("teacher_2", "dmd", "ca_only")}
    assert command("train", tiny).exit_code == 0
    plan = plan_of(tiny)
    weights = plan.task("train", "ca_only", 0).folder / "student.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    result = command("run", tiny)
    assert result.exit_code == 3
    students = read_json(plan.report_folder / "report.json")["students"]
    assert students["ca_only"]["missing"].startswith(f"stopped in generate: {weights}: another")
    assert students["dmd"]["missing"] == students["teacher_2"]["missing"] == ""
    assert f"generate ca_only: {weights}: another file" in command("generate", tiny).stderr
    before = times(plan)
    weights.write_bytes(whole)
    assert command("run", tiny).exit_code == 0
    assert {name: when for name, when in times(plan).items() if name in before} == before

    # What is lost after all is complete is a student's own loss too.
    (plan.task("score", "dmd", 0).folder / "per_image.parquet").write_bytes(b"PAR1")
    shutil.rmtree(plan.task("generate", "ca_only", 0).folder / "images")
    shutil.rmtree(plan.report_folder)
    result = command("run", tiny)
    assert result.exit_code == 3
    students = read_json(plan.report_folder / "report.json")["students"]
    assert students["teacher_2"]["missing"] == ""
    for name, file in {"dmd": "per_image.parquet", "ca_only": "metadata.jsonl"}.items():
        assert students[name]["missing"].startswith("has files that cannot be read: ")
        assert file in students[name]["missing"] or name == "dmd"
        # The command to type names the suite as it was typed.
        assert students[name]["missing"].split(" SUITE")[0] in result.stderr


def test_a_worker_that_dies_before_it_is_asked_is_one_task_s_failure(
    forked: None, command: Callable[..., Result], tiny: dict[str, Any]
) -> None:
    tiny["students"] = {"fine": TEACHER}
    tiny["baseline"] = "fine"
    plan = plan_of(tiny)
    worker = workers.Worker(plan, workers.Slot(1, None))
    worker._start()
    worker._process.kill()
    worker._process.join()
    worker.stage, worker._process.is_alive = "score", lambda: True  # not noticed yet
    worker.begin(plan.task("score", "fine", 0))
    del worker._process.is_alive
    (ended,) = worker.messages()
    assert isinstance(ended, workers.Ended)
    assert "was ended by SIGKILL" in (ended.problem or "")


class Connection:
    """What a worker says, kept."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def send(self, message: Any) -> None:
        self.said.append(message)


def test_a_failed_student_s_network_is_freed(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the error's frames hold it, and the error itself one of them."""
    monkeypatch.chdir(tmp_path)
    tiny["students"] = {"large": TEACHER}
    tiny["baseline"] = "large"
    plan, networks = plan_of(tiny), list[weakref.ref[torch.nn.Module]]()

    def made(student: Any, backend: Any, device: str) -> ImageSource:
        network = torch.nn.Linear(4, 4)
        networks.append(weakref.ref(network))

        def draw(images: Sequence[ImageId]) -> torch.Tensor:
            error = ValueError(f"{network.weight.shape}")
            raise error  # a cycle: frame, error, traceback, frame

        return ImageSource(draw, 1, 1)

    monkeypatch.setitem(SOURCES, "teacher", made)
    gc.collect()
    gc.disable()  # only what the worker itself does counts
    try:
        ended = workers.done(plan.task("generate", "large", 0), plan, Connection().send)
        assert [one() for one in networks] == [None]
    finally:
        gc.enable()
    assert ended.problem == "ValueError: torch.Size([4, 4])"


def test_memory_that_runs_out_makes_the_batch_smaller_and_the_run_says_so(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny["students"] = {"large": TEACHER}
    tiny["baseline"] = "large"
    plan, connection = plan_of(tiny), Connection()
    task, made, sizes = plan.task("generate", "large", 0), SOURCES["teacher"], list[int]()
    whole = workers.done(task, plan, connection.send)
    assert whole.problem is None
    num = read_json(task.folder / "done.json")["n"]
    assert read_json(task.folder / "done.json")["images_at_once"] == 64
    pictures = {p.name: p.read_bytes() for p in (task.folder / "images").iterdir()}

    def narrow(*given: Any) -> ImageSource:
        source = made(*given)

        def draw(images: Sequence[ImageId]) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError
            return source.draw(images)

        return source._replace(draw=draw)

    monkeypatch.setitem(SOURCES, "teacher", narrow)
    (task.folder / "done.json").unlink()
    connection.said.clear()
    assert workers.done(task, plan, connection.send).problem is None
    assert read_json(task.folder / "done.json")["images_at_once"] == max(
        size for size in sizes if size <= 3
    )
    assert sizes[0] == num
    told = [message.text for message in connection.said if isinstance(message, workers.Said)]
    assert told[0] == f"memory ran out with {num} images at once; {num // 2} at once from here on"
    assert len(told) == sum(size > 3 for size in sizes)
    found = {p.name: p.read_bytes() for p in (task.folder / "images").iterdir()}
    assert found.keys() == pictures.keys()
    for name in (name for name in found if name.endswith(".png")):
        ours, theirs = (
            np.asarray(Image.open(io.BytesIO(one[name]))).astype(int) for one in (found, pictures)
        )
        assert abs(ours - theirs).max() <= 1  # the same noise: rounding alone


def test_the_failure_of_another_key_is_none_of_a_task_s(
    tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = plan_of(tiny).task("generate", "dmd", 0)
    task.note_failure("first")
    task.note_failure("second")
    assert task.failure() == "first"  # a stage knows better than who hears of it
    (task.folder / "failed.json").write_text(json.dumps({"key": "another", "message": "old"}))
    assert task.failure() is None
