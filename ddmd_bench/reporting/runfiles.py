"""Everything that a report reads, in memory: a record by student and seed, and the reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.data.prompts import pictured
from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files.arrays import read_features
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.made import anew, made_by, refuse_changed, require_made
from ddmd_bench.files.reading import refuse
from ddmd_bench.files.records import as_json, content_key, read_done, read_jsonl, read_record
from ddmd_bench.files.tables import Kind, read_parquet
from ddmd_bench.measuring.reference import find_statistics, load_reference, told_of_reference
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.studies import STUDIES, TALLY, read_tally, studies_of, tally_file

if TYPE_CHECKING:
    import pandas as pd

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

STAGES = {"train": "was not trained", "generate": "has no images", "score": "was not scored"}

UNREADABLE = "has files that cannot be read"
# The columns that a table has, and what all others hold.
TABLES: dict[str, tuple[dict[str, Kind], Kind | None]] = {
    "diagnostics": ({"iteration": "whole number"}, "number"),
    "evaluations": (
        {"iteration": "whole number", "metric": "text", "value": "number", "n": "whole number"},
        None,
    ),
    "per_image": (
        {"prompt_id": "text", "prompt_set": "text", "image_index": "whole number"},
        "number",
    ),
}
CELL = {"value": MAYBE_NUMBER, "low": MAYBE_NUMBER, "high": MAYBE_NUMBER, "n": int}
AGGREGATES = {...: {...: CELL}}  # by metric and set of prompts
IMAGE = {"file_name": str, "prompt_id": str, "image_index": int}
READ = (".parquet", ".npy", ".json")  # what numbers of a report are read from
STATISTICS = "statistics"  # the folder in a pack that holds those that a suite names


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
    pictures: Mapping[int, Path] = field(default_factory=dict)  # by iteration, of the training
    repeats: int = 0  # images that another has byte for byte
    folders: Mapping[str, Path] = field(default_factory=dict)  # by stage, of those that are whole


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
    imported: dict[str, str] = field(default_factory=dict)  # by extractor: what others' are
    preferences: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # tallies, by study
    categories: dict[str, str] = field(default_factory=dict)  # by prompt id, of those with one
    pictured: tuple[str, ...] = ()  # prompts of the trainings' own pictures

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
        protocol=as_json(plan.protocol),
        fingerprint=plan.fingerprint,
        students={
            name: {seed: load_student(plan, name, seed) for seed in suite.seeds}
            for name in suite.students
        },
        reference=_reference(plan, _extractors(suite)),
        imported=_imported(plan, _extractors(suite)),
        preferences={
            study: tally
            for study in studies_of(suite.claims)
            if (tally := read_tally(tally_of(plan, study))) is not None
        },
        pictured=tuple(
            p.text
            for p in pictured(plan.prompts, suite.evaluation.num_prompts if suite.evaluation else 0)
        ),
        categories={p.prompt_id: p.category for p in plan.prompts if p.category},
    )


def tally_of(plan: Plan, study: str) -> Path:
    """Where a study's tally lies, or will."""
    if plan.packed is None:
        return tally_file(study)
    return plan.packed.folder / STUDIES / content_key(study) / TALLY


def _extractors(suite: Suite) -> list[str]:
    return sorted({e for m in suite.metrics if (e := METRICS[m].extractor)})


def load_student(plan: Plan, name: str, seed: int) -> StudentFiles:
    """A student's files; one whose files are damaged is missing, and the others are not."""
    try:
        return _load_student(plan, name, seed, _extractors(plan.suite))
    except (BenchError, OSError, ValueError, KeyError) as error:
        return StudentFiles(f"{UNREADABLE}: {said_by(error)}")


def _load_student(plan: Plan, name: str, seed: int, extractors: list[str]) -> StudentFiles:
    tasks = {s: task for s in STAGES if (task := plan.find(s, name, seed))}
    whole = {s: task.folder for s, task in tasks.items() if task.complete()}
    done = {s: record for s, folder in whole.items() if (record := read_done(folder))}
    unfinished = [s for s in tasks if s not in done]
    made: dict[str, Any] = {"done": done, "folders": whole}
    if "generate" in done and plan.packed is None:  # a pack says itself what has changed
        refuse_changed(whole["generate"])  # pictures are shown, and no number is made of them here
    for folder in whole.values():
        require_made(folder, [name for name in made_by(folder) if name.endswith(READ)])
    if "train" in done:
        made["diagnostics"] = _table(whole["train"], "diagnostics")
        evaluated = (whole["train"] / "evaluations.parquet").is_file()
        made["pictures"] = {
            int(Path(name).stem): whole["train"] / name
            for name in made_by(whole["train"])
            if name.endswith(".webp")
        }
        made["evaluations"] = _table(whole["train"], "evaluations") if evaluated else None
    if "generate" in done:
        made["images"] = _images(whole["generate"] / "images")
        digests = [v for name, v in made_by(whole["generate"]).items() if name.endswith(".png")]
        made["repeats"] = len(digests) - len(set(digests))
    if "score" not in done:
        # A report may know of no such task: of another seed, say.
        why = _why(plan, tasks[unfinished[0]]) if unfinished else STAGES["score"]
        return StudentFiles(why, **made)
    scored, per_image = whole["score"], _table(whole["score"], "per_image")
    return StudentFiles(
        missing="",
        per_image=per_image,
        aggregates=read_record(scored / "aggregates.json", AGGREGATES, anew(scored)),
        features=_features(scored, extractors, len(per_image)),
        **made,
    )


def _table(folder: Path, name: str) -> pd.DataFrame:
    columns, others = TABLES[name]
    return read_parquet(folder / f"{name}.parquet", columns, others, anew(folder))


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


def _features(folder: Path, extractors: list[str], num: int) -> dict[str, np.ndarray]:
    """Each extractor's features of so many images, where it has any."""
    paths = {e: folder / f"features_{e}.npy" for e in extractors}
    found = {e: read_features(p, anew(folder)) for e, p in paths.items() if p.is_file()}
    for extractor, features in found.items():
        if len(features) != num:
            of = f"features of {len(features)} images"
            raise refuse(paths[extractor], of, f"of {num}", anew(folder))
    return found


def statistics_of(plan: Plan) -> Path | None:
    """Where the statistics of real images lie that the suite names, where it names some."""
    if (name := plan.suite.reference.statistics) is None:
        return None
    return plan.packed.folder / STATISTICS if plan.packed else find_statistics(name)


def _imported(plan: Plan, extractors: list[str]) -> dict[str, str]:
    """What is known of statistics that others published, and what is not."""
    if not extractors or (kept := statistics_of(plan)) is None:
        return {}
    return told_of_reference(kept, extractors)


def _reference(plan: Plan, extractors: list[str]) -> dict[str, RealFeatures]:
    if (kept := statistics_of(plan)) is not None:
        return {extractor: load_reference(kept, extractor) for extractor in extractors}
    task = plan.shared("reference")
    if task is None or not task.complete():
        return {}
    folder = task.folder
    require_made(folder)
    rows = read_jsonl(folder / "metadata.jsonl", {"prompt_id": str}, anew(folder))
    prompt_ids, found = np.array([row["prompt_id"] for row in rows]), {}
    for extractor, features in _features(folder, extractors, len(rows)).items():
        found[extractor] = RealFeatures(features, prompt_ids)
    return found


def _images(folder: Path) -> dict[tuple[str, int], Path]:
    rows = read_jsonl(folder / "metadata.jsonl", IMAGE, anew(folder.parent))
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
