"""run, and the stages on their own: train, generate ..."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    SOME_FAILED,
    Overrides,
    Redo,
    Reports,
    Runs,
    SuiteName,
    UntilSettled,
    Workers,
    as_told,
    console,
    errors,
    raise_problems,
)
from ddmd_bench.commands.plans import planned
from ddmd_bench.commands.reporting import raise_missing, write_where_changed
from ddmd_bench.errors import BenchError
from ddmd_bench.files import ranks, stopping

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.run.tasks import Outcome

_IN_USE = "Wait for it, end it, or take another folder: --runs"
ALL_STAGES = ("doctor", "encode", "reference", "train", "generate", "score")


def run_stages(plan: Plan, stages: tuple[str, ...], workers: int, redo: bool) -> Outcome:
    """Run the stages' unfinished tasks, if all that they need is here and there is room.

    What another version of the code has made is made again only with `redo`.
    """
    from ddmd_bench.files.locks import locked
    from ddmd_bench.run.progress import told_beside
    from ddmd_bench.run.settling import run_suite
    from ddmd_bench.run.tasks import Outcome
    from ddmd_bench.run.together import run_together, sharing_problems

    complete = all(task.complete() for stage in stages for task in plan.of_stage(stage))
    if not ranks.anyone(not complete):
        return Outcome(0, [])
    group = ranks.group()
    with ranks.together():
        _require_ready(plan, stages, workers, redo, group)
    if ranks.num() > 1:
        problems = sharing_problems(plan, stages)
        with ranks.together():
            raise_problems(problems)
    if "generate" in stages and ranks.is_first():
        for line in plan.unfit_lines:
            errors.print(f"{line}. The others go on")
    # Two runs in one folder would do everything twice, and write the same files.
    stopping.obey()
    if ranks.num() > 1:  # stages run in this process: Ctrl-C is no failure of the one under way
        stopping.obey_interrupt()
    with ExitStack() as held:
        with ranks.together():
            if ranks.is_first():
                held.enter_context(locked(plan.runs / plan.suite.name, _IN_USE))
        on_event = held.enter_context(progress_shown(console))
        if ranks.is_first():
            own = plan.runs / plan.suite.name
            on_event = held.enter_context(told_beside(own, on_event))
        if ranks.num() > 1:
            return run_together(plan, stages, on_event)
        return run_suite(plan, stages, on_event, workers)


def _require_ready(
    plan: Plan, stages: tuple[str, ...], workers: int, redo: bool, group: ranks.Group
) -> None:
    """Raise BenchError if anything is known that would stop the stages later."""
    from ddmd_bench.planning.downloads import require_here
    from ddmd_bench.planning.encoding import enlarged_lines
    from ddmd_bench.planning.guidance import guidance_lines
    from ddmd_bench.planning.outlook import Outlook, disk_problems, memory_problems
    from ddmd_bench.planning.part import Asked
    from ddmd_bench.planning.superseded import superseded, superseded_lines
    from ddmd_bench.run.workers import slots

    if ranks.num() > 1 and workers:
        raise BenchError(
            f"--workers {workers}: a launcher started this command {ranks.num()} times, and its "
            "processes do each training and drawing together. Leave --workers out"
        )
    if ranks.num() > 1 and plan.suite.until_settled is not None:
        raise BenchError(
            "until_settled: blocks are drawn, scored and looked at by one command in one process, "
            f"and a launcher started this one {ranks.num()} times. Start it without a launcher"
        )
    if not redo and (lines := superseded_lines(superseded(plan, stages))):
        lines[0] = f"suite {plan.suite.name}: results are " + lines[0]
        keep = "To keep them, report with the code that made them, or take another --runs"
        raise BenchError("\n".join([*lines, f"This code computes otherwise. Add --redo. {keep}"]))
    require_here(plan.downloads)
    at_once = ranks.num() if ranks.num() > 1 else len(slots(workers))
    outlook = Outlook(Asked.of(plan.suite), plan, at_once)
    problems = disk_problems({plan.runs: sum(outlook.disk(stages).values())})
    if "train" in stages:
        problems += memory_problems(outlook, group)
        for line in guidance_lines(outlook.asked):
            console.print(line)
    if "encode" in stages:
        for line in enlarged_lines(outlook.asked):
            console.print(line)
    raise_problems(problems)


def run(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = None,
    workers: Workers = 0,
    redo: Redo = False,
    until_settled: UntilSettled = False,
) -> None:
    """Train, generate, score and report; what is complete is not done again.

    Exit 0 complete, 2 refused before any work, 3 a report that names what failed.
    """
    with ranks.together():
        plan = planned(suite, set_, runs, reports)
        if until_settled and plan.suite.until_settled is None:
            plan = planned(suite, [*(set_ or []), "until_settled={}"], runs, reports)
    outcome = run_stages(plan, ALL_STAGES, workers, redo)
    if not ranks.is_first():
        return
    complete = sum(task.complete() for task in plan.tasks.values()) - outcome.num_done
    console.print(f"{plan.suite.name}: {outcome.num_done} tasks done, {complete} were complete")
    write_where_changed(plan)
    end_with_failures(plan, suite, ALL_STAGES, outcome)
    raise_missing(plan, suite)


def end_with_failures(plan: Plan, suite: str, stages: tuple[str, ...], outcome: Outcome) -> None:
    """Say last of all what failed, where anything did, and end with the code for it."""
    if not outcome.problems:
        return
    unfinished = [t for stage in stages for t in plan.of_stage(stage) if not t.complete()]
    told = f"{len(outcome.problems)} of {len(plan.tasks)} tasks failed"
    if (waiting := len(unfinished) - len(outcome.problems)) > 0:
        told += f", and {waiting} that need them were not begun"
    end = f"{told}; the rest is done. Run again once they are mended: what is complete is kept"
    lines = [end, *outcome.problems]
    errors.print(as_told("\n  ".join(lines), suite))
    raise typer.Exit(SOME_FAILED)


def run_stage(
    name: str,
    suite: str,
    overrides: list[str] | None,
    runs: Path,
    reports: Path | None,
    workers: int,
    redo: bool,
) -> None:
    """One stage alone, where what it needs is complete; scorers are examined by `run` only."""
    with ranks.together():
        plan = planned(suite, overrides, runs, reports)
        _require_needed(plan, name, suite)
    outcome = run_stages(plan, (name,), workers, redo)
    if not ranks.is_first():
        return
    console.print(f"{name}: {outcome.num_done} tasks done")
    end_with_failures(plan, suite, (name,), outcome)


def _require_needed(plan: Plan, name: str, suite: str) -> None:
    """Raise BenchError where a stage cannot begin alone."""
    from ddmd_bench.run.settling import BLOCKWISE

    if name in BLOCKWISE and plan.suite.until_settled is not None:
        raise BenchError(
            f"{name}: this suite draws until its comparisons are settled (until_settled), which "
            f"takes drawing and scoring beside each other: `python -m ddmd_bench run {suite}`"
        )
    needed = {need for task in plan.of_stage(name) for need in task.needs}
    lacking = [t for t in plan.tasks.values() if t.name in needed and not t.complete()]
    for before in ALL_STAGES[1:]:
        if missing := [str(task) for task in lacking if task.stage == before]:
            raise BenchError(
                f"{name} needs what is not there yet: {', '.join(missing)}. "
                f"Run `python -m ddmd_bench {before} {suite}` first, or `run` for everything"
            )


def stage_command(name: str, text: str) -> Callable[..., None]:
    """The command of a stage; `text` is its help."""

    def command(
        suite: SuiteName,
        set_: Overrides = None,
        runs: Runs = Path("runs"),
        reports: Reports = None,
        workers: Workers = 0,
        redo: Redo = False,
    ) -> None:
        run_stage(name, suite, set_, runs, reports, workers, redo)

    command.__name__, command.__doc__ = name, text
    return command


STAGE_COMMANDS = (
    stage_command("reference", "Draw and measure the real images."),
    stage_command("encode", "Encode the prompts, where the backend has text encoders."),
    stage_command("train", "Train the students."),
    stage_command("generate", "Draw the images of every student."),
)
