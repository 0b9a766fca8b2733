"""Of finished reports: compare, board, power, figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.display import aligned
from ddmd_bench.commands.options import REPORTS, console, errors
from ddmd_bench.errors import BenchError
from ddmd_bench.files.elsewhere import here
from ddmd_bench.files.places import require_file, require_folder
from ddmd_bench.files.records import write_whole


def compare(
    reports: Annotated[
        list[str], typer.Argument(help="Two or more: report.json, or the folder that holds it.")
    ],
    pair: Annotated[
        list[str] | None,
        typer.Option(help="student=other: of the first and another. Default: equal names."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write it there too: a page (.html), or Markdown.")
    ] = None,
) -> None:
    """Hold students of one report against students of each other one, seed by seed."""
    from ddmd_bench.reporting.between import (
        between,
        between_markdown,
        between_table,
        labels_of,
        said_before,
    )
    from ddmd_bench.reporting.escaping import one_line
    from ddmd_bench.reporting.html.between_page import between_page
    from ddmd_bench.reporting.saved import read_report

    if output is not None:
        require_file(output, "--output")
    if len(reports) < 2:
        raise BenchError(f"compare {reports[0]}: name another report to hold it against")
    first, *others = (read_report(here(place)) for place in reports)
    label, *labels = labels_of([first, *others], reports)
    given = [_parse_pair(text) for text in pair or []]
    compared = []
    for other, name in zip(others, labels, strict=True):
        pairs = given or [(n, n) for n in first["table"] if n in other["table"]]
        if not pairs:
            raise BenchError("the reports share no student's name: say --pair student=other")
        compared.append((other, name, between(first, other, pairs)))
    for other, name, rows in compared:
        if len(others) > 1:
            console.print(f"{label} against {name}")
        for line in said_before(first, other, rows):
            console.print(one_line(line, 1_000))
        header, cells = between_table((label, name), rows)
        for line in aligned(header, cells) if cells else ():
            console.print(line, soft_wrap=True)
    if output is None:
        return
    if output.suffix == ".html":
        write_whole(output, between_page(first, label, compared))
    else:
        parts = [between_markdown(first, o, (label, name), rows) for o, name, rows in compared]
        write_whole(output, "\n\n".join(parts))


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


def figures(
    report: Annotated[str, typer.Argument(help="A report.json, or the folder that holds it.")],
    output: Annotated[Path, typer.Argument(help="Folder for the files.")],
) -> None:
    """Write a report's figures for a paper, each as SVG and PDF."""
    from ddmd_bench.reporting.paper_figures import write_figures
    from ddmd_bench.reporting.saved import read_report

    require_folder(output, "OUTPUT")
    written = write_figures(read_report(here(report)), output)
    console.print(f"{len(written) // 2} figures, each as SVG and PDF: {output}")


def _parse_pair(text: str) -> tuple[str, str]:
    student, separator, other = text.partition("=")
    if not (student and separator and other):
        raise BenchError(f"--pair {text}: expected student=other")
    return student, other
