"""What a run still takes: the costs of its parts, times the tasks that are not complete."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ddmd_bench.backends.facts import Facts
from ddmd_bench.backends.flops import Flops
from ddmd_bench.files.ranks import Group
from ddmd_bench.files.records import read_done
from ddmd_bench.planning.part import Asked, Cost, TaskKind, Work
from ddmd_bench.planning.parts import PARTS
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.sharding import sharding_of
from ddmd_bench.planning.sizes import gigabytes
from ddmd_bench.planning.training import shared_trainings
from ddmd_bench.suite.schema import Suite

# Where only passes are compared.
ALIKE = Facts({}, 0, Flops(forward=2, bottleneck=1, decode=1, encode=1), 0)
RATE = 1e14  # operations a second, round: a reader divides by what the own device reaches


@dataclass(frozen=True)
class Outlook:
    """A suite that is to run; `plan` is None where its prompts or weights are not here yet.

    workers: tasks at once, each of which needs room for what it keeps until it ends.
    """

    asked: Asked
    plan: Plan | None = None
    workers: int = 1

    @cached_property
    def costs(self) -> Mapping[TaskKind, Cost]:
        """Of every task, one seed of it."""
        return {
            kind: cost for part in PARTS.values() for kind, cost in part.costs(self.asked).items()
        }

    @cached_property
    def work(self) -> Mapping[TaskKind, Work]:
        """Of every task with networks whose operations can be counted, one seed of it."""
        return {
            kind: work for part in PARTS.values() for kind, work in part.work(self.asked).items()
        }

    @cached_property
    def repeated(self) -> set[TaskKind]:
        """Trainings that are an earlier student's too."""
        shared = shared_trainings(self.asked.suite)
        return {("train", name) for names in shared for name in names[1:]}

    def num_todo(self, kind: TaskKind) -> int:
        """Tasks, a seed each, that are not complete; all of them where there is no plan."""
        if self.plan is None:
            num = len(self.asked.suite.seeds) if kind[1] else 1
            return 0 if kind in self.repeated else num
        return sum(not task.complete() for task in self.plan.of_kind(*kind))

    def seconds_of_another_seed(self, kind: TaskKind) -> float | None:
        """What the same task took with another seed of the suite, by its record."""
        for task in self.plan.of_kind(*kind) if self.plan is not None else []:
            if task.complete():
                found = (read_done(task.folder) or {}).get("seconds")
                return None if found is None else float(found)
        return None

    def disk(self, stages: Collection[str] | None = None) -> dict[str, int]:
        """Bytes still to be written by stage, of some stages or all."""
        found: dict[str, int] = {}
        running: dict[str, list[int]] = {}
        for kind, cost in self.costs.items():
            stage, num = kind[0], self.num_todo(kind)
            if num and (stages is None or stage in stages):
                found[stage] = found.get(stage, 0) + num * cost.disk
                running.setdefault(stage, []).extend([cost.disk_running] * num)
        return {
            stage: size + sum(sorted(running[stage], reverse=True)[: self.workers])
            for stage, size in found.items()
        }


def relative_effort(suite: Suite) -> dict[TaskKind, float]:
    """What each task computes beside others, in passes of networks: no network is looked at."""
    asked = replace(Asked.of(suite), look=lambda base: ALIKE)
    return {kind: float(work.operations) for kind, work in Outlook(asked).work.items()}


def disk_lines(outlook: Outlook) -> list[str]:
    """One line for each stage that has something to write, and one about what is assumed."""
    todo = outlook.disk()
    if not todo:
        return []
    lines = [f"disk of {stage}: at most {gigabytes(size)}" for stage, size in todo.items()]
    total = gigabytes(sum(todo.values()))
    return [*lines, f"disk in all: at most {total}, as if no PNG compressed anything"]


def disk_problems(needed: Mapping[Path, int]) -> list[str]:
    """Folders without room for the bytes that they are to hold; those of one disk count as one."""
    by_disk: dict[int, list[Path]] = {}
    for folder in needed:
        by_disk.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    problems = []
    for folders in by_disk.values():
        wanted = sum(needed[folder] for folder in folders)
        free = shutil.disk_usage(_existing(folders[0])).free
        if wanted > free:
            parts = " and ".join(f"{gigabytes(needed[f])} in {f}" for f in folders if needed[f])
            problems.append(
                f"no room on the disk: {gigabytes(free)} are free, and up to {parts} are to be "
                "written. Make room, ask for fewer prompts or images, or take another disk: "
                "--runs, and HF_HOME for downloads"
            )
    return problems


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def memory_lines(outlook: Outlook) -> list[str]:
    """One line for the trainings that need the same."""
    needs: dict[str, list[str]] = {}
    for kind, cost in outlook.costs.items():
        if cost.memory and kind not in outlook.repeated:
            needs.setdefault(gigabytes(cost.memory.each()), []).append(kind[1])
    return [
        f"memory of {', '.join(names)}: {need}, activations on top" for need, names in needs.items()
    ]


def memory_problems(outlook: Outlook, group: Group) -> list[str]:
    """Trainings that cannot fit into the GPUs of these ranks, whatever the batch."""
    problems, available = [], group.gpu_memory
    if available is None:
        return []
    for (_, student), cost in outlook.costs.items():
        if cost.memory is None:
            continue
        settings = outlook.asked.suite.train_settings(student)
        sharding = sharding_of(settings, cost.memory, group)
        if (needed := cost.memory.each(sharding, group)) > available:
            lora = settings.lora_rank is None
            todo = "set train.lora_rank (64)" if lora else "take a GPU with more memory"
            more = ", start more processes (docs/scale.md)" if sharding != "none" or lora else ""
            problems.append(
                f"students.{student}: weights, gradients and optimizer states take "
                f"{needed / 1e9:.1f} GB, the GPU has {available / 1e9:.1f} GB; {todo}{more}, or "
                "set train.optimizer to adamw_8bit"
            )
    return problems


def work_lines(outlook: Outlook) -> list[str]:
    """One line for each stage with networks: operations, or the time of a seed that has run."""
    stages: dict[str, dict[str, str]] = {}
    totals: dict[str, int] = {}
    for (stage, student), (operations, _) in outlook.work.items():
        if num := outlook.num_todo((stage, student)):
            seconds = outlook.seconds_of_another_seed((stage, student))
            told = f"{num * operations:.2g}" if seconds is None else duration(num * seconds)
            stages.setdefault(stage, {})[student or "real images"] = told
            totals[stage] = totals.get(stage, 0) + num * operations
    lines = [
        f"work of {stage}: {totals[stage]:.2g} operations "
        f"({', '.join(f'{name} {told}' for name, told in of_student.items())})"
        for stage, of_student in stages.items()
    ]
    if lines:
        total, rate = sum(totals.values()), f"{RATE:.0e} a second"
        lines.append(
            f"work in all: {total:.2g} operations, {duration(total / RATE)} at {rate}: "
            "counted from the networks, text encoders, scoring and files on top. "
            "Where another seed has run, its time stands"
        )
    return lines


def duration(seconds: float) -> str:
    """Two digits or more in the largest unit that has two of it."""
    units = {"h": 3600, "min": 60, "s": 1}
    name, size = next((u for u in units.items() if seconds >= 2 * u[1]), ("s", 1))
    return (
        f"{seconds / size:,.0f} {name}" if seconds >= 10 * size else f"{seconds / size:.1f} {name}"
    )
