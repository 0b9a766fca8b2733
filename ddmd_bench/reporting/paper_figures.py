"""Figures of a report for a paper, as SVG and PDF: they follow from its record alone.

The curves of the trainings, the differences to the baseline with their intervals, and quality
against cost, each with its legend, in black on white; the same record gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import write_whole
from ddmd_bench.reporting.figures import (
    COLORS,
    Curves,
    draw_lines,
    dynamics_curves,
    evaluation_curves,
    styles_in,
)
from ddmd_bench.reporting.numbers import ARROWS
from ddmd_bench.reporting.saved import AGAIN
from ddmd_bench.reporting.trade import front, trade
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import headline_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Axes"], None]
WIDTH = 5.5  # inches: a text's column
SETTINGS = {
    "svg.hashsalt": "ddmd_bench",  # ids of clip paths, else random
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "font.size": 8,
    "grid.linewidth": 0.5,
    "grid.color": "#cccccc",
    "legend.frameon": False,
}
MARKERS = "osD^v"  # for students of one colour
GREY = "#666666"  # of students that are not trained, as their marks on the page are hollow
NO_DATES = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None}}


def write_figures(record: dict[str, Any], folder: Path) -> list[Path]:
    """Each figure as FOLDER/NAME.svg and .pdf; which there are.

    Raises BenchError for a report of a version that did not record what is drawn.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if lacking := sorted({"dynamics", "evaluations", "real_levels"} - record.keys()):
        raise BenchError(f"this report is of a version without {', '.join(lacking)}. {AGAIN}")
    written = []
    with matplotlib.rc_context(SETTINGS):
        for name, height, draw in _figures(record):
            figure = Figure(figsize=(WIDTH, height), layout="constrained")
            draw(figure.add_subplot())
            for kind in NO_DATES:
                written.append(folder / f"{name}.{kind}")
                write_whole(written[-1], _saved(figure, kind))
    return written


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, metadata=NO_DATES[kind])
    return buffer.getvalue()


def _figures(record: dict[str, Any]) -> Iterator[tuple[str, float, Draw]]:
    """Name, height in inches and what draws it."""
    for part, curves in (
        ("training", dynamics_curves(record)),
        ("evaluation", evaluation_curves(record)),
    ):
        for one in curves:
            yield f"{part}_{one.name}", 3.2, partial(_curves, record, one)
    for metric in record["suite"]["metrics"]:
        rows = [d for d in record["differences"] if d["metric"] == metric and d["low"] is not None]
        if rows:
            yield (
                f"differences_{metric}",
                0.7 + 0.22 * len(rows),
                partial(_differences, record, metric, rows),
            )
    for kind in ("image", "distribution"):
        if (metric := headline_of(record["suite"]["metrics"], kind)) is not None:
            yield f"cost_{metric}", 3.2, partial(_cost, record, metric)


def _title(record: dict[str, Any], student: str) -> str:
    return _plain(record["students"][student]["title"])


def _plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")


def _curves(record: dict[str, Any], curves: Curves, axes: Axes) -> None:
    draw_lines(axes, curves.lines, styles_in(record), curves.level)
    axes.set_title(_plain(curves.title), loc="left", fontsize="medium")
    lines = [line for line in axes.get_lines() if line.get_gid()]
    names = [_title(record, str(line.get_gid()).removeprefix("student-")) for line in lines]
    if curves.level is not None:
        lines, names = [*lines, axes.get_lines()[-1]], [*names, "real"]
    axes.legend(lines, names, loc="center left", bbox_to_anchor=(1, 0.5))


def _differences(
    record: dict[str, Any], metric: str, rows: list[Mapping[str, Any]], axes: Axes
) -> None:
    """Better to the right, as on the page."""
    row, marks = METRICS[metric], _marks(record)
    for k, d in enumerate(rows):
        mark = marks[d["student"]]
        low, value, high = (row.scale * d[key] for key in ("low", "value", "high"))
        axes.plot([low, high], [k, k], color=mark["color"], linewidth=1.4)
        axes.plot([value], [k], markersize=4, **mark)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [_title(record, d["student"]) for d in rows])
    axes.invert_yaxis()
    if row.better == "lower":
        axes.invert_xaxis()
    unit = f", {'points' if row.unit == '%' else row.unit}" if row.unit else ""
    baseline = _title(record, record["suite"]["baseline"])
    title = f"{_plain(row.title)}: difference to {baseline}{unit}"
    cast("Figure", axes.figure).suptitle(title, x=0.01, ha="left", fontsize="medium")
    if row.better != "reference":
        axes.set_xlabel("← worse    better →")
    axes.grid(axis="x")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _cost(record: dict[str, Any], metric: str, axes: Axes) -> None:
    """A mark a student, the best first in the legend; the line joins whom no other beats."""
    row, marks = METRICS[metric], _marks(record)
    sign = -1 if row.better == "higher" else 1
    places = {
        name: (one["values"]["network_evaluations"], one["values"][metric])
        for name, one in zip(record["students"], trade(record)["students"], strict=True)
        if {"network_evaluations", metric} <= one["values"].keys()
    }
    for name in sorted(places, key=lambda name: sign * places[name][1]):
        x, y = places[name]
        axes.plot([x], [y], label=_title(record, name), markersize=5, ls="", **marks[name])
    points = [*places.values()]
    best = sorted(points[k] for k in front([(x, sign * y) for x, y in points]))
    axes.plot([x for x, _ in best], [y for _, y in best], "--", color=GREY, linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = sorted({x for x, _ in points})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.set_xlabel("Network evaluations an image")
    unit = f", {row.unit}" if row.unit else ""
    axes.set_title(f"{_plain(row.title)}{unit} {ARROWS[row.better]}", loc="left", fontsize="medium")
    axes.grid()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def _marks(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A student's mark: its colour, hollow grey ones for those that are not trained."""
    styles = styles_in(record)
    others = [name for name in record["students"] if name not in styles]
    filled = {
        name: {"color": style.color, "marker": MARKERS[k // len(COLORS) % len(MARKERS)]}
        for k, (name, style) in enumerate(styles.items())
    }
    hollow = {
        name: {"color": GREY, "mfc": "white", "marker": MARKERS[k % len(MARKERS)]}
        for k, name in enumerate(others)
    }
    return filled | hollow
