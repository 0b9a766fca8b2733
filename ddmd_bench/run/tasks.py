"""Every unfinished task of a plan, as soon as what it needs is done, students side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from ddmd_bench.files.records import remove_cut
from ddmd_bench.planning.outlook import relative_effort
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import Task
from ddmd_bench.run.events import Event, Note, OnEvent
from ddmd_bench.run.schedule import Schedule
from ddmd_bench.run.workers import TRACEBACK, Ended, Progress, Said, Worker, slots, wait_for

STANDING_EVERY_S = 1.0


class Outcome(NamedTuple):
    """Tasks finished now, and what went wrong with others."""

    num_done: int
    problems: list[str]


def run_tasks(plan: Plan, stages: Iterable[str], on_event: OnEvent, workers: int = 0) -> Outcome:
    """Finish the tasks of the stages. What fails stops only what needs it."""
    wanted = {*stages}
    todo = [t for t in plan.tasks.values() if t.stage in wanted and not t.complete()]
    return run_these(plan, todo, on_event, workers)


def run_these(plan: Plan, todo: Sequence[Task], on_event: OnEvent, workers: int = 0) -> Outcome:
    """Do these tasks of the plan; what they need beside each other is there."""
    if not todo:
        return Outcome(0, [])
    schedule = Schedule(todo, relative_effort(plan.suite))
    crew = [Worker(plan, slot) for slot in slots(workers)[: len(todo)]]
    num_done, problems = 0, list[str]()
    try:
        while schedule.unfinished:
            for worker in crew:
                if worker.task is None and (task := schedule.next(worker.stage)) is not None:
                    forget_failure(task)
                    worker.begin(task)
                    schedule.begin(task)
                elif worker.task is None and not schedule.has_waiting(worker.stage):
                    worker.end()  # what it keeps in memory serves nobody any more
            wait_for(crew, STANDING_EVERY_S)
            for worker in crew:
                task = worker.task
                for message in worker.messages() if task is not None else ():
                    assert task is not None
                    match message:
                        case Progress():
                            schedule.progress(task, *message)
                            on_event(Event(str(task), *message))
                        case Said():
                            on_event(Note(str(task), message.text))
                        case Ended(problem=None):
                            schedule.finish(task)
                            num_done += 1
                        case Ended():
                            schedule.fail(task)
                            problems.append(kept_failure(task, message))
                            on_event(Note(str(task), f"failed: {message.problem}"))
            on_event(schedule.standing(len(crew)))
    finally:
        # Also for Ctrl-C: a worker would otherwise finish its task, minutes later.
        for worker in crew:
            worker.stop()  # all at once: each training ends its update and writes a checkpoint
        for worker in crew:
            worker.end()
    return Outcome(num_done, problems)


def forget_failure(task: Task) -> None:
    """What an earlier try left of its failure, and of what it was writing, is no news of this."""
    remove_cut(task.folder)
    for file in (task.failure_file, task.folder / TRACEBACK):
        with suppress(OSError):  # what is wrong with the folder is the task's own to find
            file.unlink(missing_ok=True)


def kept_failure(task: Task, ended: Ended) -> str:
    """Note in its folder why a task failed, for the report; the same in words for a terminal."""
    assert ended.problem is not None
    with suppress(OSError):  # the disk may be what failed: the others go on
        task.note_failure(ended.problem)
    where = f" (where: {ended.traceback})" if ended.traceback else ""
    return f"{task}: {ended.problem}{where}"
