"""What must happen: every stage of a suite with its content key, and every check made early.

A key hashes all that determines a stage's result: settings, seed, prompts, weights, and the source
files of the stage. A stage is finished when its folder holds a `done.json` with that key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ddmd_bench.data.images import ImageId, image_ids
from ddmd_bench.data.prompts import Prompt, in_proportion
from ddmd_bench.data.training import TrainingData
from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.packed import Packed
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.files.records import SCHEMA, content_key, file_sha256, read_record
from ddmd_bench.planning.generation import unfit_students
from ddmd_bench.planning.part import Asked, Downloads
from ddmd_bench.planning.parts import PARTS
from ddmd_bench.planning.prompts import find_suite_prompts
from ddmd_bench.planning.task import NO_SEED, Task, TaskName, Tasks
from ddmd_bench.students.loaded import LoadedStudent
from ddmd_bench.students.prepared import Prepared
from ddmd_bench.students.seeded import SeededStudent, trained_folder
from ddmd_bench.suite.schema import Suite

_REPORT_SOURCES = (
    "stats/*.py", "stages/report.py",
    *(f"reporting/**/*.{kind}" for kind in ("py", "j2", "js", "css", "yaml")),
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A suite with its prompts, its tasks and the protocol that makes values comparable."""

    suite: Suite
    prompts: tuple[Prompt, ...]
    prompt_lists: dict[str, dict[str, Any]]  # where each prompt set is from, as its facts
    tasks: dict[TaskName, Task]
    protocol: dict[str, Any]
    fingerprint: str
    loaded: dict[str, LoadedStudent]  # the students that were trained elsewhere, by name
    unfit: dict[str, str]  # students that will fail, by name: why
    downloads: Downloads
    runs: Path  # the folder of all that runs write
    report_folder: Path
    report_inputs: dict[str, Any]
    # Tasks that are another student's at the same time, by name: that one's name.
    shared_tasks: dict[TaskName, TaskName] = field(default_factory=dict)
    packed: Packed | None = None  # the archive that the files lie in, where they lie in one
    # Prompts asked of each student by now, where drawing ends when comparisons are settled.
    num_prompts: Mapping[str, int] = field(default_factory=dict)

    def find(self, stage: str, student: str = "", seed: int = NO_SEED) -> Task | None:
        """One task, which may be another student's too, if there is one."""
        name = stage, student, seed
        return self.tasks.get(self.shared_tasks.get(name, name))

    def task(self, stage: str, student: str = "", seed: int = NO_SEED) -> Task:
        """One task that there is; without a student, one that all students share."""
        found = self.find(stage, student, seed)
        assert found is not None, f"no task {stage} {student}, seed {seed}"
        return found

    def shared(self, stage: str) -> Task | None:
        """The task of a stage that all students share, if there is one."""
        return self.find(stage)

    def of_stage(self, stage: str) -> list[Task]:
        """The tasks of a stage in the suite's order."""
        return [task for task in self.tasks.values() if task.stage == stage]

    def of_kind(self, stage: str, student: str) -> list[Task]:
        """The tasks of a stage and a student, a seed each."""
        return [task for task in self.of_stage(stage) if task.student == student]

    def images_of(self, student: str) -> list[ImageId]:
        """The images that a student draws, in their one order; those by now of `num_prompts`."""
        prompts = self.prompts
        if self.suite.until_settled is not None:
            prompts = tuple(in_proportion(prompts)[: self.num_prompts.get(student)])
        return image_ids(prompts, self.suite.images_per_prompt())

    @property
    def unfit_lines(self) -> list[str]:
        """Why students will fail whose images are not drawn yet."""
        drawn = {t.student for t in self.of_stage("generate") if t.complete()}
        return [f"students.{name}: {why}" for name, why in self.unfit.items() if name not in drawn]

    @property
    def embeddings(self) -> Path:
        """Of prompts, for every suite: a folder for each text encoder."""
        return self.runs / "embeddings"

    def prepared(self) -> Prepared:
        """What the encode stages have left so far."""
        encoded = self.of_stage("encode")
        return Prepared(
            suite=self.suite,
            models={name: one.model for name, one in self.loaded.items()},
            embeddings=self.embeddings,
            training_data=self.runs / "training_data",
            latents=self.runs / "latents",
            encoded={task.student: task.folder if task.complete() else None for task in encoded},
        )

    def seeded(self, student: str, seed: int) -> SeededStudent:
        """A student with one seed, and what its training has left so far."""
        row, training = self.suite.students[student], self.find("train", student, seed)
        one = self.loaded.get(student)
        return SeededStudent(
            name=student,
            label=self.task("generate", student, seed).label,
            seed=seed,
            row=row,
            prompts=self.prompts,
            images_per_prompt=self.suite.images_per_prompt(),
            settings=self.suite.train_settings(student) if training else None,
            trained=training.folder if training and training.complete() else None,
            loaded=one.row if one else None,
        )

    def trained(self, student: str, seed: int) -> SeededStudent:
        """A student that the suite has trained with a seed, or an error that says what it has."""
        rows = self.suite.students
        if student not in rows or rows[student].source != "train":
            known = ", ".join(name for name, row in rows.items() if row.source == "train")
            raise BenchError(f"{student!r} is not trained by this suite. Trained: {known}")
        if seed not in self.suite.seeds:
            raise BenchError(f"seed {seed}: the suite has {list(self.suite.seeds)}")
        found = self.seeded(student, seed)
        trained_folder(found)
        return found

    @property
    def report_key(self) -> str:
        """Content key of a report made now: of its inputs and of the records that the tasks left.

        A record holds what a clock measured, so a report that came with the checkout, of another
        machine's run with the same tasks, has another key.
        """
        records = [record for task in self.tasks.values() if (record := task.last_record())]
        return content_key({**self.report_inputs, "records": [file_sha256(r) for r in records]})

    def report_complete(self) -> bool:
        """Whether the report was made from these very results."""
        path = self.report_folder / "report.json"
        try:
            return path.is_file() and read_record(path, {"key": str})["key"] == self.report_key
        except Unreadable:  # cut: it is made again
            return False


