"""plan: what a run would do and take, and every problem that stands in its way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddmd_bench.commands.options import (
    REPORTS,
    Overrides,
    Reports,
    Runs,
    SuiteName,
    console,
    raise_problems,
    refuse_given,
)
from ddmd_bench.errors import BenchError
from ddmd_bench.files import ranks
from ddmd_bench.files.places import require_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task
    from ddmd_bench.suite.schema import Suite


def plan(
    ctx: typer.Context,
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="METRIC=DIFFERENCE: what showing it to the baseline takes."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Whose spreads and seconds --for takes. Default: its own.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Each task with its key.")
    ] = False,
) -> None:
    """Check a suite and print what a run would do; with --for, what a difference would take."""
    from ddmd_bench.suite.files import load_suite

    require_folder(runs, "--runs")
    require_folder(reports or REPORTS, "--reports")
    asked = load_suite(suite, set_ or [])
    if for_ is None:
        fact = "no difference is asked for"
        refuse_given(ctx, fact, {"--report": "give --for METRIC=DIFFERENCE beside it"})
        _print_plan(asked, runs, reports or REPORTS, verbose=verbose)
    else:
        _print_budget(asked, report or (reports or REPORTS) / asked.name, for_)


def _print_budget(suite: Suite, report: Path, wanted: str) -> None:
    from ddmd_bench.planning.part import Asked
    from ddmd_bench.reporting.budget import budget_lines
    from ddmd_bench.reporting.saved import read_report

    _print(budget_lines(Asked.of(suite), read_report(report), wanted))


def _print_plan(suite: Suite, runs: Path, reports: Path, *, verbose: bool) -> None:
    """Print all that is known, also of a suite that cannot run yet, and raise its problems last."""
    from ddmd_bench.hub.cache import hub_cache
    from ddmd_bench.planning.downloads import bytes_to_come, lines_of, look_at, weights_lines
    from ddmd_bench.planning.encoding import enlarged_lines
    from ddmd_bench.planning.guidance import guidance_lines
    from ddmd_bench.planning.outlook import (
        Outlook,
        disk_lines,
        disk_problems,
        memory_lines,
        memory_problems,
        work_lines,
    )
    from ddmd_bench.planning.part import Asked
    from ddmd_bench.planning.plan import make_plan, suite_downloads
    from ddmd_bench.planning.scale import scale_lines
    from ddmd_bench.planning.superseded import superseded, superseded_lines
    from ddmd_bench.run.workers import slots

    made, problems = None, []
    try:
        made = make_plan(suite, runs, reports)
    except BenchError as error:
        problems.append(str(error))
    if made is not None:
        problems += made.unfit_lines
        _print(list(_task_lines(made) if verbose else _stage_lines(made)))
        _print(list(_about(made)))
        every = {task.stage for task in made.tasks.values()}
        _print(superseded_lines(superseded(made, every)))
    try:
        downloads = suite_downloads(suite)
        outlook = Outlook(Asked.of(suite), made, len(slots()))
    except BenchError:
        raise_problems(problems)  # its own is among them
        raise
    _print([*guidance_lines(outlook.asked), *enlarged_lines(outlook.asked)])
    looks = look_at(downloads.remotes)
    # Where nothing answered, a missing file is no problem yet: `fetch` will tell.
    problems += [problem for seen in looks if seen.reached for problem in seen.problems]
    problems += memory_problems(outlook, ranks.group())
    to_come = bytes_to_come(looks)
    problems += disk_problems({runs: sum(outlook.disk().values()), hub_cache(): to_come})
    lines = lines_of(downloads.remotes, looks) + weights_lines(downloads.weights)
    _print(lines or ["no downloads"])
    _print(memory_lines(outlook))
    _print(disk_lines(outlook))
    _print(work_lines(outlook))
    _print(scale_lines(outlook))
    raise_problems(list(dict.fromkeys(problems)))


def _print(lines: list[str]) -> None:
    for line in lines:
        console.print(line)


def _task_lines(made: Plan) -> Iterator[str]:
    for task in made.tasks.values():
        state = "complete" if task.complete() else "to do"
        yield f"{task!s:<36} {task.key}  {state}"


def _stage_lines(made: Plan) -> Iterator[str]:
    """What is to do and what is not, a line for each stage."""
    stages: dict[str, list[Task]] = {}
    for task in made.tasks.values():
        stages.setdefault(task.stage, []).append(task)
    for stage, tasks in stages.items():
        to_do = [task for task in tasks if not task.complete()]
        names = dict.fromkeys(task.student for task in to_do if task.student)
        of = f" ({', '.join(names)})" if names and len(to_do) < len(tasks) else ""
        left = f"{len(to_do)} to do{of}" if to_do else ""
        done = f"{len(tasks) - len(to_do)} complete" if len(to_do) < len(tasks) else ""
        yield f"{stage}: {', '.join(filter(None, [left, done]))}"


def _about(made: Plan) -> Iterator[str]:
    shared = ((one[:2], other[1]) for one, other in made.shared_tasks.items())
    for (stage, student), other in dict.fromkeys(shared):
        yield f"{stage} {student}: one with that of {other}"
    for name, one in made.loaded.items():
        words, side = one.row.sampling.words(), one.row.resolution
        yield f"sampling of {name}: {words}, {side} x {side} pixels"
    num_images = sum(made.suite.images_per_prompt()[p.prompt_set] for p in made.prompts)
    seeds = f", {len(made.suite.seeds)} seeds" if len(made.suite.seeds) > 1 else ""
    most = "" if made.suite.until_settled is None else "at most "
    yield (
        f"{most}{len(made.prompts)} prompts, {num_images} images a student, "
        f"{len(made.suite.students)} students{seeds}; protocol {made.fingerprint}"
    )
