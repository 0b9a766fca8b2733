"""The students in the order of the suite's first metric, with their intervals on one axis."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ddmd_bench.reporting.numbers import metric_shown
from ddmd_bench.scorers import METRICS

STEPS = (1, 2, 2.5, 5, 10)
NUM_TICKS = 4  # about so many
ROOM = 3.0  # percent of the width at each end


class Place(NamedTuple):
    """A student on the axis, in percent of its width."""

    student: str
    shown: str
    value: float
    low: float
    high: float
    leads: bool


def ranked(record: dict[str, Any], metric: str | None) -> dict[str, Any] | None:
    """{metric, ticks, rows}, the best first; None of fewer than two values."""
    if metric is None:
        return None
    cells = {n: row.get(metric, {}).get("all", {}) for n, row in record["table"].items()}
    known = {n: cell for n, cell in cells.items() if cell.get("value") is not None}
    if len(known) < 2:
        return None
    ends = {
        name: [cell["value"] if cell[end] is None else cell[end] for end in ("low", "high")]
        for name, cell in known.items()
    }
    every = [float(end) for both in ends.values() for end in both]
    low, high = min(every), max(every)
    width = (high - low) or 1.0

    def place(value: float) -> float:
        return ROOM + (100 - 2 * ROOM) * (value - low) / width

    sign = 1 if METRICS[metric].better == "lower" else -1
    order = sorted(known, key=lambda name: sign * known[name]["value"])
    return {
        "metric": metric,
        "ticks": [(place(tick), metric_shown(metric, tick)) for tick in _ticks(low, high)],
        "rows": [
            Place(
                student=name,
                shown=metric_shown(metric, known[name]["value"]),
                value=place(known[name]["value"]),
                low=place(ends[name][0]),
                high=place(ends[name][1]),
                leads=name == record["best"].get(metric),
            )
            for name in order
        ],
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values."""
    if not high > low:
        return [low]
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in STEPS if k * power >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
