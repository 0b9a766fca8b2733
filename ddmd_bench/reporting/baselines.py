"""The run that another is held against: found by its report, or by the folder of its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ddmd_bench.errors import BenchError, NotRun
from ddmd_bench.files.records import read_done
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.task import Task, TaskName
from ddmd_bench.reporting.packs import is_pack, opened_pack
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, load_student
from ddmd_bench.reporting.saved import read_report


class Baseline(NamedTuple):
    """What a comparison takes of a run."""

    protocol: dict[str, Any]
    seeds: tuple[int, ...]
    students: dict[str, dict[int, StudentFiles]]  # by seed

    @classmethod
    def of(cls, run: RunFiles) -> Baseline:
        """Of a run that is loaded."""
        return cls(run.protocol, run.suite.seeds, run.students)


def load_baseline(path: Path, plan: Plan) -> Baseline:
    """The files behind a `report.json` (or the folder that holds it), or those of a run's folder.

    A report knows its folders, which are looked for beside it, as `reports/` and `runs/` stand by
    default, and in the runs of `plan`. A run's folder holds the stages of the plan's suite, or is
    the one above, and has what that suite asks for. A pack has its own; its images stay in it.
    """
    if is_pack(path.name) and path.is_file():
        return _of_pack(path, plan)
    file = path / "report.json" if path.is_dir() else path
    if file.is_file():
        return _of_report(file, plan)
    suite = plan.suite
    if (path / suite.name).is_dir():
        theirs = make_plan(suite, path, path)
    elif (path / "score").is_dir():
        theirs = make_plan(suite.model_copy(update={"name": path.name}), path.parent, path)
    else:
        raise BenchError(
            f"--baseline {path}: expected a report.json, its folder, a folder of runs "
            f"with {suite.name}/ in it, or a pack: FILE.tar"
        )
    if not any(task.complete() for task in theirs.of_stage("score")):
        raise NotRun(
            f"--baseline {path}: holds no scores of this suite as this version names them. Run it, "
            "or give its report.json, which knows its folders"
        )
    return Baseline(plan.protocol, suite.seeds, _students(theirs, suite.seeds))


def _of_pack(path: Path, plan: Plan) -> Baseline:
    with opened_pack(path) as theirs:
        assert theirs.packed is not None
        theirs.packed.refuse_changed()
        # What the plan at hand compares is read of theirs.
        students = _students(replace(theirs, suite=plan.suite), theirs.suite.seeds)
        alone = {
            name: {seed: replace(files, images={}) for seed, files in by_seed.items()}
            for name, by_seed in students.items()
        }
        return Baseline(theirs.protocol, theirs.suite.seeds, alone)


def folders_of(plan: Plan) -> dict[str, str]:
    """Where each task's files lie in the suite's folder of runs, for a report to keep: another
    version of the package may name them otherwise."""
    root = plan.runs / plan.suite.name
    return {
        "/".join(map(str, task.name)): task.folder.relative_to(root).as_posix()
        for task in plan.tasks.values()
        if task.folder.is_relative_to(root)
    }


def _of_report(file: Path, plan: Plan) -> Baseline:
    record = read_report(file)
    name, seeds = record["suite"]["name"], tuple(record["suite"]["seeds"])
    try:
        folders = {_name_of(text): Path(where) for text, where in record["folders"].items()}
    except (KeyError, ValueError):
        raise BenchError(
            f"{file}: does not say where its run's files lie, as reports of this version do. Write "
            "it again with `python -m ddmd_bench report`, or give the folder of its runs"
        ) from None
    tried = [folder / name for folder in _runs_beside(file, plan.runs)]
    for root in tried:
        tasks = {of: _task(of, root / where) for of, where in folders.items()}
        if any(task.complete() for (stage, *_), task in tasks.items() if stage == "score"):
            return Baseline(record["protocol"], seeds, _students(replace(plan, tasks=tasks), seeds))
    told = ", ".join(map(str, tried))
    raise NotRun(f"{file}: no files of its run in {told}. A comparison needs its scores")


def _name_of(text: str) -> TaskName:
    stage, student, seed = text.split("/")
    return stage, student, int(seed)


def _task(name: TaskName, folder: Path) -> Task:
    """A task as it was left, whatever its key would be today."""
    key = (read_done(folder) or {}).get("key", "")
    return Task(*name, label=name[1], key=key, folder=folder, inputs={})


def _students(plan: Plan, seeds: tuple[int, ...]) -> dict[str, dict[int, StudentFiles]]:
    names = dict.fromkeys(name for stage, name, _ in plan.tasks if stage == "score")
    return {name: {seed: load_student(plan, name, seed) for seed in seeds} for name in names}


def _runs_beside(file: Path, runs: Path) -> Iterator[Path]:
    """Of reports/SUITE/report.json the runs/ beside reports/, and what holds reports itself."""
    above = [*file.absolute().parents]
    folders = [above[2] / "runs", above[2]] if len(above) > 2 else []
    yield from (folder for folder in dict.fromkeys([*folders, runs]) if folder.is_dir())
