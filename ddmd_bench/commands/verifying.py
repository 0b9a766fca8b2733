"""verify and pack: whether a run's files are those that were made; all of them in one archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddmd_bench.commands.options import (
    LEAVE_OUT,
    Overrides,
    Reports,
    Runs,
    RunsAnywhere,
    SuiteName,
    as_told,
    console,
    refuse_given,
    split_names,
)
from ddmd_bench.commands.plans import begun
from ddmd_bench.errors import BenchError, unknown

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def verify(
    ctx: typer.Context,
    suite: SuiteName,
    set_: Overrides = None,
    runs: RunsAnywhere = "runs",
    reports: Reports = None,
) -> None:
    """Hash every file of a run, or of a pack (FILE.tar), and compute its report again.

    Exit 0 all as made, 1 not.
    """
    from ddmd_bench.reporting.packs import is_pack

    if is_pack(suite):
        fact = f"{suite} is a pack, which holds its run and its report"
        refuse_given(ctx, fact, dict.fromkeys(("--runs", "--reports"), LEAVE_OUT))
    with begun(suite, set_, runs, reports) as plan:
        raise typer.Exit(1 if _verified(plan, suite) else 0)


def _verified(plan: Plan, suite: str) -> list[str]:
    """What is wrong with a run, after it was printed; `suite` as it was typed."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.stages.verify import verify as verified

    with one_thread():
        found = verified(plan)
    for line in [*found.unknown, *found.wrong]:
        console.print(as_told(line, suite))
    told = f"{len(found.wrong)} lines differ" if found.wrong else "the report follows from them"
    console.print(f"{plan.suite.name}: {found.num_files} files as made; {told}")
    return found.wrong


def pack(
    suite: SuiteName,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
    reports: Reports = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Kinds of files to leave out: weights,images")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The archive. Default: SUITE.tar, in this folder.")
    ] = None,
) -> None:
    """Put a run and its report into one archive, which verify, report and check --baseline read.

    Exit 0 written, 1 not: `verify` finds fault with the run.
    """
    from ddmd_bench.files import stopping
    from ddmd_bench.files.packed import KINDS
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.planning.sizes import gigabytes
    from ddmd_bench.reporting.packs import END, is_pack
    from ddmd_bench.stages.pack import pack as packed

    kinds = split_names(without or [])
    for kind in kinds:
        if kind not in KINDS:
            raise BenchError("--without: " + unknown("kind of file", kind, KINDS))
    if is_pack(suite):
        raise BenchError(f"{suite}: packed already")
    if output is not None and not is_pack(output.name):
        raise BenchError(f"--output {output}: a pack is known by its name: expected FILE{END}")

    def begins(num_files: int, num_bytes: int) -> None:
        console.print(f"packing {num_files} files, {gigabytes(num_bytes)}")

    with begun(suite, set_, runs, reports) as plan:
        if _verified(plan, suite):
            told = f"{plan.suite.name}: not packed, for verify finds fault with it"
            console.print(told)
            raise typer.Exit(1)
        stopping.obey()  # nothing half-made stays
        path = output or Path(f"{plan.suite.name}{END}")
        with one_thread():
            written = packed(plan, path, kinds, begins)
    console.print(
        f"packed: {path}, {written.num_files} files, {gigabytes(written.num_bytes)}, "
        f"sha256 {written.sha256}",
    )
