"""The benchmark of coverage in a short form: no interval and no test is far from what it says."""

from __future__ import annotations

import pytest

from benchmarks.coverage import rates_of, results
from benchmarks.coverage_cases import CASES, Case, share

# At 20 prompts skewed means and shares near an edge hold a few points less: the benchmark says how
# much. Distances have their own tests, at sizes that take less.
QUICK = [case for case in CASES if case.share > 0.2 and "Holm" not in case.name]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_intervals_hold_what_they_say(case: Case) -> None:
    """90 repetitions: fewer than 86 % of an interval that holds 95 happens once in 10,000."""
    for prompts in (20, 200):
        if prompts not in case.prompts:
            continue
        for rate in rates_of(case, prompts, round(90 / case.share)):
            assert rate.share < 0.16 if rate.test else rate.share > 0.84, (prompts, rate)


@pytest.mark.parametrize("rate", [0.5, 0.95, 0.994])
def test_shares_of_unequally_hard_prompts(rate: float) -> None:
    """The headline's kind; the t-interval holds 39 % of 99.4 % at 50 prompts."""
    (found,) = rates_of(share(rate, 2, 0.3), 50, 400)
    assert found.share > 0.925


def test_the_table_marks_what_is_outside() -> None:
    table = results(40, "wins")
    assert [row[0] for row in table.rows] == [c.name for c in CASES if "wins" in c.name]
    assert table.notes[-1].startswith("Exceptions")
