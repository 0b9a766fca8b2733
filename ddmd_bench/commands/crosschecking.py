"""crosscheck: our scores beside those of the authors' own packages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddmd_bench.commands.display import aligned, progress_shown
from ddmd_bench.commands.options import console, raise_problems, split_names
from ddmd_bench.errors import BenchError
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.places import own_place, require_folder
from ddmd_bench.run.events import Event

if TYPE_CHECKING:
    from ddmd_bench.vendors.crosscheck import Compared

TABLE = "crosscheck.csv"
NUM_SHOWN, NOTE = 20, 60  # rows, and characters of a note; the file has all


def crosscheck(
    images: Annotated[Path, typer.Argument(help="A folder of images.")],
    metrics: Annotated[list[str], typer.Option(help="hps_v21,image_reward,fid")],
    prompts: Annotated[Path | None, typer.Option(help="As for score.")] = None,
    order: Annotated[str | None, typer.Option(help="As for score.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="Statistics that FID and others compare with.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Default crosschecks/<its path>.")] = None,
    remake: Annotated[
        bool, typer.Option("--remake", help="Make the packages' environment again.")
    ] = False,
) -> None:
    """Let the authors' own packages score the same images: exit 1 where they differ from ours."""
    from ddmd_bench.measuring.folder import folder_problems, read_folder
    from ddmd_bench.vendors.asking import check
    from ddmd_bench.vendors.catalogue import VENDORS, vendor_problems
    from ddmd_bench.vendors.environment import interpreter

    if not images.is_dir():
        raise BenchError(f"{images}: no such folder of images")
    names = split_names(metrics)
    known = [name for name in names if name in VENDORS]
    raise_problems(vendor_problems(names, reference) + folder_problems(known, reference))
    output = output or Path("crosschecks") / own_place(images)
    require_folder(output, "--output")
    read = read_folder(images, prompts, names, order)
    python = interpreter(console.print, remake)
    check(python, {VENDORS[name].job for name in names})

    from ddmd_bench.vendors.crosscheck import crosscheck as compared

    with numerics(), progress_shown(console) as on_event:
        rows = compared(
            read, names, reference, output, python,
            lambda task, done, total: on_event(Event(task, done, total)),
        )  # fmt: skip
    _write(output / TABLE, rows)
    _print(rows)
    console.print(f"all {len(rows)} rows: {output / TABLE}")
    raise_problems(_not_compared(rows))
    if any(row.size > 1 for row in rows):
        raise typer.Exit(1)


def _write(path: Path, rows: Sequence[Compared]) -> None:
    from ddmd_bench.files.records import finite_or_none, write_whole
    from ddmd_bench.reporting.tables import csv_text
    from ddmd_bench.vendors.crosscheck import Compared

    cells = [
        {k: finite_or_none(v) if isinstance(v, float) else v for k, v in row._asdict().items()}
        for row in rows
    ]
    write_whole(path, csv_text(Compared._fields, cells))


def _print(rows: Sequence[Compared]) -> None:
    """The largest differences, then the largest of each metric with what is allowed."""
    from ddmd_bench.reporting.escaping import one_line

    header = ("metric", "package", "image", "ours", "theirs", "difference", "note")
    shown = [
        (row.metric, row.package, row.file_name, f"{row.ours:.8g}", f"{row.theirs:.8g}",
         f"{row.difference:+.1e}", one_line(row.note, NOTE))
        for row in rows[:NUM_SHOWN]
    ]  # fmt: skip
    for line in aligned(header, shown):
        console.print(line)
    console.print()
    largest = []
    for metric, package in dict.fromkeys((row.metric, row.package) for row in rows):
        of = [row for row in rows if (row.metric, row.package) == (metric, package)]
        compared = [row for row in of if row.size >= 0]
        if compared:
            verdict = "too large" if compared[0].size > 1 else "ok"
            largest.append(
                (metric, package, f"{len(compared)} of {len(of)}",
                 f"{abs(compared[0].difference):.1e}", f"{of[0].allowed:.0e}", verdict)
            )  # fmt: skip
    for line in aligned(("metric", "package", "compared", "largest", "allowed", ""), largest):
        console.print(line)


def _not_compared(rows: Sequence[Compared]) -> list[str]:
    """Metrics of which there is no difference at all: no agreement either."""
    found = {row.metric for row in rows if row.size >= 0}
    notes = {row.metric: row.note for row in rows if row.metric not in found}
    return [f"{metric}: nothing was compared: {note}" for metric, note in notes.items()]
