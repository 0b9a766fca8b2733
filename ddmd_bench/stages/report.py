"""Report: read a run's files, compare, judge the claims, write the pages.

The same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ddmd_bench.files.records import remove_cut, write_whole
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.html.pages import html, page_place
from ddmd_bench.reporting.html.sheets import sheets_key, write_sheets
from ddmd_bench.reporting.pictures import NUM_EMBEDDED, shown_files
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.texts import PAGE, texts_of

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def report(
    plan: Plan,
    on_picture: Callable[[int, int], None] | None = None,
    embedded: int = NUM_EMBEDDED,
) -> dict[str, Any]:
    """Write the report of whatever stages are finished, and return its record.

    Where somebody waits for its pictures, those of all prompts are written beside it, if all
    students were drawn.
    """
    if plan.packed is not None:
        plan.packed.refuse_changed()
    # First: of a task that ends while files are read, the report may know, and its key does not, so
    # that it is made again.
    key = plan.report_key
    run = load_run(plan)
    record = {"key": key, **build_record(run, embedded), "folders": folders_of(plan)}
    remove_cut(plan.report_folder, alone=False)  # `watch` may write here too
    if plan.packed is not None:
        plan.packed.fetch(shown_files(record["pictures"], run))
    write_whole(plan.report_folder / PAGE, html(record, run, page_place(plan)))
    for name, text in texts_of(record).items():
        write_whole(plan.report_folder / name, text)
    if on_picture and plan.packed is None and (pictures := sheets_key(run)):
        write_sheets(run, pictures, plan.report_folder, on_picture)
    return record
