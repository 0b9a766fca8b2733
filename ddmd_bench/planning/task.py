"""A task: one stage of one student, with the content key of all that determines its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.records import (
    DONE,
    FAILED,
    SCHEMA,
    content_key,
    read_done,
    read_record,
    write_json,
)

NO_SEED = -1  # of what is the same for every seed
TaskName = tuple[str, str, int]  # stage, student, seed
DOCTOR: TaskName = ("doctor", "", NO_SEED)
ENCODE: TaskName = ("encode", "", NO_SEED)
REFERENCE: TaskName = ("reference", "", NO_SEED)


@dataclass(frozen=True)
class Task:
    """One stage of one student with one seed ('' and `NO_SEED` for what all students share)."""

    stage: str
    student: str
    seed: int
    label: str  # the student as a message names it, with the seed where the suite has several
    key: str
    folder: Path
    inputs: dict[str, Any]
    needs: tuple[TaskName, ...] = ()  # what must be complete before it begins

    @property
    def name(self) -> TaskName:
        """What it is known by in a plan."""
        return self.stage, self.student, self.seed

    def complete(self) -> bool:
        """Whether the folder holds this very result, finished."""
        done = read_done(self.folder)
        return done is not None and done.get("key") == self.key

    @property
    def failure_file(self) -> Path:
        """Where it stands why the last try of the task failed."""
        return self.folder / FAILED

    def failure(self) -> str | None:
        """Why the last try of the task failed; None where none did, or it is complete by now."""
        if self.complete() or not self.failure_file.is_file():
            return None
        try:
            record = read_record(self.failure_file, {"key": str, "message": str})
        except Unreadable:  # cut: it says nothing, and the next try writes another
            return None
        return str(record["message"]) if record["key"] == self.key else None

    def note_failure(self, message: str) -> None:
        """Write why the task failed, unless its stage has written that already."""
        if self.failure() is None:
            write_json(self.failure_file, {"key": self.key, "message": message})

    def last_record(self) -> Path | None:
        """The file that says how the task ended: `done.json`, else `failed.json`, else none."""
        if self.complete():
            return self.folder / DONE
        return self.failure_file if self.failure_file.is_file() else None

    def __str__(self) -> str:
        return f"{self.stage} {self.label}".strip()


@dataclass
class Tasks:
    """Tasks as they are named, one after the other: a later one's key may hold an earlier one's."""

    folder: Path  # of the suite's stages
    seeds: Sequence[int]
    found: dict[TaskName, Task] = field(default_factory=dict)
    # Tasks that another student's task is at the same time, by name: that one's name.
    shared: dict[TaskName, TaskName] = field(default_factory=dict)

    def add(
        self,
        stage: str,
        inputs: dict[str, Any],
        versions: Mapping[str, int],
        student: str = "",
        seed: int = NO_SEED,
        *,
        needs: Iterable[TaskName] = (),
    ) -> None:
        """A task that `inputs` determine, as this version computes them.

        Of what it needs, what the suite does not have is left out.
        """
        inputs = {"schema": SCHEMA, "versions": dict(versions), **inputs}
        key = content_key(inputs)
        label = f"{student}, seed {seed}" if seed != NO_SEED and len(self.seeds) > 1 else student
        folder = self.folder / stage / (f"{student}-{key}" if student else key)
        self.found[stage, student, seed] = Task(
            stage, student, seed, label, key, folder, inputs, tuple(needs)
        )

    def add_shared(
        self,
        stage: str,
        inputs: dict[str, Any],
        versions: Mapping[str, int],
        students: Sequence[str],
        seed: int,
        *,
        needs: Iterable[TaskName] = (),
    ) -> None:
        """One task of several students, in the name of one that has begun it, else of the first."""
        for student in students:
            self.add(stage, inputs, versions, student, seed, needs=needs)
        names = [(stage, student, seed) for student in students]
        begun = [name for name in names if self.found[name].folder.is_dir()]
        whole = [name for name in begun if self.found[name].complete()]
        own = (whole or begun or names)[0]
        for name in names:
            if name != own:
                del self.found[name]
                self.shared[name] = own

    def key(self, stage: str, student: str = "", seed: int = NO_SEED) -> str | None:
        """The key of a task that was added before, or None."""
        name = stage, student, seed
        task = self.found.get(self.shared.get(name, name))
        return task.key if task else None
