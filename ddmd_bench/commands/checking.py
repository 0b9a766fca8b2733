"""check and expect: hold a run against expected values, and make those."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.options import (
    Overrides,
    Redo,
    Reports,
    Runs,
    SuiteName,
    Workers,
    console,
    raise_problems,
)
from ddmd_bench.commands.running import ALL_STAGES, planned, run_stages
from ddmd_bench.errors import BenchError


def check(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
    expected: Annotated[Path | None, typer.Option(help="Default: the suite's own file.")] = None,
) -> None:
    """Hold a finished run against the expected values: exit 0 ok, 1 drift, 2 incomparable."""
    from ddmd_bench.reporting.expected import EXIT_CODES
    from ddmd_bench.stages.check import check as check_run

    plan = planned(suite, set_, runs, reports)
    found = check_run(plan, expected)
    for line in found.lines:
        console.print(line, markup=False, highlight=False)
    console.print(f"{plan.suite.name}: {found.status}")
    raise typer.Exit(EXIT_CODES[found.status])


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
) -> None:
    """Run a suite with several seeds and write the values that `check` expects."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.reporting.expected import write_expected
    from ddmd_bench.stages.report import report as make_report

    records = []
    for seed in _parse_seeds(seeds):
        plan = planned(suite, [*(set_ or []), f"seeds=[{seed}]"], runs, runs / f"reports-{seed}")
        raise_problems(run_stages(plan, ALL_STAGES, workers, redo).problems)
        with one_thread():
            records.append(make_report(plan))
    console.print(f"expected: {write_expected(records, output)}")


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = sorted({int(seed) for seed in text.split(",")})
    except ValueError:
        raise BenchError(f"--seeds {text}: expected whole numbers, e.g. 0,1,2") from None
    if len(seeds) < 3:
        raise BenchError(f"--seeds {text}: a spread needs at least three different seeds")
    return seeds
