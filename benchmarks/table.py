"""What a benchmark gives back: one claim and its table, as text for a terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A claim, and the rows that hold it or do not; the first column names the rows."""

    claim: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()  # how to read it, and what was left out


def as_text(table: Table) -> str:
    """In columns, the names to the left and numbers to the right."""
    lines = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    return "\n".join([table.claim, *aligned, *table.notes])


def as_markdown(table: Table) -> str:
    """Paragraphs about a Markdown table."""
    lines = [table.columns, ("---", *["---:"] * (len(table.columns) - 1)), *table.rows]
    drawn = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table.claim, drawn, *table.notes])
