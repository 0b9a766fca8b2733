"""Differences as bars on one axis a metric: better to the right, cut bars end in an arrow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ddmd_bench.reporting.numbers import shown
from ddmd_bench.scorers import METRICS

# An axis reaches so many times the median bar, so that one far out does not hide all others.
CLIP = 4.0
STEPS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
EDGE = 47.0  # percent of the width from the middle to the outermost tick


class Tick(NamedTuple):
    """A mark of the axis: its place in percent of the width, and what stands there."""

    place: float
    text: str


class Bar(NamedTuple):
    """A value and its interval, in percent of the width."""

    value: float | None  # None where it lies beyond the axis
    low: float
    high: float
    cut_low: bool
    cut_high: bool


class Axis(NamedTuple):
    """Of all rows of a metric; what is better lies to the right."""

    metric: str
    reach: float  # the outermost tick, in raw units; 0 without a difference

    @classmethod
    def of(cls, metric: str, rows: Sequence[Mapping[str, Any]]) -> Axis:
        """A round number that most rows lie inside."""
        far = [max(abs(d["low"]), abs(d["high"])) for d in rows if _has_ends(d)]
        # Where more than half are zero the median says nothing.
        most = min(max(far), CLIP * median(far) or max(far)) if far else 0.0
        return cls(metric, _round_up(most * METRICS[metric].scale) / METRICS[metric].scale)

    @property
    def sign(self) -> int:
        """-1 where less is better: the axis turns."""
        return -1 if METRICS[self.metric].better == "lower" else 1

    def ticks(self) -> list[Tick]:
        """Both ends, the middle and the halves between."""
        if not self.reach:
            return []
        outermost = self.reach * METRICS[self.metric].scale
        decimals = max(0, 1 - math.floor(math.log10(outermost)))
        halves = (-1.0, -0.5, 0.0, 0.5, 1.0)
        return [
            Tick(50 + EDGE * half, shown(self.sign * half * outermost, decimals, sign=half != 0))
            for half in halves
        ]

    def bar(self, row: Mapping[str, Any]) -> Bar | None:
        """None of what is missing, or has no interval."""
        if not _has_ends(row) or not self.reach:
            return None
        low, high = sorted(self.sign * row[end] / self.reach for end in ("low", "high"))
        value = self.sign * row["value"] / self.reach
        return Bar(
            50 + EDGE * value if abs(value) <= 1 else None,
            50 + EDGE * max(-1.0, min(1.0, low)),
            50 + EDGE * max(-1.0, min(1.0, high)),
            low < -1,
            high > 1,
        )


def _has_ends(row: Mapping[str, Any]) -> bool:
    ends = () if row["missing"] else (row["low"], row["high"])
    return bool(ends) and all(end is not None and math.isfinite(end) for end in ends)


def _round_up(value: float) -> float:
    """The next of `STEPS` times a power of ten."""
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))
