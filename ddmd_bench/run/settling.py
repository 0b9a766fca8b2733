"""Draw block by block until every comparison with the baseline is settled, and no further.

Each round draws and scores one block of prompts more, of whoever has open comparisons and of the
baseline, and looks. All that is decided follows from the tables on disk: after a kill the same
looks follow, and nothing is drawn twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ddmd_bench.files.made import anew
from ddmd_bench.files.records import (
    DONE,
    SO_FAR,
    content_key,
    finite_or_none,
    read_done,
    write_jsonl,
)
from ddmd_bench.files.tables import Kind, read_parquet
from ddmd_bench.measuring.looks import Rule, compared_students, looks_at, outcome_named, rule_of
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import Task
from ddmd_bench.run.events import Note, OnEvent
from ddmd_bench.run.tasks import Outcome, run_tasks, run_these

BLOCKWISE = ("generate", "score")


@dataclass(frozen=True)
class _Standing:
    """What is asked of each student now, as its tables tell."""

    num_prompts: Mapping[str, int]
    ended: frozenset[str]  # of whom no more will be asked
    looks: list[dict[str, Any]]  # all so far, in order


def run_suite(plan: Plan, stages: Iterable[str], on_event: OnEvent, workers: int = 0) -> Outcome:
    """Finish the tasks of the stages; where the suite says so, as few images as it needs."""
    stages, rule = tuple(stages), rule_of(plan.suite)
    if rule is None or not {*BLOCKWISE} <= {*stages}:
        return run_tasks(plan, stages, on_event, workers)
    first = run_tasks(plan, [s for s in stages if s not in BLOCKWISE], on_event, workers)
    then = _until_settled(plan, rule, on_event, workers)
    return Outcome(first.num_done + then.num_done, first.problems + then.problems)


def _until_settled(plan: Plan, rule: Rule, on_event: OnEvent, workers: int) -> Outcome:
    complete, problems = _num_complete(plan), list[str]()
    lost = {name for name in plan.suite.students if not _may_begin(plan, name)}
    looked = 0
    while True:
        standing = _standing(plan, rule, lost)
        write_jsonl(looks_file(plan), standing.looks)
        if len(standing.looks) > looked:
            on_event(Note("look", _told(plan, standing)))
            looked = len(standing.looks)
        if plan.suite.baseline in lost:
            break  # nothing can be compared
        todo = list(_todo(plan, standing, lost))
        if not todo:
            break
        asked = replace(plan, num_prompts=standing.num_prompts)
        outcome = run_these(asked, todo, on_event, workers)
        problems += outcome.problems
        lost |= {task.student for task in todo if not _is_done(plan, standing, task.student)}
    return Outcome(_num_complete(plan) - complete, problems)


def _num_complete(plan: Plan) -> int:
    return sum(task.complete() for stage in BLOCKWISE for task in plan.of_stage(stage))


def _may_begin(plan: Plan, student: str) -> bool:
    """Whether all that drawing and scoring need is there, but for each other."""
    needed = {name for task in _tasks(plan, student) for name in task.needs}
    return all(plan.tasks[n].complete() for n in needed if n[0] not in BLOCKWISE)


def _tasks(plan: Plan, student: str) -> tuple[Task, Task]:
    (seed,) = plan.suite.seeds
    return plan.task("generate", student, seed), plan.task("score", student, seed)


def _num_prompts(plan: Plan, task: Task) -> int:
    """Of how many prompts the task has all images."""
    per_prompt = next(iter(plan.suite.images_per_prompt().values()))  # the same of all sets
    for name in (DONE, SO_FAR):
        record = read_done(task.folder, name)
        if record is not None and record.get("key") == task.key:
            return int(record["n"]) // per_prompt
    return 0


def _standing(plan: Plan, rule: Rule, lost: set[str]) -> _Standing:
    baseline, total = plan.suite.baseline, len(plan.prompts)
    scored = {name: _num_prompts(plan, _tasks(plan, name)[1]) for name in plan.suite.students}
    asked, ended, found = dict[str, int](), set[str](), list[dict[str, Any]]()
    for name in compared_students(plan.suite):
        both = min(scored[name], scored[baseline])
        rows = list(_looks(plan, rule, name)) if both else []
        found += rows
        settled = {row["metric"]: row["prompts"] for row in rows if row["outcome"] != "open"}
        if len(settled) == len(rule.metrics):
            asked[name] = max(settled.values())
            ended.add(name)
        elif both == total:
            asked[name] = total
            ended.add(name)
        else:
            asked[name] = min(both + rule.block, total)
    goes_on = [name for name in asked if name not in lost]
    # Of one that is lost for now the baseline keeps what was compared.
    most = [asked[n] if n in goes_on else min(scored[n], scored[baseline]) for n in asked]
    for name in plan.suite.students:
        if name not in asked:  # the baseline, and real scenes beside it
            asked[name] = max([min(rule.block, total), *most])
            if ended.issuperset(goes_on):
                ended.add(name)
    order = {name: k for k, name in enumerate(plan.suite.students)}
    found.sort(key=lambda row: (row["prompts"], order[row["student"]]))
    return _Standing(asked, frozenset(ended), found)


def _looks(plan: Plan, rule: Rule, student: str) -> Iterator[dict[str, Any]]:
    """A row for each look at each of a student's comparisons so far."""
    folders = [_tasks(plan, name)[1].folder for name in (student, plan.suite.baseline)]
    columns: dict[str, Kind] = {"prompt_id": "text", **dict.fromkeys(rule.metrics, "number")}
    tables = [read_parquet(f / "per_image.parquet", columns, remedy=anew(f)) for f in folders]
    for metric in rule.metrics:
        for k, look in enumerate(looks_at(rule, metric, tables[0], tables[1], rule.level)):
            yield {
                "prompts": min((k + 1) * rule.block, len(plan.prompts)),
                "student": student,
                "metric": metric,
                "valued": look.num_prompts,
                "difference": look.mean,
                "low": finite_or_none(look.low),
                "high": finite_or_none(look.high),
                "outcome": outcome_named(metric, look.answer) if look.answer else "open",
            }


