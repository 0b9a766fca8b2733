"""Everything that a report reads, in memory: a record by student and seed, and the reference."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files.made import made_by, refuse_changed, require_made
from ddmd_bench.files.records import read_done, read_json, read_jsonl
from ddmd_bench.measuring.reference import find_statistics, load_reference
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.suite.schema import Suite

if TYPE_CHECKING:
    import pandas as pd

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

STAGES = {"train": "was not trained", "generate": "has no images", "score": "was not scored"}

UNREADABLE = "has files that cannot be read"
READ = (".parquet", ".npy", ".json")  # what numbers of a report are read from


@dataclass(frozen=True)
class StudentFiles:
    """What one student left behind with one seed."""

    missing: str  # why it cannot be compared, or empty
    done: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stage
    per_image: pd.DataFrame | None = None
    aggregates: dict[str, dict[str, Any]] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)  # by extractor: float32 [n, d]
    diagnostics: pd.DataFrame | None = None
    evaluations: pd.DataFrame | None = None  # iteration, metric, value, n
    images: dict[tuple[str, int], Path] = field(default_factory=dict)  # by prompt id, image index
    repeats: int = 0  # images that another has byte for byte


@dataclass(frozen=True)
class RunFiles:
    """A run as its files tell it."""

    suite: Suite
    prompts: dict[str, str]  # text by prompt id, in the suite's order
    prompt_lists: dict[str, dict[str, Any]]  # where each prompt set is from: n, sha256, licence ...
    protocol: dict[str, Any]
    fingerprint: str
    students: dict[str, dict[int, StudentFiles]]  # by seed, in the suite's order
    reference: dict[str, RealFeatures]  # by extractor: features of real images and their prompts

    def first_seed(self, student: str) -> StudentFiles:
        """The student's files of the suite's first seed: the one whose pictures are shown."""
        return self.students[student][self.suite.seeds[0]]


def load_run(plan: Plan) -> RunFiles:
    """Read the files of every stage that is complete; what is not is missing, with its reason."""
    suite = plan.suite
    return RunFiles(
        suite=suite,
        prompts={p.prompt_id: p.text for p in plan.prompts},
        prompt_lists=plan.prompt_lists,
        # Tuples become lists here, as they will be for whoever reads the record.
        protocol=json.loads(json.dumps(plan.protocol)),
        fingerprint=plan.fingerprint,
        students={
            name: {seed: load_student(plan, name, seed) for seed in suite.seeds}
            for name in suite.students
        },
        reference=_reference(suite, plan.shared("reference"), _extractors(suite)),
    )


def _extractors(suite: Suite) -> list[str]:
    return sorted({e for m in suite.metrics if (e := METRICS[m].extractor)})


def load_student(plan: Plan, name: str, seed: int) -> StudentFiles:
    """A student's files; one whose files are damaged is missing, and the others are not."""
    try:
        return _load_student(plan, name, seed, _extractors(plan.suite))
    except (BenchError, OSError, ValueError, KeyError) as error:
        return StudentFiles(f"{UNREADABLE}: {said_by(error)}")


def _load_student(plan: Plan, name: str, seed: int, extractors: list[str]) -> StudentFiles:
    import pandas as pd

    tasks = {s: task for s in STAGES if (task := plan.find(s, name, seed))}
    whole = {s: task.folder for s, task in tasks.items() if task.complete()}
    done = {s: record for s, folder in whole.items() if (record := read_done(folder))}
    unfinished = [s for s in tasks if s not in done]
    made: dict[str, Any] = {"done": done}
    if "generate" in done:
        refuse_changed(whole["generate"])  # pictures are shown, and no number is made of them here
    for folder in whole.values():
        require_made(folder, [name for name in made_by(folder) if name.endswith(READ)])
    if "train" in done:
        made["diagnostics"] = pd.read_parquet(whole["train"] / "diagnostics.parquet")
        evaluations = whole["train"] / "evaluations.parquet"
        made["evaluations"] = pd.read_parquet(evaluations) if evaluations.is_file() else None
    if "generate" in done:
        made["images"] = _images(whole["generate"] / "images")
        digests = [v for name, v in made_by(whole["generate"]).items() if name.endswith(".png")]
        made["repeats"] = len(digests) - len(set(digests))
    if "score" not in done:
        return StudentFiles(_why(plan, tasks[unfinished[0]]), **made)
    return StudentFiles(
        missing="",
        per_image=pd.read_parquet(whole["score"] / "per_image.parquet"),
        aggregates=read_json(whole["score"] / "aggregates.json"),
        features=_features(whole["score"], extractors),
        **made,
    )


def _why(plan: Plan, task: Task) -> str:
    """Why an unfinished task left nothing, as said after the student's name."""
    if (failed := failed_before(plan, task)) is not None:
        return f"stopped in {failed.stage}: {failed.failure()}"
    return STAGES[task.stage]


def failed_before(plan: Plan, task: Task) -> Task | None:
    """The task whose failure keeps an unfinished one from its end: itself, or one it needs."""
    for name in task.needs:
        if (found := failed_before(plan, plan.tasks[name])) is not None:
            return found
    return task if task.failure() is not None else None


def _features(folder: Path, extractors: list[str]) -> dict[str, np.ndarray]:
    paths = {e: folder / f"features_{e}.npy" for e in extractors}
    return {e: np.load(path, allow_pickle=False) for e, path in paths.items() if path.is_file()}


def _reference(suite: Suite, task: Task | None, extractors: list[str]) -> dict[str, RealFeatures]:
    if suite.reference.statistics is not None:
        kept = find_statistics(suite.reference.statistics)
        return {extractor: load_reference(kept, extractor) for extractor in extractors}
    if task is None or not task.complete():
        return {}
    folder = task.folder
    require_made(folder)
    prompt_ids = np.array([row["prompt_id"] for row in read_jsonl(folder / "metadata.jsonl")])
    return {e: RealFeatures(f, prompt_ids) for e, f in _features(folder, extractors).items()}


def _images(folder: Path) -> dict[tuple[str, int], Path]:
    rows = read_jsonl(folder / "metadata.jsonl")
    return {(r["prompt_id"], r["image_index"]): folder / r["file_name"] for r in rows}


def titles_of(suite: Suite) -> dict[str, str]:
    """Shown names of all students: the suite's own, else the method's, else the key.

    Two of one method would share its name: then each has its key beside it.
    """
    rows = suite.students.items()
    titles = {n: s.title or (METHODS[s.method].title if s.method else n) for n, s in rows}
    shared = Counter(titles.values())
    return {name: t if shared[t] == 1 else f"{t} ({name})" for name, t in titles.items()}


def trained_in(suite: Suite) -> list[str]:
    """The students that are trained here, in the suite's order."""
    return [name for name, student in suite.students.items() if student.source == "train"]


def real_in(suite: Suite) -> str | None:
    """The student that is the real scenes themselves, where the suite has one."""
    return next((n for n, student in suite.students.items() if student.source == "real"), None)
