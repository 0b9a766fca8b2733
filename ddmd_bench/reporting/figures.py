"""Training dynamics as SVG: the same record gives the same bytes, light or dark is the page's."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from ddmd_bench.reporting.dynamics import SERIES

# Okabe and Ito's colour-blind-safe colours, without those that vanish on white or on black.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
DASHES = ("solid", "dashed", "dotted")
# Drawn in these, then handed to the page's own colours.
INK, LINE = "#010203", "#040506"
RUNAWAY = 6.0  # a student this many times above the median one would flatten the others

PANELS = {
    "x0_std": "over all pixels of a batch; contrast that runs away shows here",
    "x0_mean": "over all pixels of a batch; a drift of brightness shows here",
    "saturation": "before clipping",
    "dm_norm": "root mean square before normalisation",
    "ca_norm": "root mean square before normalisation",
    "loss_fake_score": "how well it tracks the student",
}


def styles_of(students: list[str]) -> dict[str, tuple[str, str]]:
    """One (colour, dash) for each trained student, the same in every figure."""
    return {
        name: (COLORS[k % len(COLORS)], DASHES[k // len(COLORS) % len(DASHES)])
        for k, name in enumerate(students)
    }


def dynamics_figures(record: dict[str, Any]) -> list[dict[str, str]]:
    """One figure for each panel that has a series: {series, title, note, svg}."""
    trained = [n for n, s in record["students"].items() if s["source"] == "train"]
    styles, figures = styles_of(trained), []
    for series, note in PANELS.items():
        lines = {n: d[series] for n, d in record["dynamics"].items() if series in d}
        if not lines:
            continue
        level = record["real_levels"].get(series)
        svg, scale = _panel(lines, styles, level)
        note = f"{note}; {scale} axis" if scale else note
        if level is not None:
            note += "; dashed grey: real scenes"
        title = SERIES[series]
        title = title[:1].upper() + title[1:]
        figures.append({"series": series, "title": title, "note": note, "svg": svg})
    return figures


def scale_of(lines: dict[str, dict[str, Any]]) -> str:
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
    lines: dict[str, dict[str, Any]], styles: dict[str, tuple[str, str]], level: float | None
) -> tuple[str, str]:
    import matplotlib
    from matplotlib.figure import Figure

    scale = scale_of(lines)
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
        for name, line in lines.items():
            color, dash = styles[name]
            values = [np.nan if v is None else v for v in line["value"]]
            axes.plot(line["iteration"], values, color=color, linestyle=dash, linewidth=1.8)
        if level is not None:
            axes.axhline(level, color="#888888", linestyle=(0, (4, 3)), linewidth=1.2)
        if scale == "log":
            axes.set_yscale("log")
        elif scale:
            peaks = [max(abs(v) for v in x["value"] if v is not None) for x in lines.values()]
            axes.set_yscale("symlog", linthresh=max(float(np.median(peaks)), 1e-6))
        axes.grid(axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(which="both", length=0)
        axes.set_xlabel("iteration")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue()), scale


def _for_page(svg: str) -> str:
    """The bare <svg> element, its ink and lines left to the page's own colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    # A page's parser knows these; without them the page names no address at all.
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    return svg.replace(INK, "currentColor").replace(LINE, "var(--line)")