def report_sources() -> str:
    """sha256 of what makes a report of a run's files."""
    return source_sha256(*_REPORT_SOURCES)


def make_plan(suite: Suite, runs: Path, reports: Path) -> Plan:
    """Check all that can be checked before any work, and key every stage."""
    asked = Asked.of(suite)
    found = find_suite_prompts(asked)
    asked = replace(asked, prompts=found.prompts)
    problems = [problem for part in PARTS.values() for problem in part.problems(asked)]
    _raise(suite, [*found.problems, *problems])
    tasks = Tasks(runs / suite.name, suite.seeds)
    protocol: dict[str, Any] = {"schema": SCHEMA}
    reported: dict[str, Any] = {}
    for part in PARTS.values():
        part.add_tasks(asked, tasks)
        protocol |= part.protocol(asked)
        reported |= part.reported(asked)
    unfit = unfit_students(asked)
    fitting = {name: one for name, one in asked.loaded.items() if name not in unfit}
    return Plan(
        suite=suite,
        prompts=found.prompts,
        prompt_lists=found.lists,
        tasks=_by_student(suite, tasks),
        protocol=protocol,
        fingerprint=content_key(protocol),
        loaded=dict(asked.loaded),
        unfit=unfit,
        # A damaged file is its own student's, and keeps no other from running.
        downloads=downloads_of(replace(asked, loaded=fitting)),
        runs=runs,
        report_folder=reports / suite.name,
        report_inputs={
            "suite": suite.model_dump(mode="json"),
            "tasks": [task.key for task in tasks.found.values()],
            "sources": report_sources(),
            **reported,
        },
        shared_tasks=tasks.shared,
    )


def _raise(suite: Suite, problems: Iterable[str]) -> None:
    if lines := [f"suite {suite.name}: {problem}" for problem in problems]:
        raise BenchError("\n".join(lines))


def _by_student(suite: Suite, tasks: Tasks) -> dict[TaskName, Task]:
    """What students share first, then a student's tasks together, seed by seed."""
    students = ["", *suite.students]

    def place(name: TaskName) -> tuple[int, int]:
        return students.index(name[1]), 0 if name[2] == NO_SEED else suite.seeds.index(name[2])

    ordered = sorted(tasks.found.values(), key=lambda task: place(task.name))
    needs = {t.name: [tasks.shared.get(name, name) for name in t.needs] for t in ordered}
    return {
        task.name: replace(task, needs=tuple(n for n in needs[task.name] if n in tasks.found))
        for task in ordered
    }


def downloads_of(asked: Asked) -> Downloads:
    """All that must be on this machine, each item once."""
    parts = [part.downloads(asked) for part in PARTS.values()]
    return Downloads(
        tuple(dict.fromkeys(remote for part in parts for remote in part.remotes)),
        tuple(dict.fromkeys(weights for part in parts for weights in part.weights)),
    )


def suite_downloads(suite: Suite) -> Downloads:
    """All that a suite needs from elsewhere, known before anything of it is here."""
    asked = Asked.of(suite)
    _raise(suite, [*asked.refused, *PARTS["encoding"].problems(asked)])
    return downloads_of(asked)


def collect_data(suite: Suite, runs: Path, progress: Callable[[int, int], None]) -> None:
    """Collect prompts and training data from where there is a network, for a run without."""
    asked = Asked.of(suite)
    _raise(suite, find_suite_prompts(asked).problems)
    if suite.train_data is not None:
        collected = TrainingData(suite.train_data, asked.backend.resolution, runs / "training_data")
        collected.collect_captions(progress)
        collected.collect_images(progress)
