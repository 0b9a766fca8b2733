"""Every file of a report that follows from its record alone; the page shows pictures as well."""

from __future__ import annotations

from typing import Any

from ddmd_bench.files.records import json_text
from ddmd_bench.reporting.agreement import COLUMNS as AGREEMENT_COLUMNS
from ddmd_bench.reporting.citing import bibtex, methods_tex
from ddmd_bench.reporting.latex import latex
from ddmd_bench.reporting.tables import (
    CLAIM_COLUMNS,
    DIFFERENCE_COLUMNS,
    csv_text,
    markdown,
    table_csv,
)

PAGE, RECORD = "index.html", "report.json"


def texts_of(record: dict[str, Any]) -> dict[str, str]:
    """By name. The record last: where it stands, the pages beside it are its own."""
    return {
        "report.md": markdown(record),
        "table.csv": table_csv(record),
        "table.tex": latex(record),
        "methods.tex": methods_tex(record),
        "references.bib": bibtex(record),
        "differences.csv": csv_text(DIFFERENCE_COLUMNS, record["differences"]),
        "agreement.csv": csv_text(AGREEMENT_COLUMNS, record["agreement"].get("pairs", [])),
        "claims.csv": csv_text(CLAIM_COLUMNS, record["claims"]),
        RECORD: json_text(record),
    }
