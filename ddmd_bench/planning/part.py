"""What planning asks: the same few questions, of every part that has something to say on a suite.

A part answers for itself in a module of its own; `ddmd_bench.planning.parts` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.facts import Facts, facts_of
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.data.training import data_identity
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote
from ddmd_bench.planning.sizes import TrainingMemory
from ddmd_bench.planning.task import Tasks
from ddmd_bench.scorers.weights import Weights
from ddmd_bench.students.catalogue import PIPELINE
from ddmd_bench.students.loaded import LoadedStudent, loaded_students
from ddmd_bench.suite.schema import Suite


@dataclass(frozen=True)
class Asked:
    """A suite that parts are asked about; reads no weights."""

    suite: Suite
    backend: Backend
    loaded: Mapping[str, LoadedStudent]  # the students that were trained elsewhere, by name
    refused: tuple[str, ...] = ()  # why others cannot be loaded
    prompts: tuple[Prompt, ...] = ()  # none before `planning.prompts` has found them
    look: Callable[[Backend], Facts] = facts_of

    @classmethod
    def of(cls, suite: Suite) -> Asked:
        """The suite with its backend."""
        if suite.backend not in BACKENDS:
            raise BenchError(f"suite {suite.name}: " + unknown("backend", suite.backend, BACKENDS))
        loaded, refused = loaded_students(suite)
        return cls(suite, BACKENDS[suite.backend](suite.model), loaded, tuple(refused))

    @property
    def num_prompts(self) -> int:
        """Prompts of all sets."""
        return sum(p.num_prompts for p in self.suite.prompts.values())

    @property
    def num_images(self) -> int:
        """Images of one student."""
        return sum(p.num_prompts * p.images_per_prompt for p in self.suite.prompts.values())

    @cached_property
    def training_data(self) -> Mapping[str, Any]:
        """What determines captions and real images to train on; each file is looked at once."""
        data = self.suite.train_data
        return data_identity(data, self.backend.resolution) if data else {}

    @cached_property
    def bases(self) -> Mapping[str, Backend]:
        """The backend in which each student is sampled, by name; none for a whole pipeline."""
        found = {}
        for name, student in self.suite.students.items():
            one = self.loaded.get(name)
            if student.source in ("images", "real") or (one and one.row.format == PIPELINE):
                continue
            own = one is not None and one.model != self.suite.model
            found[name] = BACKENDS[self.suite.backend](one.model) if one and own else self.backend
        return found

    def needs_network(self, name: str) -> bool:
        """Whether a student starts from its base's own network, or is that; a whole one does not.

        A student without a base needs none.
        """
        one = self.loaded.get(name)
        return name in self.bases and not (one and self.bases[name].formats[one.row.format])

    def facts(self, base: Backend | None = None) -> Facts:
        """Of the networks of a backend, the suite's own by default; each is looked at once."""
        base = base or self.backend
        if id(base) not in self._facts:
            self._facts[id(base)] = self.look(base)
        return self._facts[id(base)]

    @cached_property
    def _facts(self) -> dict[int, Facts]:
        return {}


class Downloads(NamedTuple):
    """What must be on this machine before a run."""

    remotes: tuple[Remote, ...] = ()
    weights: tuple[Weights, ...] = ()  # of scorers


class Cost(NamedTuple):
    """What one seed of a task takes, in bytes."""

    disk: int = 0  # that it leaves
    disk_running: int = 0  # beside that, until it ends
    memory: TrainingMemory | None = None  # of a training


class Work(NamedTuple):
    """What one seed of a task computes in networks, as far as it is known without them."""

    operations: int
    dtype: str


TaskKind = tuple[str, str]  # stage, student ('' for what all share)


@dataclass(frozen=True)
class Part:
    """The answers of one part; a question that is none of its business keeps its default."""

    # What is wrong, in sentences that say what to do; known before any download.
    problems: Callable[[Asked], Iterable[str]] = lambda asked: ()
    # What two runs must share for their values to be compared.
    protocol: Callable[[Asked], Mapping[str, Any]] = lambda asked: {}
    # Its stages with all that determines their results, of this and of earlier parts.
    add_tasks: Callable[[Asked, Tasks], None] = lambda asked, tasks: None
    # What the report hangs on beside the tasks' results.
    reported: Callable[[Asked], Mapping[str, Any]] = lambda asked: {}
    downloads: Callable[[Asked], Downloads] = lambda asked: Downloads()
    costs: Callable[[Asked], Mapping[TaskKind, Cost]] = lambda asked: {}
    work: Callable[[Asked], Mapping[TaskKind, Work]] = lambda asked: {}
