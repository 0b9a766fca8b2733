"""Everything that a report reads, in memory: one record for each student, and the reference."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.methods import METHODS
from ddmd_bench.records import read_done, read_json, read_jsonl
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.frechet import Reference
from ddmd_bench.suite import Student, Suite

if TYPE_CHECKING:
    import pandas as pd

    from ddmd_bench.plan import Plan

STAGES = {"train": "was not trained", "generate": "has no images", "score": "was not scored"}


@dataclass(frozen=True)
class StudentFiles:
    """What one student left behind. `missing` says why it cannot be compared, or is empty."""

    missing: str
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stage
    per_image: pd.DataFrame | None = None
    aggregates: dict[str, dict[str, Any]] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)  # by extractor: float32 [n, d]
    diagnostics: pd.DataFrame | None = None
    images: dict[tuple[str, int], Path] = field(default_factory=dict)  # by prompt id, image index


@dataclass(frozen=True)
class RunFiles:
    """A run as its files tell it."""

    suite: Suite
    prompts: dict[str, str]  # text by prompt id, in the suite's order
    protocol: dict[str, Any]
    fingerprint: str
    students: dict[str, StudentFiles]
    reference: dict[str, Reference]  # by extractor: features of real images and their prompts


def load_run(plan: Plan) -> RunFiles:
    """Read the files of every stage that is complete; what is not is missing, with its reason."""
    suite = plan.suite
    extractors = sorted({e for m in suite.metrics if (e := METRICS[m].extractor)})
    reference = plan.tasks.get(("reference", ""))
    has_reference = reference is not None and reference.complete()
    return RunFiles(
        suite=suite,
        prompts={p.prompt_id: p.text for p in plan.prompts},
        # Tuples become lists here, as they will be for whoever reads the record.
        protocol=json.loads(json.dumps(plan.protocol)),
        fingerprint=plan.fingerprint,
        students={name: _load_student(plan, name, extractors) for name in suite.students},
        reference=_reference(reference.folder, extractors) if reference and has_reference else {},
    )


def _load_student(plan: Plan, name: str, extractors: list[str]) -> StudentFiles:
    import pandas as pd

    tasks = {s: task for s in STAGES if (task := plan.tasks.get((s, name)))}
    whole = {s: task.folder for s, task in tasks.items() if task.complete()}
    done = {s: record for s, folder in whole.items() if (record := read_done(folder))}
    unfinished = [s for s in tasks if s not in done]
    diagnostics = images = None
    if "train" in done:
        diagnostics = pd.read_parquet(whole["train"] / "diagnostics.parquet")
    if "generate" in done:
        images = _images(whole["generate"] / "images")
    if "score" not in done:
        missing = STAGES[unfinished[0] if unfinished else "score"]
        return StudentFiles(missing, done, diagnostics=diagnostics, images=images or {})
    return StudentFiles(
        missing="",
        done=done,
        per_image=pd.read_parquet(whole["score"] / "per_image.parquet"),
        aggregates=read_json(whole["score"] / "aggregates.json"),
        features=_features(whole["score"], extractors),
        diagnostics=diagnostics,
        images=images or {},
    )


def _features(folder: Path, extractors: list[str]) -> dict[str, np.ndarray]:
    paths = {e: folder / f"features_{e}.npy" for e in extractors}
    return {e: np.load(path, allow_pickle=False) for e, path in paths.items() if path.is_file()}


def _reference(folder: Path, extractors: list[str]) -> dict[str, Reference]:
    prompt_ids = np.array([row["prompt_id"] for row in read_jsonl(folder / "metadata.jsonl")])
    return {e: Reference(f, prompt_ids) for e, f in _features(folder, extractors).items()}


def _images(folder: Path) -> dict[tuple[str, int], Path]:
    rows = read_jsonl(folder / "metadata.jsonl")
    return {(r["prompt_id"], r["image_index"]): folder / r["file_name"] for r in rows}


def title_of(name: str, student: Student) -> str:
    """The name shown to a reader: the suite's own, else the method's, else the key."""
    return student.title or (METHODS[student.method].title if student.method else name)


def titles_of(suite: Suite) -> dict[str, str]:
    """Shown names of all students, in the suite's order."""
    return {name: title_of(name, student) for name, student in suite.students.items()}


def trained_in(suite: Suite) -> list[str]:
    """The students that are trained here, in the suite's order."""
    return [name for name, student in suite.students.items() if student.source == "train"]


def real_in(suite: Suite) -> str | None:
    """The student that is the real scenes themselves, where the suite has one."""
    return next((n for n, student in suite.students.items() if student.source == "real"), None)
