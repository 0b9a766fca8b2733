"""What a suite would take on more GPUs: by arithmetic, nothing of it measured."""

from __future__ import annotations

from collections.abc import Iterator

from ddmd_bench.files.ranks import Group
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.outlook import RATE, Outlook, duration
from ddmd_bench.planning.part import TaskKind
from ddmd_bench.planning.sharding import WAYS, sharding_problems
from ddmd_bench.planning.sizes import TrainingMemory, gigabytes
from ddmd_bench.suite.used import has_fake_score

GPUS = (1, 8, 64)
PER_MACHINE = 8
LEAST_S = 3600  # what takes less needs no second GPU


def scale_lines(outlook: Outlook) -> list[str]:
    """Hours on 1, 8 and 64 GPUs and why they stop falling; memory and traffic of each training."""
    work = {
        kind: num * work.operations / RATE
        for kind, work in outlook.work.items()
        if (num := outlook.num_todo(kind))
    }
    if sum(work.values()) < LEAST_S:
        return []
    lines = [f"on more GPUs, by arithmetic, each of them at {RATE:.0e} operations a second:"]
    for num_gpus in GPUS:
        told = [_of_stage(outlook, stage, work, num_gpus) for stage in ("train", "generate")]
        plural = "GPUs" if num_gpus > 1 else "GPU"
        lines.append(f"on {num_gpus} {plural}: {'; '.join(filter(None, told))}")
    return [*lines, *_training_lines(outlook)]


def _of_stage(outlook: Outlook, stage: str, work: dict[TaskKind, float], num_gpus: int) -> str:
    """A stage's time with students side by side, and with each shared by all GPUs."""
    own = {kind: seconds for kind, seconds in work.items() if kind[0] == stage}
    if not own:
        return ""
    total = sum(own.values())
    if num_gpus == 1:
        return f"{stage} {duration(total)}"
    num_tasks = sum(map(outlook.num_todo, own))
    longest = max(seconds / outlook.num_todo(kind) for kind, seconds in own.items())
    beside = f"{duration(max(total / num_gpus, longest))} side by side"
    if (waiting := num_gpus - num_tasks) > 0:
        beside += f" ({num_tasks} tasks: {waiting} GPUs wait)"
    units = {kind: _units(outlook, kind) for kind in own}
    shared = sum(s * -(-units[kind] // num_gpus) / units[kind] for kind, s in own.items())
    together = f"{duration(shared)} each shared by all"
    fewest = min(units.values())
    if fewest < num_gpus:
        what = "samples of an update" if stage == "train" else "batches of images"
        together += f" ({fewest} {what}: {num_gpus - fewest} GPUs wait)"
    return f"{stage} {beside}, {together}"


def _units(outlook: Outlook, kind: TaskKind) -> int:
    """Into how many parts a task can be shared: samples of an update, or batches of images."""
    stage, student = kind
    if stage == "train":
        return outlook.asked.suite.train_settings(student).batch_size
    at_once = (outlook.asked.bases.get(student) or outlook.asked.backend).images_at_once
    return max(1, -(-outlook.asked.num_images // at_once))


def _training_lines(outlook: Outlook) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for (stage, student), cost in outlook.costs.items():
        if cost.memory is not None and (stage, student) not in outlook.repeated:
            told.setdefault(_training_line(outlook, student, cost.memory), []).append(student)
    for line, students in told.items():
        yield f"{', '.join(students)}: {line}"


def _training_line(outlook: Outlook, student: str, memory: TrainingMemory) -> str:
    settings = outlook.asked.suite.train_settings(student)
    method = METHODS[outlook.asked.suite.students[student].method or ""]
    updates = 1 + settings.fake_score_updates * has_fake_score(method)
    told = [f"an update sums {gigabytes(updates * memory.gradients)} of gradients over the GPUs"]
    for num in GPUS[1:]:
        sizes = [
            f"{gigabytes(memory.each(way, Group(num, PER_MACHINE)))} ({way})"
            for way in WAYS[1:]
            if not any(sharding_problems(settings, way, num))
        ]
        if sizes:
            told.append(f"train.sharding on {num} leaves each {' or '.join(sizes)}")
    return ", ".join(told)
