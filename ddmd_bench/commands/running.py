"""run, and the stages on their own: train, generate ..."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    Overrides,
    Reports,
    Runs,
    SuiteName,
    Workers,
    console,
    raise_problems,
)
from ddmd_bench.errors import BenchError

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.run.tasks import Outcome

ALL_STAGES = ("doctor", "encode", "reference", "train", "generate", "score")


def planned(suite: str, overrides: list[str] | None, runs: Path, reports: Path) -> Plan:
    """The plan of a suite that is named on the command line."""
    from ddmd_bench.planning.plan import make_plan
    from ddmd_bench.suite.files import load_suite

    return make_plan(load_suite(suite, overrides or []), runs, reports)


def run_stages(plan: Plan, stages: tuple[str, ...], workers: int) -> Outcome:
    """Run the stages' unfinished tasks, if all that they need is here and there is room."""
    from ddmd_bench.planning.downloads import require_here
    from ddmd_bench.planning.outlook import Outlook, disk_problems, gpu_problems
    from ddmd_bench.planning.part import Asked
    from ddmd_bench.run.tasks import Outcome, run_tasks
    from ddmd_bench.run.workers import slots

    if all(task.complete() for stage in stages for task in plan.of_stage(stage)):
        return Outcome(0, [])
    require_here(plan.downloads)
    outlook = Outlook(Asked.of(plan.suite), plan, len(slots(workers)))
    problems = disk_problems({plan.runs: sum(outlook.disk(stages).values())})
    if "train" in stages:
        problems += gpu_problems(outlook)
    raise_problems(problems)
    with progress_shown(console) as on_event:
        return run_tasks(plan, stages, on_event, workers)


def write_report(plan: Plan) -> None:
    """Write the report of whatever is finished, and say where."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.stages.report import report

    console.print("writing the report")
    with one_thread():
        report(plan)
    console.print(f"report: {plan.report_folder / 'index.html'}")


def run(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    workers: Workers = 0,
) -> None:
    """Train, generate, score and report; what is complete is not done again."""
    plan = planned(suite, set_, runs, reports)
    count, problems = run_stages(plan, ALL_STAGES, workers)
    complete = sum(task.complete() for task in plan.tasks.values()) - count
    console.print(f"{plan.suite.name}: {count} tasks done, {complete} were complete")
    if plan.report_complete():
        console.print(f"report: {plan.report_folder / 'index.html'} (unchanged)")
    else:
        write_report(plan)
    raise_problems(problems)


def report(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Write the report of a finished run."""
    write_report(planned(suite, set_, runs, reports))


def run_stage(
    name: str,
    suite: str,
    overrides: list[str] | None,
    runs: Path,
    reports: Path,
    workers: int,
) -> None:
    """One stage alone, where what it needs is complete; scorers are examined by `run` only."""
    plan = planned(suite, overrides, runs, reports)
    needed = {need for task in plan.of_stage(name) for need in task.needs}
    lacking = [t for t in plan.tasks.values() if t.name in needed and not t.complete()]
    for before in ALL_STAGES[1:]:
        if missing := [str(task) for task in lacking if task.stage == before]:
            raise BenchError(
                f"{name} needs what is not there yet: {', '.join(missing)}. "
                f"Run `python -m ddmd_bench {before} {suite}` first, or `run` for everything"
            )
    count, problems = run_stages(plan, (name,), workers)
    console.print(f"{name}: {count} tasks done")
    raise_problems(problems)


def stage_command(name: str, text: str) -> Callable[..., None]:
    """The command of a stage; `text` is its help."""

    def command(
        suite: SuiteName,
        set_: Overrides = None,
        runs: Runs = Path("runs"),
        reports: Reports = Path("reports"),
        workers: Workers = 0,
    ) -> None:
        run_stage(name, suite, set_, runs, reports, workers)

    command.__name__, command.__doc__ = name, text
    return command


STAGE_COMMANDS = (
    stage_command("reference", "Draw and measure the real images."),
    stage_command("encode", "Encode the prompts, where the backend has text encoders."),
    stage_command("train", "Train the students."),
    stage_command("generate", "Draw the images of every student."),
)
