"""Which task comes next of those that may begin: what all share, then the costliest chain."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cached_property

from ddmd_bench.planning.part import TaskKind
from ddmd_bench.planning.task import Task, TaskName
from ddmd_bench.run.events import Standing


class Schedule:
    """Unfinished tasks, those under way, and how fast each stage goes.

    `effort` compares tasks of one stage; what is not in it counts nothing.
    """

    def __init__(self, tasks: Iterable[Task], effort: Mapping[TaskKind, float]) -> None:
        self.waiting = {task.name: task for task in tasks}
        self.running: dict[TaskName, Task] = {}
        self.effort = effort
        self._began: dict[TaskName, float] = {}
        self._share: dict[TaskName, float] = {}  # done of a task that runs
        self._pace: dict[str, list[float]] = {}  # of a stage: seconds and efforts, summed
        self._needed_by: dict[TaskName, list[TaskName]] = {}
        for task in self.waiting.values():
            for name in task.needs:
                self._needed_by.setdefault(name, []).append(task.name)

    @property
    def unfinished(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.waiting or self.running)

    def has_waiting(self, stage: str | None) -> bool:
        """Whether tasks of a stage are still to begin."""
        return any(task.stage == stage for task in self.waiting.values())

    def next(self, stage: str | None) -> Task | None:
        """The task to begin now; of equally costly chains one of the given stage first."""
        unmet = self.waiting.keys() | self.running.keys()
        ready = [task for task in self.waiting.values() if not unmet & {*task.needs}]

        def urgency(task: Task) -> tuple[bool, float, bool]:
            # All students wait for what they share, such as the reference.
            return not task.student, self._rank[task.name], task.stage == stage

        return max(ready, key=urgency, default=None)

    @cached_property
    def _rank(self) -> dict[TaskName, float]:
        """Effort from a task's begin to the end of the longest chain that needs it."""
        found: dict[TaskName, float] = {}

        def rank(name: TaskName) -> float:
            if name not in found:
                after = [rank(other) for other in self._needed_by.get(name, ())]
                # A task whose effort is not known still lengthens its chain.
                found[name] = max(self.effort.get(name[:2], 0.0), 1.0) + max(after, default=0.0)
            return found[name]

        for name in self.waiting:
            rank(name)
        return found

    def begin(self, task: Task) -> None:
        """The task runs from now on."""
        self._rank  # noqa: B018 - over all tasks, before one of them leaves
        self.running[task.name] = self.waiting.pop(task.name)
        self._began[task.name] = time.monotonic()

    def progress(self, task: Task, done: int, total: int) -> None:
        """So much of a task that runs is done."""
        self._share[task.name] = done / total if total else 0.0

    def finish(self, task: Task) -> None:
        """The task is done: what needs it may begin."""
        del self.running[task.name]
        pace = self._pace.setdefault(task.stage, [0.0, 0.0])
        pace[0] += time.monotonic() - self._began[task.name]
        pace[1] += self._effort(task)

    def fail(self, task: Task) -> None:
        """The task cannot be done, and nothing that needs it."""
        del self.running[task.name]
        lost = [task.name]
        while lost:
            name = lost.pop()
            self.waiting.pop(name, None)
            lost += [other for other in self._needed_by.get(name, ()) if other in self.waiting]

    def _effort(self, task: Task) -> float:
        return max(self.effort.get(task.name[:2], 0.0), 1.0)

    def standing(self, num_workers: int) -> Standing:
        """What is left, at the pace that each stage has had so far."""
        now = time.monotonic()
        pace = {stage: (sums[0], sums[1]) for stage, sums in self._pace.items()}
        for name, task in self.running.items():
            seconds, effort = pace.get(task.stage, (0.0, 0.0))
            done = self._share.get(name, 0.0) * self._effort(task)
            pace[task.stage] = seconds + now - self._began[name], effort + done
        known = {stage: seconds / effort for stage, (seconds, effort) in pace.items() if effort}
        left = {task.name: self._effort(task) for task in self.waiting.values()}
        left |= {
            name: (1 - self._share.get(name, 0.0)) * self._effort(task)
            for name, task in self.running.items()
        }
        each = [known[name[0]] * effort for name, effort in left.items() if name[0] in known]
        # No task is split: the longest one is the least.
        total = max(sum(each) / num_workers, *each) if each else None
        return Standing(len(self.running), len(self.waiting), total, len(each) < len(left))
