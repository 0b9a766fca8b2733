"""Bars of differences: on one round axis, what is better to the right, and what is cut is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddmd_bench.reporting.html.forest import EDGE, Axis
from ddmd_bench.reporting.html.ranked import ranked
from ddmd_bench.scorers import METRICS

NUMBERS = st.floats(-1e4, 1e4).filter(lambda x: x == 0 or abs(x) > 1e-6)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS).map(sorted), min_size=1, max_size=12)


def rows_of(found: list[list[float]]) -> list[dict[str, Any]]:
    return [{"low": a, "value": b, "high": c, "missing": ""} for a, b, c in found]


@given(ROWS, st.sampled_from(["prompt_accuracy", "frechet_attributes", "std"]))
def test_a_bar_stands_where_the_ticks_say(found: list[list[float]], metric: str) -> None:
    rows = rows_of(found)
    axis = Axis.of(metric, rows)
    if not axis.reach:
        assert all(row["low"] == row["high"] == 0 for row in rows)
        return
    ticks = axis.ticks()
    assert [tick.place for tick in ticks] == sorted(tick.place for tick in ticks)
    left, right = (float(ticks[k].text.replace("\u2212", "-")) for k in (0, -1))
    scale = METRICS[metric].scale
    assert right == pytest.approx(axis.sign * axis.reach * scale, rel=0.01)
    assert left == -right
    for row in rows:
        bar = axis.bar(row)
        assert bar is not None
        assert 50 - EDGE <= bar.low <= bar.high <= 50 + EDGE
        ends = sorted(axis.sign * row[end] for end in ("low", "high"))
        assert (bar.cut_low, bar.cut_high) == (ends[0] < -axis.reach, ends[1] > axis.reach)
        if bar.value is None:
            assert abs(row["value"]) > axis.reach
        else:  # the ticks' own rule
            share = (bar.value - 50) / EDGE
            assert share * axis.sign * axis.reach == pytest.approx(row["value"], abs=1e-9)


def test_less_is_better_to_the_right() -> None:
    better, worse = rows_of([[-3.0, -2.0, -1.0], [1.0, 2.0, 3.0]])
    axis = Axis.of("frechet_attributes", [better, worse])
    bars = axis.bar(better), axis.bar(worse)
    assert bars[0] is not None
    assert bars[1] is not None
    assert bars[0].low > 50 > bars[1].high
    assert axis.ticks()[0].text == "+3.0"


def test_one_far_out_hides_no_other() -> None:
    rows = rows_of([[-1.0, 0.0, 1.0], [-1.0, 0.5, 1.0], [50.0, 60.0, 70.0]])
    axis = Axis.of("hps_v3", rows)
    far = axis.bar(rows[2])
    assert far is not None
    assert (far.value, far.cut_high) == (None, True)
    assert axis.reach == 4


def test_nothing_to_draw() -> None:
    axis = Axis.of("hps_v3", [{"missing": "not scored"}])
    assert axis.ticks() == []
    assert axis.bar({"missing": "not scored"}) is None


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=12),
    st.sampled_from(["prompt_accuracy", "frechet_attributes"]),
)
def test_students_are_ranked_on_one_axis(values: list[float], metric: str) -> None:
    table = {
        f"s{k}": {metric: {"all": {"value": v, "low": v / 2, "high": None if k == 1 else v + 0.1}}}
        for k, v in enumerate(values)
    }
    found = ranked({"table": table, "best": {metric: "s0"}}, metric)
    assert found is not None
    rows = found["rows"]
    shown = [table[row.student][metric]["all"]["value"] for row in rows]
    assert shown == sorted(values, reverse=METRICS[metric].better == "higher")
    for row in rows:
        assert 0 <= row.low <= row.value <= row.high <= 100
    assert [row.student for row in rows if row.leads] == ["s0"]
    assert all(0 <= place <= 100 for place, _ in found["ticks"])
    assert len(found["ticks"]) <= 6
    assert ranked({"table": {"s0": table["s0"]}, "best": {}}, metric) is None
