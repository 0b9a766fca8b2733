"""Report: read a run's files, compare, judge the claims, write the pages.

The same files give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddmd_bench.files.records import remove_cut, write_json, write_whole
from ddmd_bench.reporting.agreement import COLUMNS as AGREEMENT_COLUMNS
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.latex import latex
from ddmd_bench.reporting.pages import html
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.tables import (
    CLAIM_COLUMNS,
    DIFFERENCE_COLUMNS,
    csv_text,
    markdown,
    table_csv,
)

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def report(plan: Plan) -> dict[str, Any]:
    """Write the report of whatever stages are finished, and return its record."""
    run = load_run(plan)
    record = {"key": plan.report_key, **build_record(run), "folders": folders_of(plan)}
    folder = plan.report_folder
    remove_cut(folder)
    # The record last: where it stands, the pages beside it are its own.
    write_whole(folder / "index.html", html(record, run))
    write_whole(folder / "report.md", markdown(record))
    write_whole(folder / "table.csv", table_csv(record))
    write_whole(folder / "table.tex", latex(record))
    differences = csv_text(DIFFERENCE_COLUMNS, record["differences"])
    write_whole(folder / "differences.csv", differences)
    pairs = record["agreement"].get("pairs", [])
    write_whole(folder / "agreement.csv", csv_text(AGREEMENT_COLUMNS, pairs))
    write_whole(folder / "claims.csv", csv_text(CLAIM_COLUMNS, record["claims"]))
    write_json(folder / "report.json", record)
    return record
