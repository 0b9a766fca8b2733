"""What a student costs beside what it gives: all that the page sets against each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ddmd_bench.reporting.escaping import visible
from ddmd_bench.reporting.figures import styles_in
from ddmd_bench.scorers import METRICS


class Cost(NamedTuple):
    """A quantity of which less is better; where it stands in a record."""

    title: str
    part: str  # facts or clock
    name: str
    decimals: int
    unit: str = ""


COSTS = {
    "network_evaluations": Cost("Network evaluations an image", "facts", "network_evaluations", 0),
    "num_inference_steps": Cost("Steps", "facts", "num_inference_steps", 0),
    "seconds": Cost("Seconds an image", "clock", "images_per_s", 4, "s"),
    "train_seconds": Cost("Training, seconds", "clock", "train_seconds", 0, "s"),
    "num_iterations": Cost("Training iterations", "facts", "num_iterations", 0),
    "peak_memory_gib": Cost("Peak memory of the training", "clock", "peak_memory_gib", 2, "GiB"),
}


def trade(record: dict[str, Any]) -> dict[str, Any]:
    """{quantities, students}: in display units, those that some student has."""
    styles = styles_in(record)
    students: list[dict[str, Any]] = [
        {
            "title": visible(student["title"]),
            "color": styles[name].color if name in styles else None,
            "values": {**dict(_costs(record, name)), **dict(_values(record, name))},
        }
        for name, student in record["students"].items()
    ]
    known = {quantity for student in students for quantity in student["values"]}
    costs = [
        {"name": name, "title": row.title, "better": "lower", "decimals": row.decimals,
         "unit": row.unit, "cost": True}
        for name, row in COSTS.items()
    ]  # fmt: skip
    metrics = [
        {"name": m, "title": METRICS[m].title, "better": METRICS[m].better,
         "decimals": METRICS[m].decimals, "unit": METRICS[m].unit, "cost": False}
        for m in record["suite"]["metrics"]
    ]  # fmt: skip
    found = [one for one in [*costs, *metrics] if one["name"] in known]
    return {"quantities": found, "students": students}


def _costs(record: dict[str, Any], name: str) -> Iterator[tuple[str, float]]:
    parts = {"facts": record["students"][name]["facts"], "clock": record["clock"][name]}
    for quantity, row in COSTS.items():
        value = parts[row.part].get(row.name)
        if value:
            yield quantity, 1 / value if quantity == "seconds" else value


def _values(record: dict[str, Any], name: str) -> Iterator[tuple[str, float]]:
    for metric, groups in record["table"][name].items():
        if (value := groups.get("all", {}).get("value")) is not None:
            yield metric, value * METRICS[metric].scale


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points (less is better in both) no other one equals or betters in both and betters in
    one."""
    return [
        k
        for k, (x, y) in enumerate(points)
        if not any(c <= x and d <= y and (c, d) != (x, y) for c, d in points)
    ]
