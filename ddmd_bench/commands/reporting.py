"""report, and what a run says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    LEAVE_OUT,
    REPORTS,
    SOME_FAILED,
    Overrides,
    Reports,
    RunsAnywhere,
    SuiteName,
    as_told,
    console,
    errors,
    refuse_given,
)
from ddmd_bench.commands.plans import begun
from ddmd_bench.run.events import Event

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def write_report(plan: Plan, embedded: int | None = None) -> None:
    """Write the report of whatever is finished, with pictures of so many prompts inside its page,
    and say where."""
    from ddmd_bench.files.threads import one_thread
    from ddmd_bench.reporting.kept import keep_other
    from ddmd_bench.reporting.pictures import NUM_EMBEDDED
    from ddmd_bench.stages.report import report

    if kept := keep_other(plan):
        console.print(f"{plan.report_folder} has the report of other results: now in {kept} too")
    console.print("writing the report")
    with one_thread(), progress_shown(console) as on_event:

        def told(done: int, total: int) -> None:
            on_event(Event("pictures", done, total))

        report(plan, told, NUM_EMBEDDED if embedded is None else embedded)
    _say_where(plan)


def write_where_changed(plan: Plan) -> None:
    """The same where the report that is there is not that of these results; and say where it is."""
    if plan.report_complete() and _as_made(plan):
        _say_where(plan, " (unchanged)")
    else:
        write_report(plan)


def _say_where(plan: Plan, unchanged: str = "") -> None:
    """What the run came to, what few images make of its numbers, and where its report is."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ddmd_bench.reporting.answer import answer_lines, answer_table
    from ddmd_bench.reporting.escaping import one_line
    from ddmd_bench.reporting.notes import small_numbers
    from ddmd_bench.reporting.saved import read_report

    record = read_report(plan.report_folder)
    header, rows = answer_table(record, console.width)
    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*map(one_line, row))
    console.print(table)
    for line in [*answer_lines(record), *small_numbers(record)]:
        console.print(one_line(line, 1_000))
    console.print(f"report: {plan.report_folder / 'index.html'}{unchanged}")


def raise_missing(plan: Plan, suite: str, why: str = "") -> None:
    """End with the code for failures where the report lacks a student, for such a reason."""
    from ddmd_bench.reporting.saved import read_report

    students = read_report(plan.report_folder)["students"].values()
    missing = [s for s in students if s["missing"] and s["missing"].startswith(why)]
    if lost := [f"{s['title']} {s['missing']}" for s in missing]:
        errors.print(as_told("\n".join(lost), suite))
        raise typer.Exit(SOME_FAILED)


def _as_made(plan: Plan) -> bool:
    """Whether no file of a finished task was changed since, now or when the report was made."""
    from ddmd_bench.files.made import is_as_made
    from ddmd_bench.reporting.runfiles import UNREADABLE
    from ddmd_bench.reporting.saved import read_report

    students = read_report(plan.report_folder)["students"].values()
    if any(student["missing"].startswith(UNREADABLE) for student in students):
        return False
    return all(is_as_made(task.folder) for task in plan.tasks.values() if task.complete())


def report(
    ctx: typer.Context,
    suite: SuiteName,
    set_: Overrides = None,
    runs: RunsAnywhere = "runs",
    reports: Reports = None,
    embed: Annotated[
        int | None, typer.Option(min=0, help="Prompts with pictures inside the page. Default: 24.")
    ] = None,
) -> None:
    """Write the report of a finished run, or of a packed one: FILE.tar.

    Exit 0 written, 3 without a student whose files were changed or cannot be read.
    """
    from ddmd_bench.reporting.packs import is_pack, reported_into
    from ddmd_bench.reporting.runfiles import UNREADABLE

    if is_pack(suite):
        refuse_given(ctx, f"{suite} is a pack, which holds its run", {"--runs": LEAVE_OUT})
    # An empty report would stand where a whole one may be.
    with begun(suite, set_, runs, reports) as plan:
        reported = reported_into(plan, reports or REPORTS)
        write_report(reported, embed)
        raise_missing(reported, suite, UNREADABLE)