def _todo(plan: Plan, standing: _Standing, lost: set[str]) -> Iterator[Task]:
    """Tasks that are to do for what is asked; a drawing that has ended is marked as finished."""
    for name in plan.suite.students:
        if name in lost:
            continue
        drawing, scoring = _tasks(plan, name)
        asked = standing.num_prompts[name]
        if _num_prompts(plan, drawing) != asked:
            _reopen(drawing, scoring)
            yield from (drawing, scoring)
        elif _num_prompts(plan, scoring) != asked:
            yield scoring
        elif name in standing.ended and not (drawing.complete() and scoring.complete()):
            if not drawing.complete():
                (drawing.folder / SO_FAR).replace(drawing.folder / DONE)
            yield scoring


def _is_done(plan: Plan, standing: _Standing, student: str) -> bool:
    """Whether a student has all that was asked of it."""
    drawing, scoring = tasks = _tasks(plan, student)
    asked = standing.num_prompts[student]
    drawn = all(_num_prompts(plan, task) == asked for task in tasks)
    return drawn and scoring.complete() == drawing.complete()


def _reopen(drawing: Task, scoring: Task) -> None:
    """What was finished goes on: another student, mended or trained anew, takes more prompts."""
    scoring.folder.joinpath(DONE).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (drawing.folder / DONE).replace(drawing.folder / SO_FAR)


def looks_file(plan: Plan) -> Any:
    """Where all looks of a run stand, a line each."""
    key = content_key([task.key for task in plan.of_stage("score")])
    return plan.runs / plan.suite.name / "looks" / f"{key}.jsonl"


def _told(plan: Plan, standing: _Standing) -> str:
    """How many comparisons are settled by now, and which at this look."""
    last = max(row["prompts"] for row in standing.looks)
    settled = [row for row in standing.looks if row["outcome"] != "open"]
    pairs = {(row["student"], row["metric"]) for row in standing.looks}
    now = [
        f"{row['student']} {row['outcome']} in {row['metric']}"
        for row in settled
        if row["prompts"] == last
    ]
    text = f"{last} of {len(plan.prompts)} prompts, {len(settled)} of {len(pairs)} settled"
    return f"{text}: {', '.join(now)}" if now else text
