"""verify: whether a run's files are those that were made, and its report follows from them."""

from __future__ import annotations

from pathlib import Path

import typer

from ddmd_bench.commands.options import Overrides, Reports, Runs, SuiteName, console
from ddmd_bench.commands.running import begun


def verify(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = Path("reports"),
) -> None:
    """Hash every file of a run and compute its report again; exit 0 all as made, 1 not."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.stages.verify import verify as verified

    plan = begun(suite, set_, runs, reports)
    with one_thread():
        found = verified(plan)
    for line in [*found.unknown, *found.wrong]:
        console.print(line, markup=False, highlight=False)
    told = f"{len(found.wrong)} lines differ" if found.wrong else "the report follows from them"
    console.print(f"{plan.suite.name}: {found.num_files} files as made; {told}", highlight=False)
    raise typer.Exit(1 if found.wrong else 0)
