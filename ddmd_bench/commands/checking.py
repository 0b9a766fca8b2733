"""check and expect: hold a run against expected values, and make those."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ddmd_bench.commands.options import (
    LEAVE_OUT,
    Overrides,
    Redo,
    Reports,
    Runs,
    RunsAnywhere,
    SuiteName,
    Workers,
    as_told,
    console,
    errors,
    raise_problems,
    refuse_given,
)
from ddmd_bench.commands.plans import planned
from ddmd_bench.commands.running import ALL_STAGES, run_stages
from ddmd_bench.errors import BenchError, NotRun, files_told
from ddmd_bench.files.elsewhere import here, is_elsewhere
from ddmd_bench.files.launchers import refuse_several
from ddmd_bench.files.places import require_file, require_folder
from ddmd_bench.reporting.checked import EXIT_CODES, NOT_RUN, WRONG_USE, lines_of

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.reporting.checked import Checked

# What would be ignored where expected values are written.
OF_A_VERDICT = ("--baseline", "--student", "--against", "--junit", "--pictures", "--json")

Why = Annotated[str, typer.Option(help="Kept in the file of expected values.")]


class CheckCommand(TyperCommand):
    """Ends wrong use of its options with a code that is no verdict's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As any command does, but for the exit code."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # Of typer's errors about usage, whose class has no public name in all its versions.
            if getattr(error, "exit_code", 0) == 2:
                vars(error)["exit_code"] = WRONG_USE
            raise


def check(
    ctx: typer.Context,
    suite: SuiteName,
    set_: Overrides = None,
    runs: RunsAnywhere = "runs",
    reports: Reports = None,
    expected: Annotated[Path | None, typer.Option(help="Default: the suite's own file.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Hold students against those of this report, pack or folder of runs."),
    ] = None,
    student: Annotated[str | None, typer.Option(help="This one alone.")] = None,
    against: Annotated[
        str | None, typer.Option(help="Its rival: of the baseline, or else of the same run.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write the expected values anew; takes --why.")
    ] = False,
    why: Why = "",
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Copy the worst prompts' pictures into this folder.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Hold a finished run against expected values, or its students against a baseline's.

    Exit 0 ok (not worse), 1 drift or worse, 2 incomparable, 3 too few images to tell; no verdict:
    4 not run, 64 wrong use.
    """
    from ddmd_bench.stages import check as stage

    of_models = any(name is not None for name in (baseline, student, against))
    try:
        with files_told():
            _refuse_ignored(ctx, update, of_models)
            if junit is not None:
                require_file(junit, "--junit")
            if pictures is not None:
                require_folder(pictures, "--pictures")
            if update:
                refuse_several()
                if is_elsewhere(runs):
                    raise BenchError("--update: name a folder of runs: `pull` brings them here")
                _update(suite, set_ or [], Path(runs), expected, why)
                return
            plan = planned(suite, set_, runs, reports)
            if of_models:
                other = None if baseline is None else here(baseline)
                found = stage.check_models(plan, other, student, against)
            else:
                found = stage.check(plan, expected)
            _print_checked(found, plan.suite.name, json_)
            _for_ci(found, plan.suite.name, junit, pictures)
    except BenchError as error:
        errors.print(as_told(str(error), suite))
        raise typer.Exit(NOT_RUN if isinstance(error, NotRun) else WRONG_USE) from None
    raise typer.Exit(EXIT_CODES[found.status])


def _refuse_ignored(ctx: typer.Context, update: bool, of_models: bool) -> None:
    """Refuse options that say nothing of what is done here."""
    if update:
        fact = "--update writes expected values, and checks nothing"
        refuse_given(ctx, fact, dict.fromkeys(OF_A_VERDICT, LEAVE_OUT))
    else:
        refuse_given(ctx, "no expected values are written", {"--why": "give --update beside it"})
    if of_models:
        fact = "students are held against each other, and not against expected values"
        refuse_given(ctx, fact, {"--expected": LEAVE_OUT})


def _print_checked(found: Checked, suite: str, as_json: bool) -> None:
    if as_json:
        record = {"suite": suite, **found.as_record()}
        console.print(json.dumps(record, indent=1))
        return
    for line in lines_of(found):
        console.print(line)
    console.print(f"{suite}: {found.status}")


def _for_ci(found: Checked, suite: str, junit: Path | None, pictures: Path | None) -> None:
    """What CI reads; GitHub's runner says by its environment that it is there."""
    from ddmd_bench.files.records import write_whole
    from ddmd_bench.reporting import ci
    from ddmd_bench.reporting.worst import copy_pictures

    if junit is not None:
        write_whole(junit, ci.junit(found, suite))
    if pictures is not None and found.worst:
        errors.print(f"{copy_pictures(found.worst, pictures)} pictures: {pictures}")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(ci.summary(found, suite))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        # To stderr, which the runner reads too: stdout may be JSON.
        for line in ci.workflow_commands(found, suite):
            errors.print(line)


def _update(
    suite: str, overrides: Sequence[str], runs: Path, expected: Path | None, why: str
) -> None:
    """Write the expectation anew from runs that are complete, at the seeds that it has."""
    from ddmd_bench.reporting.expected import find_expected, read_expected, write_expected
    from ddmd_bench.stages.check import refuse_unfinished
    from ddmd_bench.suite.files import load_suite

    if not why.strip():
        raise BenchError('--update: say why the values moved, e.g. --why "a better sampler"')
    name = load_suite(suite, overrides).name
    path = expected or find_expected(name)
    seeds = read_expected(path)["seeds"]
    again = f"Run `python -m ddmd_bench expect {suite} --seeds {','.join(map(str, seeds))}`"
    plans = [_of_seed(suite, overrides, runs, seed) for seed in seeds]
    for plan in plans:
        refuse_unfinished(plan, again)
    console.print(f"expected: {write_expected(list(map(_reported, plans)), path, why)}")


def _of_seed(suite: str, overrides: Sequence[str], runs: Path, seed: int) -> Plan:
    return planned(suite, [*overrides, f"seeds=[{seed}]"], runs, runs / f"reports-{seed}")


def _reported(plan: Plan) -> dict[str, Any]:
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.stages.report import report

    with one_thread():
        return report(plan)


def expect(
    suite: SuiteName,
    seeds: Annotated[str, typer.Option(help="Seeds to run, at least three: 0,1,2")] = "0,1,2",
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    workers: Workers = 0,
    redo: Redo = False,
    output: Annotated[Path, typer.Option(help="Folder for <suite>.expected.json.")] = Path(
        "reference_stats"
    ),
    why: Why = "",
) -> None:
    """Run a suite with several seeds and write the values that `check` expects."""
    from ddmd_bench.reporting.expected import write_expected

    (require_file if output.suffix == ".json" else require_folder)(output, "--output")
    records = []
    for seed in _parse_seeds(seeds):
        plan = _of_seed(suite, set_ or [], runs, seed)
        raise_problems(run_stages(plan, ALL_STAGES, workers, redo).problems)
        records.append(_reported(plan))
    console.print(f"expected: {write_expected(records, output, why)}")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = sorted({int(seed) for seed in text.split(",")})
    except ValueError:
        raise BenchError(f"--seeds {text}: expected whole numbers, e.g. 0,1,2") from None
    if len(seeds) < 3:
        raise BenchError(f"--seeds {text}: a spread needs at least three different seeds")
    return seeds
