"""A tally's files: a page that looks as a run's report does, and its tables for other uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddmd_bench.files.records import json_text, write_whole
from ddmd_bench.reporting.escaping import in_markdown
from ddmd_bench.reporting.html.templates import environment
from ddmd_bench.reporting.latex import escaped
from ddmd_bench.reporting.tables import csv_text, markdown_table
from ddmd_bench.study.view import (
    CSV_COLUMNS,
    csv_rows,
    matrix_of,
    summary_of,
    tables_of,
    title_of,
)
from ddmd_bench.suite.studies import TALLY

PAGE = "index.html"


def write_tally(record: dict[str, Any], study: Path) -> Path:
    """Every file, the record last; the page."""
    folder = (study / TALLY).parent
    texts = {
        PAGE: _page(record),
        "tally.md": _markdown(record),
        "tally.csv": csv_text(CSV_COLUMNS, csv_rows(record)),
        "tally.tex": _latex(record),
        Path(TALLY).name: json_text(record),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    return folder / PAGE


def _page(record: dict[str, Any]) -> str:
    names, matrix = matrix_of(record)
    return (
        environment(Path(__file__).parent)
        .get_template("tally.html.j2")
        .render(
            record=record,
            title=title_of(record),
            summary=summary_of(record),
            names=names if record["counted"] else [],
            matrix=matrix,
            tables=tables_of(record),
        )
    )


def _markdown(record: dict[str, Any]) -> str:
    parts = [
        f"# {in_markdown(title_of(record))}",
        "\n\n".join(map(in_markdown, summary_of(record))),
    ]
    for table in tables_of(record):
        cells = [[in_markdown(cell) for cell in row] for row in table.rows]
        notes = [in_markdown(note) for note in table.notes]
        parts += [f"## {table.title}", *notes, markdown_table(table.header, cells)]
    return "\n\n".join(parts)


def _latex(record: dict[str, Any]) -> str:
    """The table of students for a paper."""
    table = next((t for t in tables_of(record) if t.title.startswith("Students")), None)
    if table is None:
        return "% nobody is counted\n"
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(' '.join([*summary_of(record), *table.notes]))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, table.header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(escaped, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
