"""Results that an earlier version of the code made of what is asked now: what redoing them takes.

A task leaves beside its record what it was asked. Another folder of the same student that was asked
the same, but for versions, holds what this code would compute otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.records import read_done, read_record, write_json
from ddmd_bench.planning.outlook import duration
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import Task

ASKED = "asked.json"
VERSIONS = "versions"


class Superseded(NamedTuple):
    """A task to be done again, and its result by another version of the code."""

    task: Task
    moved: dict[str, tuple[int, int]]  # versions of its own, before and now
    seconds: float  # that it took, by its record; 0 where that does not say


def remember_asked(task: Task) -> None:
    """Leave what a task is asked where its record will be."""
    write_json(task.folder / ASKED, {"key": task.key, "inputs": task.inputs})


def superseded(plan: Plan, stages: Collection[str]) -> list[Superseded]:
    """Unfinished tasks of the stages whose results are there, made by other versions."""
    found: list[Superseded] = []
    renewed: dict[str, str] = {}  # key before -> key now, of what others hang on
    for task in sorted(plan.tasks.values(), key=lambda task: _depth(plan, task)):
        if task.complete():
            continue
        sharing = [name[1] for name, own in plan.shared_tasks.items() if own == task.name]
        for folder, key, inputs in _others(task, [task.student, *sharing]):
            if _without_versions(inputs, renewed) != _without_versions(task.inputs, {}):
                continue
            renewed[key] = task.key
            if task.stage in stages:
                seconds = (read_done(folder) or {}).get("seconds")
                moved = dict(_moved(inputs, task.inputs))
                found.append(Superseded(task, moved, float(seconds or 0)))
            break
    return found


def _depth(plan: Plan, task: Task) -> int:
    """How many tasks stand one behind the other before it."""
    return 1 + max((_depth(plan, plan.tasks[name]) for name in task.needs), default=0)


def _others(task: Task, students: Iterable[str]) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Finished results of the task's students: folder, key and what they were asked."""
    patterns = [f"{name}-*" if name else "*" for name in students]
    paths = (path for one in patterns for path in task.folder.parent.glob(f"{one}/{ASKED}"))
    for path in sorted(paths):
        with suppress(Unreadable):  # cut or foreign: no result
            asked = read_record(path, {"key": str, "inputs": {}})
            done = read_done(path.parent)
            if done is not None and done.get("key") == asked["key"] != task.key:
                yield path.parent, asked["key"], asked["inputs"]


def _without_versions(value: Any, renewed: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: _without_versions(v, renewed) for k, v in value.items() if k != VERSIONS}
    if isinstance(value, list | tuple):
        return [_without_versions(one, renewed) for one in value]
    return renewed.get(value, value) if isinstance(value, str) else value


def _moved(before: Any, now: Any) -> Iterator[tuple[str, tuple[int, int]]]:
    """Versions that differ, wherever they stand."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return
    for name in now:
        if name != VERSIONS:
            yield from _moved(before.get(name), now[name])
            continue
        old = before.get(name, {})
        for part, version in now[name].items():
            if old.get(part) != version:
                yield part, (old.get(part, 0), version)


def superseded_lines(found: Collection[Superseded]) -> list[str]:
    """A line of what moved, and one for each stage with what redoing takes, by the records."""
    if not found:
        return []
    moved = {part: change for one in found for part, change in one.moved.items()}
    parts = ", ".join(f"{part} {old} -> {new}" for part, (old, new) in sorted(moved.items()))
    lines = [f"made by another version of the code ({parts}):"]
    for stage in dict.fromkeys(one.task.stage for one in found):
        these = [one for one in found if one.task.stage == stage]
        took = duration(sum(one.seconds for one in these))
        names = ", ".join(dict.fromkeys(one.task.student or "all" for one in these))
        lines.append(f"  {stage}: {len(these)} ({names}), {took} by their records")
    return lines
