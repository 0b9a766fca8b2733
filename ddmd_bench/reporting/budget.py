"""What a difference costs to show: prompts by a report's spreads, images, operations, hours."""

from __future__ import annotations

import math
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.planning.generation import operations_of_image
from ddmd_bench.planning.outlook import duration
from ddmd_bench.planning.part import Asked
from ddmd_bench.reporting.power import size_shown, spreads_by_student
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.power import needed

PER_IMAGE = {"drawing": "generate_seconds", "scoring": "score_seconds"}


def budget_lines(asked: Asked, record: dict[str, Any], wanted: str) -> list[str]:
    """Of a suite and a report of it; wanted: METRIC=DIFFERENCE in the unit that pages show.

    The student that takes most decides: all answer the same prompts. Raises BenchError of what is
    no such pair, or of a report that cannot tell.
    """
    metric, difference = _parsed(wanted)
    spreads = spreads_by_student(record, metric, difference, "--for")
    titles = {name: student["title"] for name, student in record["students"].items()}
    size = size_shown(metric, difference)
    lines, numbers = [f"{METRICS[metric].title}, {size}, with 80 % power at 5 %:"], []
    for name, of_student in spreads.items():
        if of_student is None:
            lines.append(f"{titles[name]}: no interval, so no spread")
        elif number := needed(of_student, difference / METRICS[metric].scale, "prompts"):
            numbers.append(number)
            lines.append(f"{titles[name]}: {number:,} prompts (has {of_student.num_prompts:,})")
        else:
            lines.append(f"{titles[name]}: no number of prompts, what the seeds add stays")
    return lines + (_cost_lines(asked, record, max(numbers)) if numbers else [])


def _parsed(wanted: str) -> tuple[str, float]:
    metric, separator, number = wanted.partition("=")
    try:
        difference = float(number)
    except ValueError:
        difference = math.nan
    if not (metric and separator and math.isfinite(difference)):
        raise BenchError(f"--for {wanted}: expected METRIC=DIFFERENCE, as prompt_accuracy=1")
    return metric, difference


def _cost_lines(asked: Asked, record: dict[str, Any], num_prompts: int) -> list[str]:
    """Of so many prompts with the suite's images of a prompt, students and seeds.

    Seconds are the report's own, of its machine; the networks' loading is in them.
    """
    suite = asked.suite
    images = math.ceil(num_prompts * asked.num_images / asked.num_prompts)
    num_seeds = len(suite.seeds)
    operations = images * num_seeds * sum(operations_of_image(asked, name) for name in asked.bases)
    lines = [
        (
            f"all of them: {num_prompts:,} prompts, {images:,} images a student, "
            f"{images * len(suite.students) * num_seeds:,} of {len(suite.students)} students with "
            f"{num_seeds} seed{'s' * (num_seeds > 1)}"
        ),
        f"drawing: {operations:.2g} operations, counted from the networks",
    ]
    for what, key in PER_IMAGE.items():
        found = {name: _seconds_of_image(record, name, key) for name in suite.students}
        known = [seconds for seconds in found.values() if seconds is not None]
        if known:
            time = duration(images * num_seeds * sum(known))
            lost = [name for name, seconds in found.items() if seconds is None]
            without = f", without {', '.join(lost)}" if lost else ""
            lines.append(f"{what}: {time} by the report's own seconds an image{without}")
    return lines


def _seconds_of_image(record: dict[str, Any], student: str, key: str) -> float | None:
    """None where the report does not know."""
    seconds = record["clock"].get(student, {}).get(key)
    number = record["students"].get(student, {}).get("facts", {}).get("n")
    return seconds / number if seconds is not None and number else None
