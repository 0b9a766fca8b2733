"""Curves over the training as SVG: the same record gives the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddmd_bench.objective.series import SERIES
from ddmd_bench.reporting.numbers import ARROWS
from ddmd_bench.scorers import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colour-blind-safe colours, without those that vanish on white or on black.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
# On and off, in widths of the line. Students of one colour differ in these.
DASHES = ((), (4.0, 1.5), (1.0, 1.2), (6.0, 1.2, 1.0, 1.2), (3.0, 1.0, 1.0, 1.0, 1.0, 1.0))
# Width of a line and opacity of its band, for as many lines as there are colours and for more.
FEW, MANY = (1.8, 0.15), (1.2, 0.08)
# Drawn in these, then handed to the page's own colours.
INK, LINE = "#010203", "#040506"
RUNAWAY = 6.0  # a student this many times above the median one would flatten the others

PANELS = {
    "x0_std": "over all pixels of a batch; contrast that runs away shows here",
    "x0_mean": "over all pixels of a batch; a drift of brightness shows here",
    "x0_beyond_1": "before clipping; of latents a matter of their scale",
    "dm_norm": "root mean square before normalisation",
    "ca_norm": "root mean square before normalisation",
    "loss_fake_score": "how well it tracks the student",
}


Line = dict[str, Any]  # iteration, value and, of several seeds, low and high: a list each


class Style(NamedTuple):
    """How a student's line looks, the same in every figure and in the legend."""

    color: str
    dashes: tuple[float, ...]


def styles_of(students: list[str]) -> dict[str, Style]:
    """One style for each trained student."""
    return {
        name: Style(COLORS[k % len(COLORS)], DASHES[k // len(COLORS) % len(DASHES)])
        for k, name in enumerate(students)
    }


def styles_in(record: dict[str, Any]) -> dict[str, Style]:
    """The styles of a record's trained students."""
    return styles_of([n for n, s in record["students"].items() if s["source"] == "train"])


class Curves(NamedTuple):
    """What one figure draws; lines in display units."""

    name: str  # of the series or metric
    title: str
    note: str
    lines: dict[str, Line]  # by student
    level: float | None  # of real scenes


def dynamics_curves(record: dict[str, Any]) -> Iterator[Curves]:
    """Each panel that has a series."""
    for series, note in PANELS.items():
        lines = {n: d[series] for n, d in record["dynamics"].items() if series in d}
        if lines:
            title = SERIES[series]
            title = title[:1].upper() + title[1:]
            yield Curves(series, title, note, lines, record["real_levels"].get(series))


def evaluation_curves(record: dict[str, Any]) -> Iterator[Curves]:
    """Each metric that was evaluated during the training."""
    for metric, row in METRICS.items():
        curves = {n: e[metric] for n, e in record["evaluations"].items() if metric in e}
        if not curves:
            continue
        lines = {name: _scaled(curve, row.scale) for name, curve in curves.items()}
        counts = {n for curve in curves.values() for n in curve["n"]}
        images = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
        unit = f", {row.unit}" if row.unit else ""
        title, note = f"{row.title}{unit} {ARROWS[row.better]}", f"each point over {images} images"
        yield Curves(metric, title, note, lines, _real_level(record, metric, counts))


def figures(record: dict[str, Any], curves: Iterable[Curves]) -> list[dict[str, str]]:
    """Each as {series, title, note, svg} for the page."""
    styles = styles_in(record)
    return [_figure(one, styles) for one in curves]


def _figure(curves: Curves, styles: dict[str, Style]) -> dict[str, str]:
    """The note also tells the axis and what the dashed line is."""
    series, title, note, lines, level = curves
    svg, scale = _panel(lines, styles, level)
    # Every figure counts its parts from 1, and one page holds them all.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{series}-", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}: {escape(note)}"', 1)
    axis = f"; {scale} axis" if scale else ""
    real = "" if level is None else "; dashed grey: real scenes"
    return {"series": series, "title": title, "note": note + axis + real, "svg": svg}


def _scaled(line: Line, scale: float) -> Line:
    kept = [key for key in ("value", "low", "high") if key in line]
    shown: Line = {k: [None if v is None else v * scale for v in line[k]] for k in kept}
    return {**shown, "iteration": line["iteration"]}


def _real_level(record: dict[str, Any], metric: str, counts: set[int]) -> float | None:
    """What real scenes have, scaled; none for a distance over another number of images."""
    real = next((n for n, s in record["students"].items() if s["source"] == "real"), None)
    cell = record["table"].get(real, {}).get(metric, {}).get("all")
    if cell is None or cell["value"] is None:
        return None
    alike = counts == {one["n"] for one in cell["by_seed"].values()}
    if METRICS[metric].kind == "distribution" and not alike:
        return None
    value: float = cell["value"] * METRICS[metric].scale
    return value


def scale_of(lines: dict[str, Line]) -> str:
    """ "" for a linear axis; "log" or, with values below zero, "symlog" where one runs away."""
    values = [np.array([v for v in line["value"] if v is not None]) for line in lines.values()]
    values = [v for v in values if len(v)]
    if len(values) < 2:
        return ""
    peaks = np.array([np.abs(v).max() for v in values])
    if peaks.max() <= RUNAWAY * np.median(peaks):
        return ""
    return "log" if min(v.min() for v in values) > 0 else "symlog"


def _panel(
    lines: dict[str, Line], styles: dict[str, Style], level: float | None
) -> tuple[str, str]:
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "ddmd_bench",  # ids of clip paths, else random
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "path.simplify": False,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        scale = draw_lines(axes, lines, styles, level)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue()), scale


def draw_lines(
    axes: Axes, lines: dict[str, Line], styles: dict[str, Style], level: float | None
) -> str:
    """A line a student, with its band, over the iterations; which axis they have (`scale_of`)."""
    width, opacity = FEW if len(lines) <= len(COLORS) else MANY
    for name, line in lines.items():
        color, dashes = styles[name]
        known = {k: np.array(v, np.float64) for k, v in line.items()}  # None becomes NaN
        axes.plot(
            known["iteration"],
            known["value"],
            color=color,
            linestyle=(0, dashes) if dashes else "solid",
            linewidth=width,
            gid=f"student-{name}",
        )
        if "low" in known:
            band = (known["iteration"], known["low"], known["high"])
            axes.fill_between(*band, color=color, alpha=opacity, linewidth=0, gid=f"student-{name}")
    if level is not None:
        axes.axhline(level, color="#888888", linestyle=(0, (4, 3)), linewidth=1.2)
    scale = scale_of(lines)
    if scale == "log":
        axes.set_yscale("log")
    elif scale:
        peaks = [max(abs(v) for v in x["value"] if v is not None) for x in lines.values()]
        axes.set_yscale("symlog", linthresh=max(float(np.median(peaks)), 1e-6))
    axes.grid(axis="y")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("iteration")
    return scale


def _for_page(svg: str) -> str:
    """The bare <svg> element, its ink and lines left to the page's own colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    # A page's parser knows these; without them the page names no address at all.
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'id="student-(\w+)"', r'data-student="\1"', svg)
    return svg.replace(INK, "currentColor").replace(LINE, "var(--line)")
