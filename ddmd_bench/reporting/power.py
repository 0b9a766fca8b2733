"""How many prompts, images or seeds a difference takes, from a report's own spreads."""

from __future__ import annotations

from typing import Any, get_args

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.reporting.escaping import in_markdown
from ddmd_bench.reporting.numbers import metric_shown, unit_of
from ddmd_bench.reporting.tables import markdown_table
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.power import Spreads, Unit, least_difference, needed

_MEANING = (
    "With 80 % power at 5 %, one comparison alone, by the spreads of this report; each column "
    "alone, all else as it is. -: no number of them does, or of one seed what more would bring is "
    "not known."
)


def spreads_by_student(
    record: dict[str, Any], metric: str, difference: float, option: str
) -> dict[str, Spreads | None]:
    """Of a metric against the baseline, None where a difference has no interval.

    Raises BenchError where a report cannot tell, or a difference is no size.
    """
    suite = record["suite"]
    if metric not in suite["metrics"]:
        raise BenchError(f"report {suite['name']}: " + unknown("metric", metric, suite["metrics"]))
    if not difference > 0:
        raise BenchError(f"{option} {difference:g}: expected a size above 0")
    found = {d["student"]: d.get("spreads") for d in record["differences"] if d["metric"] == metric}
    if None in found.values():
        raise BenchError(
            f"report {suite['name']} was made before reports had spreads: make it again with "
            f"`python -m ddmd_bench report {suite['name']}`"
        )
    return {name: Spreads(**spreads) if spreads else None for name, spreads in found.items()}


def power_markdown(record: dict[str, Any], metric: str, difference: float) -> str:
    """A row for each student against the baseline; a difference in the unit that pages show."""
    suite, students = record["suite"], record["students"]
    found = spreads_by_student(record, metric, difference, "--difference")
    known = {name: spreads for name, spreads in found.items() if spreads}
    titles = {name: in_markdown(student["title"]) for name, student in students.items()}
    rows = [_row(titles[n], metric, difference, s) for n, s in known.items()]
    size = size_shown(metric, difference)
    lost = [titles[name] for name in found if name not in known]
    baseline = titles[suite["baseline"]]
    parts = [
        f"# {METRICS[metric].title}: what shows a difference of {size}",
        f"To {baseline}. {_MEANING}",
        markdown_table(("student", "could show", *(f"{u} (has)" for u in get_args(Unit))), rows),
    ]
    if lost:
        parts.append(f"No interval, so no spread: {', '.join(lost)}.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def size_shown(metric: str, difference: float) -> str:
    """A difference in the unit that pages show, with that unit."""
    size = metric_shown(metric, difference / METRICS[metric].scale)
    return size + unit_of(metric, difference=True)


def _row(title: str, metric: str, difference: float, spreads: Spreads) -> tuple[str, ...]:
    raw = difference / METRICS[metric].scale
    # What no image has says nothing of images.
    units = {unit: unit != "images" or METRICS[metric].kind == "image" for unit in get_args(Unit)}
    cells = (_needed(spreads, raw, unit) if said else "-" for unit, said in units.items())
    return title, metric_shown(metric, least_difference(spreads)), *cells


def _needed(spreads: Spreads, difference: float, unit: Unit) -> str:
    number, has = needed(spreads, difference, unit), getattr(spreads, f"num_{unit}")
    return f"{'-' if number is None else f'{number:,}'} ({has:,.4g})"
