"""Numbers as a reader sees them: scaled, rounded, with their interval; a missing one is a dash."""

from __future__ import annotations

from ddmd_bench.scorers import METRICS

MISSING = "-"
ARROWS = {"higher": "↑", "lower": "↓", "reference": "≈"}


def shown(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """A number with a true minus sign, or a dash."""
    if value is None:
        return MISSING
    text = f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"
    # A value that rounds to nothing has no sign to show.
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def metric_shown(metric: str, value: float | None, *, sign: bool = False) -> str:
    """A metric's value in its display unit, without the unit."""
    row = METRICS[metric]
    return shown(None if value is None else value * row.scale, row.decimals, sign=sign)


def apart(metric: str, value: float, *others: float) -> list[str]:
    """Values of a metric with its unit, and as many digits as tell the first from the others.

    A metric that is no longer known has no unit and four digits.
    """
    if metric not in METRICS:
        return [significant(v, 5) for v in (value, *others)]
    row, unit = METRICS[metric], unit_of(metric)
    for more in range(5):
        texts = [shown(v * row.scale, row.decimals + more) for v in (value, *others)]
        if all(texts[0] != text or value == v for text, v in zip(texts[1:], others, strict=True)):
            break
    return [text + unit for text in texts]


def interval_shown(
    metric: str, low: float | None, high: float | None, *, sign: bool = False
) -> str:
    """An interval in the metric's display unit, or a dash."""
    if low is None or high is None:
        return MISSING
    return " to ".join(metric_shown(metric, v, sign=sign) for v in (low, high))


def unit_of(metric: str, *, difference: bool = False) -> str:
    """The unit to stand behind a value; a difference of shares is in percentage points."""
    unit = METRICS[metric].unit
    if not unit:
        return ""
    return " points" if difference and unit == "%" else f" {unit}"


def heading(metric: str, part: str = "") -> str:
    """A metric's title, the part of the prompts it is over, its unit and its better direction."""
    row = METRICS[metric]
    return f"{row.title}{part}{unit_of(metric)} {ARROWS[row.better]}"


def p_shown(value: float | None) -> str:
    """A p-value; very small ones as a bound."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def significant(value: float | None, digits: int = 4) -> str:
    """A number of unknown size, to some significant digits."""
    return MISSING if value is None else f"{value:.{digits}g}".replace("-", "\u2212")
