"""watch: a run that another process does, how far it is, and its report made anew as tasks end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddmd_bench.commands.display import standing_line
from ddmd_bench.commands.options import Overrides, Reports, Runs, SuiteName, console
from ddmd_bench.commands.plans import planned

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task

POLL_S = 2.0
OLD_S = 120  # after which it is said when a run was heard of last


def watch(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = None,
    once: Annotated[bool, typer.Option("--once", help="Print it and end.")] = False,
) -> None:
    """Show how far a run is, until it ends; its report is made anew as students are scored."""
    from rich.live import Live

    from ddmd_bench.run.progress import read_progress

    plan = planned(suite, set_, runs, reports)
    folder = plan.runs / plan.suite.name
    progress = read_progress(folder)
    if once or progress is None or not console.is_terminal:
        console.print(shown(plan, progress))
        return
    scored, page = _scored(plan), ""
    with Live(shown(plan, progress, page), console=console, auto_refresh=False) as live:
        while (progress := read_progress(folder)) is not None:
            if (now := _scored(plan)) != scored:
                scored, page = now, _report(plan)
            live.update(shown(plan, progress, page), refresh=True)
            time.sleep(POLL_S)
    console.print("the run has ended")


def shown(plan: Plan, progress: dict[str, Any] | None, page: str = "") -> RenderableType:
    """A row for each student and a column for each stage, and what the run says of itself."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table

    stages = [s for s in ("train", "generate", "score") if plan.of_stage(s)]
    under_way = progress["tasks"] if progress else {}
    table = Table("student", *stages, box=SIMPLE_HEAD)
    for student in plan.suite.students:
        own = [[t for t in plan.of_stage(stage) if t.student == student] for stage in stages]
        table.add_row(student, *(_state(tasks, under_way) for tasks in own))
    return Group(table, *_lines(progress), *([page] if page else []))


def _lines(progress: dict[str, Any] | None) -> list[str]:
    from ddmd_bench.run.events import Standing

    if progress is None:
        return ["no run is under way here"]
    told = [standing_line(Standing(*progress["standing"]))] if progress["standing"] else []
    if (ago := time.time() - progress["at"]) > OLD_S:
        told.append(f"heard of last {ago / 60:.0f} min ago")
    return told


def _state(tasks: list[Task], under_way: dict[str, list[int]]) -> str:
    """Of a student's tasks of one stage, one for each seed."""
    if not tasks:
        return "-"
    done = sum(task.complete() for task in tasks)
    failed = sum(task.failure() is not None for task in tasks if not task.complete())
    running = [under_way[str(task)] for task in tasks if str(task) in under_way]
    parts = [f"{done}/{len(tasks)}" if len(tasks) > 1 else "done" * done]
    parts += [f"{now} of {total}" for now, total in running]
    parts += [f"{failed} failed" if len(tasks) > 1 else "failed"] if failed else []
    return ", ".join(filter(None, parts)) or "waits"


def _scored(plan: Plan) -> int:
    return sum(task.complete() for task in plan.of_stage("score"))


def _report(plan: Plan) -> str:
    """Made of what is there, without the pictures of all prompts; where it lies, and when."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.reporting.kept import keep_other
    from ddmd_bench.stages.report import report

    keep_other(plan)
    with one_thread():
        report(plan)
    return f"report: {plan.report_folder / 'index.html'}, made {time.strftime('%H:%M:%S')}"
