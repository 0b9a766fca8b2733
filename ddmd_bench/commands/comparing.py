"""compare: the students of two reports, side by side; power: what a report could have shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.display import aligned
from ddmd_bench.commands.options import REPORTS, console, errors
from ddmd_bench.errors import BenchError
from ddmd_bench.files.elsewhere import here
from ddmd_bench.files.places import require_file
from ddmd_bench.files.records import write_whole


def compare(
    first: Annotated[str, typer.Argument(help="A report.json, or the folder that holds it.")],
    second: Annotated[str, typer.Argument(help="The report to compare it with.")],
    pair: Annotated[
        list[str] | None,
        typer.Option(help="student=other: of the first and the second. Default: equal names."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the table to this file too.")] = None,
) -> None:
    """Hold students of one report against students of another, seed by seed."""
    from ddmd_bench.reporting.between import (
        between,
        between_markdown,
        between_table,
        said_before,
    )
    from ddmd_bench.reporting.escaping import one_line
    from ddmd_bench.reporting.saved import read_report

    if output is not None:
        require_file(output, "--output")
    records = read_report(here(first)), read_report(here(second))
    pairs = [_parse_pair(text) for text in pair or []]
    pairs = pairs or [(n, n) for n in records[0]["table"] if n in records[1]["table"]]
    if not pairs:
        raise BenchError("the reports share no student's name: say --pair student=other")
    rows = between(*records, pairs)
    header, cells = between_table(*records, rows)
    for line in said_before(*records, rows):
        console.print(one_line(line, 1_000))
    for line in aligned(header, cells) if cells else ():
        console.print(line, soft_wrap=True)
    if output is not None:
        write_whole(output, between_markdown(*records, rows))


def board(
    folder: Annotated[Path, typer.Argument(help="With reports in it: NAME/report.json.")] = REPORTS,
    output: Annotated[Path | None, typer.Option(help="Default: board.html in that folder.")] = None,
) -> None:
    """Write a page of all students in a folder's reports, a table for each protocol."""
    from ddmd_bench.reporting.board import board as tables_of
    from ddmd_bench.reporting.board import board_page, read_reports

    target = output or folder / "board.html"
    require_file(target, "--output")
    reports, problems = read_reports(folder)
    tables = tables_of(reports)
    beside = os.path.relpath(folder.resolve(), target.resolve().parent)
    write_whole(target, board_page(tables, problems, Path(beside).as_posix()))
    for line in problems:
        errors.print(line)
    num = sum(len(table.rows) for table in tables)
    console.print(f"{num} students of {len(reports)} reports, {len(tables)} protocols: {target}")


def power(
    report: Annotated[Path, typer.Argument(help="A report.json, or the folder that holds it.")],
    metric: Annotated[str, typer.Option(help="One of the report's metrics.")],
    difference: Annotated[float, typer.Option(help="To be shown, in the unit that pages have.")],
) -> None:
    """Say how many prompts, images or seeds would show a difference to the baseline."""
    from ddmd_bench.reporting.power import power_markdown
    from ddmd_bench.reporting.saved import read_report

    text = power_markdown(read_report(report), metric, difference)
    console.print(text)


def _parse_pair(text: str) -> tuple[str, str]:
    student, separator, other = text.partition("=")
    if not (student and separator and other):
        raise BenchError(f"--pair {text}: expected student=other")
    return student, other
