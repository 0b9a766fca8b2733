"""A student with one seed: the few facts that its images, and its export, hang on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.students.catalogue import StudentWeights
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.suite.students import Student

# In the folder of a student's training: its last weights, and its best where they are kept.
WEIGHTS, BEST = "student.safetensors", "best.safetensors"


@dataclass(frozen=True)
class SeededStudent:
    """A student of a suite with one of its seeds, as its images are drawn."""

    name: str
    label: str  # as a message names it
    seed: int
    row: Student
    prompts: Sequence[Prompt]
    images_per_prompt: Mapping[str, int]
    settings: TrainSettings | None = None  # of one that is trained here
    trained: Path | None = None  # the folder of its training; None: not finished
    loaded: StudentWeights | None = None  # of one that was trained elsewhere


def trained_folder(student: SeededStudent) -> Path:
    """What the student's training left; an error where it has not finished."""
    if student.trained is None:
        raise BenchError(f"{student.label} is not trained yet. Run the train stage first")
    return student.trained


def weights_file(student: SeededStudent) -> Path:
    """The weights of its training that the student is drawn from."""
    best = student.row.weights == "best"
    path = trained_folder(student) / (BEST if best else WEIGHTS)
    if not path.is_file():
        none_was = (
            "no evaluation while it trained had a value to be the best by. Leave its weights: best "
            "out, or name another metric: evaluation.keep_best"
        )
        raise BenchError(
            f"{student.label}: {none_was if best else f'{path} is missing. Delete {path.parent}'}"
        )
    return path
