"""What a run came to, for a terminal: the first metrics of each student, the verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddmd_bench.reporting.claims.words import claim_result
from ddmd_bench.reporting.numbers import MISSING, heading, interval_shown, metric_shown
from ddmd_bench.reporting.summary import summary

TITLE, CELL = 26, 24  # characters of a column, about


def answer_table(record: Mapping[str, Any], width: int) -> tuple[list[str], list[list[str]]]:
    """Header and rows: as many of the suite's first metrics as so many characters hold, or two."""
    metrics = record["suite"]["metrics"][: max(2, (width - TITLE) // CELL)]
    rows = [
        [
            student["title"],
            *(_cell(metric, record["table"][name].get(metric, {})) for metric in metrics),
        ]
        for name, student in record["students"].items()
    ]
    return ["student", *map(heading, metrics)], rows


def _cell(metric: str, groups: Mapping[str, Any]) -> str:
    cell = groups.get("all", {})
    if cell.get("value") is None:
        return MISSING
    value = metric_shown(metric, cell["value"])
    if cell["low"] is None:
        return value
    return f"{value} ({interval_shown(metric, cell['low'], cell['high'])})"


def answer_lines(record: dict[str, Any]) -> list[str]:
    """The summary, and each claim with what it rests on."""
    num_seeds = len(record["suite"]["seeds"])
    claims = [
        f"{claim['verdict']}: {claim['text']}; {claim_result(claim, num_seeds)}"
        for claim in record["claims"]
    ]
    return [*summary(record), *claims]
