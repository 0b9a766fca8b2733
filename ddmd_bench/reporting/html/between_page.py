"""The page of a comparison of reports: what made them differ first, then a table a metric."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from ddmd_bench.reporting.between import Row, is_equal, said_before
from ddmd_bench.reporting.board import SCRIPTS, Cell
from ddmd_bench.reporting.differences import outcome_of
from ddmd_bench.reporting.html.forest import Axis
from ddmd_bench.reporting.html.templates import content_policy, environment, script_of
from ddmd_bench.reporting.numbers import heading, interval_shown, metric_shown, p_shown, unit_of
from ddmd_bench.scorers import METRICS

TEMPLATE = "between.html.j2"


def between_page(
    first: dict[str, Any],
    label: str,
    others: Sequence[tuple[dict[str, Any], str, Sequence[Row]]],
) -> str:
    """One report against each of the others, all with their labels; the page is whole in itself."""
    script = script_of(SCRIPTS)
    parts = [
        {
            "name": name,
            "said": list(said_before(first, other, rows)),
            "tables": list(_tables((label, name), rows)),
        }
        for other, name, rows in others
    ]
    template = environment().get_template(TEMPLATE)
    policy = content_policy(script)
    return template.render(first=label, parts=parts, script=script, policy=policy)


def _tables(labels: tuple[str, str], rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Of each metric the values that are not the same."""
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric and not is_equal(row)]
        if not own:
            continue
        bars = [{**row.difference._asdict()} for row in own]
        axis = Axis.of(metric, bars)
        reference = METRICS[metric].better == "reference"
        yield {
            "title": heading(metric),
            "header": (
                "Student", "Other", *labels,
                f"Difference{unit_of(metric, difference=True)}", "95 % interval", "p, Holm",
            ),
            "ends": ("less", "more") if reference else ("worse", "better"),
            "ticks": axis.ticks(),
            "rows": [
                {
                    "cells": list(_cells(row)),
                    "bar": axis.bar(bar),
                    "missing": row.difference.missing,
                    "outcome": outcome_of(metric, row.difference, row.p_holm),
                }
                for row, bar in zip(own, bars, strict=True)
            ],
        }  # fmt: skip


def _cells(row: Row) -> Iterator[Cell]:
    d, metric = row.difference, row.metric
    yield Cell(row.student, "", row.student)
    yield Cell(row.other, "", row.other)
    yield from (_number(value, metric_shown(metric, _known(value))) for value in row.values)
    yield _number(d.value, metric_shown(metric, _known(d.value), sign=True))
    yield _number(d.low, interval_shown(metric, _known(d.low), _known(d.high), sign=True))
    yield _number(row.p_holm, p_shown(_known(row.p_holm)))


def _number(value: float, shown: str) -> Cell:
    return Cell(shown, "", _known(value))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
