"""Report: read a run's files, compare, judge the claims, write the pages.

The same files give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddmd_bench.files.records import remove_cut, write_whole
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.pages import html
from ddmd_bench.reporting.pictures import shown_files
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.texts import PAGE, texts_of

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def report(plan: Plan) -> dict[str, Any]:
    """Write the report of whatever stages are finished, and return its record."""
    if plan.packed is not None:
        plan.packed.refuse_changed()
    run = load_run(plan)
    record = {"key": plan.report_key, **build_record(run), "folders": folders_of(plan)}
    remove_cut(plan.report_folder)
    if plan.packed is not None:
        plan.packed.fetch(shown_files(record["pictures"], run))
    write_whole(plan.report_folder / PAGE, html(record, run))
    for name, text in texts_of(record).items():
        write_whole(plan.report_folder / name, text)
    return record
