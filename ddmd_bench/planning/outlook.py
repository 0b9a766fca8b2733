"""What the estimates of a plan share: how often each of a suite's tasks is still to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.files.records import read_done
from ddmd_bench.students.loaded import PIPELINE, LoadedStudent, loaded_students
from ddmd_bench.suite.schema import Suite

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

STAGES = ("encode", "reference", "train", "generate", "score")


@dataclass(frozen=True)
class Outlook:
    """A suite that is to run; `plan` is None where its prompts or weights are not here yet."""

    suite: Suite
    backend: Backend
    loaded: dict[str, LoadedStudent]
    plan: Plan | None = None

    @classmethod
    def of(cls, suite: Suite, plan: Plan | None = None) -> Outlook:
        """The suite with its backend; reads no weights."""
        loaded = loaded_students(suite)[0]
        return cls(suite, BACKENDS[suite.backend](suite.model), loaded, plan)

    def num_images(self) -> int:
        """Images of one student."""
        return sum(p.num_prompts * p.images_per_prompt for p in self.suite.prompts.values())

    def num_prompts(self) -> int:
        """Prompts of all sets."""
        return sum(p.num_prompts for p in self.suite.prompts.values())

    def num_todo(self, stage: str, student: str) -> int:
        """Tasks, a seed each, that are not complete; all of them where there is no plan."""
        if self.plan is None:
            return len(self.suite.seeds) if student else 1
        tasks = self.plan.of_stage(stage)
        return sum(task.student == student and not task.complete() for task in tasks)

    def seconds_of_another_seed(self, stage: str, student: str) -> float | None:
        """What the same task took with another seed of the suite, by its record."""
        for task in self.plan.of_stage(stage) if self.plan is not None else []:
            if task.student == student and task.complete():
                found = (read_done(task.folder) or {}).get("seconds")
                return None if found is None else float(found)
        return None

    def bases(self) -> dict[str, Backend]:
        """The backend in which each student is sampled, by name; none for a whole pipeline."""
        found = {}
        for name, student in self.suite.students.items():
            one = self.loaded.get(name)
            if one is None or one.model == self.suite.model:
                found[name] = self.backend
            else:
                found[name] = BACKENDS[self.suite.backend](one.model)
            if student.source in ("images", "real") or (one and one.row.format == PIPELINE):
                del found[name]
        return found
