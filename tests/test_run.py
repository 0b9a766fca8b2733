"""Order and processes of a run: what comes next, on how many threads, and whom a death concerns."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ddmd_bench.files.device import visible_gpus
from ddmd_bench.planning.outlook import relative_effort
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.task import DOCTOR, ENCODE, REFERENCE, Task, TaskName
from ddmd_bench.run import tasks, workers
from ddmd_bench.run.events import Event, Standing
from ddmd_bench.run.schedule import Schedule
from ddmd_bench.run.tasks import run_tasks
from ddmd_bench.suite.files import load_suite

STAGES = ("reference", "train", "generate", "score")


def task(name: TaskName, *needs: TaskName) -> Task:
    return Task(*name, name[1], "key", Path(), {}, needs)


def chain(student: str, seed: int = 0) -> list[Task]:
    names = {stage: (stage, student, seed) for stage in STAGES[1:]}
    return [
        task(names["train"], DOCTOR, ENCODE),
        task(names["generate"], DOCTOR, ENCODE, names["train"]),
        task(names["score"], REFERENCE, names["generate"]),
    ]


SHARED = [task(DOCTOR), task(ENCODE), task(REFERENCE, DOCTOR)]
EFFORT = {("train", "long"): 10.0, ("train", "short"): 4.0, ("generate", "long"): 1.0}


def begun(schedule: Schedule, stage: str | None = None) -> str:
    """The task that begins now, as words; 'nothing' where all that is left must wait."""
    if (found := schedule.next(stage)) is None:
        return "nothing"
    schedule.begin(found)
    return str(found)


def finish(schedule: Schedule, *names: str) -> None:
    for one in list(schedule.running.values()):
        if str(one) in names:
            schedule.finish(one)


def schedule_of(*tasks: Iterable[Task]) -> Schedule:
    return Schedule([one for some in tasks for one in some], EFFORT)


def test_a_task_begins_when_what_it_needs_is_done_the_costliest_chain_first() -> None:
    schedule = schedule_of(SHARED, chain("short"), chain("long"))
    assert [begun(schedule) for _ in range(3)] == ["doctor", "encode", "nothing"]
    finish(schedule, "encode")
    assert begun(schedule) == "nothing"
    finish(schedule, "doctor")
    assert begun(schedule) == "reference"  # every student's scoring waits for it
    assert [begun(schedule) for _ in range(2)] == ["train long", "train short"]
    finish(schedule, "train short", "reference")
    assert begun(schedule) == "generate short"
    finish(schedule, "generate short")
    # One student is scored while another still trains.
    assert begun(schedule) == "score short"
    assert "train long" in map(str, schedule.running.values())


def test_a_failure_takes_along_what_needs_it_and_nothing_else() -> None:
    schedule = schedule_of([task(REFERENCE)], chain("short"), chain("long"), chain("long", 1))
    assert [begun(schedule) for _ in range(2)] == ["reference", "train long"]
    schedule.fail(schedule.running["train", "long", 0])
    assert {name[1:] for name in schedule.waiting} == {("short", 0), ("long", 1)}
    schedule = schedule_of(SHARED, chain("short"))
    assert begun(schedule) == "doctor"
    schedule.fail(schedule.running[DOCTOR])
    assert list(schedule.waiting) == [ENCODE]


def test_a_worker_goes_on_with_its_stage_where_the_chains_are_equal() -> None:
    tasks = [task(("score", "a", 0)), task(("train", "b", 0))]
    assert str(Schedule(tasks, {}).next("train")) == "train b"
    assert str(Schedule(tasks, {}).next("score")) == "score a"


def test_the_time_left_is_at_the_pace_of_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    schedule = schedule_of(chain("long"), chain("short"))
    assert schedule.standing(2).left_s is None
    begun(schedule)
    clock[0] = 20.0
    (running,) = schedule.running.values()
    schedule.progress(running, 1, 2)  # half of an effort of 10 in 20 s: 4 s each
    standing = schedule.standing(2)
    assert standing == Standing(running=1, waiting=5, left_s=20.0, at_least=True)
    # Each alone takes longer than its share of two workers.
    assert schedule.standing(1).left_s == pytest.approx(20 + 16)


@pytest.fixture
def planned(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> Callable[..., Plan]:
    def make(*overrides: str) -> Plan:
        suite = load_suite(write_suite(tiny), overrides)
        return make_plan(suite, tmp_path / "runs", tmp_path / "reports")

    return make


def test_a_plan_s_tasks_name_what_they_need(planned: Callable[..., Plan]) -> None:
    plan = planned("seeds=[0, 1]")
    assert plan.task("train", "dmd", 1).needs == ()  # neither doctor nor encoders here
    assert plan.task("generate", "dmd", 1).needs == (("train", "dmd", 1),)
    assert plan.task("generate", "real", 0).needs == ()
    assert plan.task("score", "dmd", 1).needs == (REFERENCE, ("generate", "dmd", 1))
    for one in plan.tasks.values():
        assert plan.tasks.keys() >= {*one.needs}


def test_effort_follows_passes_and_loads_no_network(planned: Callable[..., Plan]) -> None:
    twice = relative_effort(planned("students.dmd.train={num_iterations: 12}").suite)
    once = relative_effort(planned().suite)
    assert twice["train", "dmd"] == 2 * once["train", "dmd"]
    assert once["train", "ca_only"] < once["train", "dmd"]


def pools(slot: workers.Slot, connection: Connection) -> None:
    """In a worker: the threads of every library that it may use."""
    workers._set_up(slot, dict(os.environ))
    import numpy as np
    import scipy.linalg
    import torch
    from threadpoolctl import threadpool_info

    scipy.linalg.eigh(np.eye(4))
    found = {info["filepath"]: info["num_threads"] for info in threadpool_info()}
    started = [sys.executable, "-c", "import numpy, threadpoolctl as t; print(t.threadpool_info())"]
    child = subprocess.run(started, capture_output=True, text=True, check=True).stdout
    connection.send((found, torch.get_num_threads(), child))


@pytest.mark.parametrize("threads", [1, 2])
def test_every_pool_of_a_worker_has_its_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the environment says: numpy's and scipy's own OpenBLAS would spin beside torch's."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    ours, theirs = multiprocessing.Pipe()
    slot = workers.Slot(threads, None)
    with workers.threads_of_children(threads):
        process = workers._context(slot).Process(target=pools, args=(slot, theirs))
        process.start()
    theirs.close()
    found, of_torch, child = ours.recv()
    process.join()
    assert len(found) >= 3  # numpy's, scipy's, torch's
    assert set(found.values()) == {threads}
    assert of_torch == threads
    assert f"'num_threads': {threads}" in child
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"  # the run's own are left alone


def test_places_are_gpus_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "num_cores", lambda: 16)
    monkeypatch.setattr(workers, "visible_gpus", list)
    assert workers.slots() == [workers.Slot(1, None)] * 16
    assert workers.slots(3) == [workers.Slot(1, None)] * 3
    monkeypatch.setattr(workers, "visible_gpus", lambda: ["0", "2", "5"])
    assert workers.slots() == [workers.Slot(5, "0"), workers.Slot(5, "2"), workers.Slot(5, "5")]
    assert [slot.gpu for slot in workers.slots(4)] == ["0", "2", "5", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


@pytest.mark.long
def test_a_process_that_dies_concerns_its_student_alone(planned: Callable[..., Plan]) -> None:
    plan = planned("train.num_iterations=3")
    killed: list[str] = []

    def kill(event: Event | Standing) -> None:
        if isinstance(event, Event) and event.task == "train dmd" and not killed:
            killed.append(event.task)
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    outcome = run_tasks(plan, STAGES, kill, workers=1)
    assert killed
    (problem,) = outcome.problems
    assert problem.startswith("train dmd: its process was ended by SIGKILL")
    left = {str(one) for one in plan.tasks.values() if not one.complete()}
    assert left == {"train dmd", "generate dmd", "score dmd"}
    assert outcome.num_done == len(plan.tasks) - 3
    again = run_tasks(plan, STAGES, lambda event: None, workers=1)
    assert again == (3, [])


@pytest.mark.long
def test_what_a_stage_throws_is_told_and_stops_nothing_else(planned: Callable[..., Plan]) -> None:
    plan = planned("train.num_iterations=2")
    broken = plan.task("train", "dmd", 0)
    # A checkpoint takes no folder's place.
    (broken.folder / "checkpoint.pt").mkdir(parents=True)
    outcome = run_tasks(plan, STAGES, lambda event: None, workers=2)
    (problem,) = outcome.problems
    assert problem.startswith(f"train dmd: {broken.folder / 'checkpoint.pt'}: Is a directory. ")
    assert problem.endswith(
        "move away what is in its place, and run again: what is complete is kept"
    )
    assert outcome.num_done == len(plan.tasks) - 3


def test_light_commands_load_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("numpy", "scipy", "pandas", "torch", "pydantic", "yaml", "datasets", "diffusers")
    code = (
        "import sys\n"
        "from ddmd_bench.commands.cli import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "finally:\n"
        f"    print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Train, generate, score and report" in result.stdout
    assert result.stderr.strip().endswith("[]")


def pinned(slot: workers.Slot, output: str, connection: Connection) -> None:
    """In a worker: which GPU it sees, and on how many threads it computes."""
    workers.write_to(output)
    workers._set_up(slot, dict(os.environ) | {"CUDA_VISIBLE_DEVICES": "2,5"})
    import torch

    sys.stdout.write("kept for its last words\n")
    connection.send((os.environ["CUDA_VISIBLE_DEVICES"], torch.get_num_threads(), os.getpid()))


@pytest.mark.long
def test_a_worker_sees_its_own_gpu_alone_and_starts_afresh(capfd: pytest.CaptureFixture) -> None:
    ours, theirs = multiprocessing.Pipe()
    slot, written = workers.Slot(3, "5"), workers.Written()
    context = workers._context(slot)
    assert context.get_start_method() == "spawn"  # CUDA does not survive a fork
    process = context.Process(target=pinned, args=(slot, written.name, theirs))
    process.start()
    theirs.close()
    assert ours.recv() == ("5", 3, process.pid)
    assert not Path(written.name).exists()  # a run that is killed leaves no file behind
    process.join()
    assert written.last_lines() == ["kept for its last words"]
    assert capfd.readouterr() == ("", "")
    written.close()


class Recorded:
    """A worker that is done with a task at once, and says where it did it."""

    did: ClassVar[list[tuple[str | None, str]]] = []

    def __init__(self, plan: Plan, slot: workers.Slot) -> None:
        self.slot, self.stage, self.task = slot, None, None

    def begin(self, task: Task) -> None:
        self.task = task
        self.did.append((self.slot.gpu, str(task)))

    def messages(self) -> Iterable[workers.Ended]:
        self.task = None
        yield workers.Ended(None)

    def stop(self) -> None:
        """Nothing runs."""

    def end(self) -> None:
        """Nothing runs."""


def test_all_visible_gpus_are_used_and_the_longest_chain_begins(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "visible_gpus", lambda: ["2", "5"])
    monkeypatch.setattr(tasks, "Worker", Recorded)
    monkeypatch.setattr(tasks, "wait_for", lambda *_: None)
    monkeypatch.setattr(Recorded, "did", [])
    plan = planned("students.ca_only.train={num_iterations: 50}")
    outcome = run_tasks(plan, STAGES, lambda event: None)
    assert outcome == (len(plan.tasks), [])
    trained = [task for _, task in Recorded.did if task.startswith("train")]
    assert trained == ["train ca_only", "train dmd"]
    assert {gpu for gpu, _ in Recorded.did[:2]} == {"2", "5"}


@pytest.mark.long
def test_a_process_is_for_one_task_unless_its_stage_keeps_networks(
    planned: Callable[..., Plan],
) -> None:
    plan = planned("train.num_iterations=2")
    worker = workers.Worker(plan, workers.slots(1)[0])
    used: dict[str, list[int]] = {}
    try:
        for stage in STAGES:
            for one in plan.of_stage(stage):
                worker.begin(one)
                used.setdefault(stage, []).append(worker._process.pid)
                while worker.task is not None:
                    workers.wait_for([worker], 10)
                    ends = [m for m in worker.messages() if isinstance(m, workers.Ended)]
                assert ends == [workers.Ended(None)]
    finally:
        worker.end()
    processes = [set(pids) for pids in used.values()]
    assert len(set().union(*processes)) == sum(map(len, processes))  # none in two stages
    assert len(used["train"]) == len(set(used["train"])) > 1
    assert len(used["score"]) > len(set(used["score"])) == 1


def test_whoever_ends_a_run_asks_all_workers_before_it_waits_for_one(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    class Busy:
        """A worker that never ends by itself."""

        task: Task | None = None
        stage = None

        def __init__(self, plan: Plan, slot: Any) -> None: ...

        def begin(self, task: Task) -> None:
            self.task = task

        def messages(self) -> tuple[()]:
            return ()

        def stop(self) -> None:
            told.append("stop")

        def end(self) -> None:
            told.append("end")

    def interrupted(*of: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tasks, "Worker", Busy)
    monkeypatch.setattr(tasks, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tasks.run_tasks(planned(), ["train"], lambda event: None, 2)
    assert told == ["stop", "stop", "end", "end"]
