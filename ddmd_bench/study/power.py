"""How many answers show a preference: 80 % power at 5 %, two-sided, against 50 %."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_versioned
from ddmd_bench.suite.studies import SCHEMA, TALLY

LEVEL, POWER = 0.05, 0.8
FORM = {
    "schema": int,
    "counted": {"pairs": [{"n": int, "independent": float}], "people": int},
}


def answers_needed(share: float) -> int:
    """Independent answers, of a share in (0, 1) that is not a half."""
    from scipy.stats import norm

    reach = norm.isf(LEVEL / 2) / 2 + norm.isf(1 - POWER) * math.sqrt(share * (1 - share))
    return math.ceil((reach / (share - 0.5)) ** 2)


def power_lines(percent: float, study: Path | None) -> Iterator[str]:
    """In words; with a study, as much as its answers were worth."""
    share = percent / 100
    if not 0 < share < 1 or share == 0.5:
        raise BenchError(f"power {percent:g}: expected a share between 0 and 100 % that is not 50")
    needed = answers_needed(share)
    yield (
        f"{percent:g} % against 50 %, with 80 % power at 5 %: {needed:,} answers that each count "
        "on their own, one of each prompt"
    )
    if study is None:
        return
    record = read_versioned(study / TALLY, {SCHEMA: FORM}, "Tally the study first")
    worth = float(np.mean([row["independent"] / row["n"] for row in record["counted"]["pairs"]]))
    yield (
        f"as in {study}, where an answer counts {worth:.2f} of one (people and prompts repeat): "
        f"{math.ceil(needed / worth):,} answers by {record['counted']['people']} people"
    )
