"""What every interval of a report holds, and how often its tests see what is not there.

    OMP_NUM_THREADS=1 python -m benchmarks.coverage [--repetitions 1000] [--only share]

Each repetition draws prompts and images whose truth is known (`benchmarks/coverage_cases.py`), with
seeds that are fixed, and asks the functions that a report asks, but for 999 flips of signs instead
of 9,999. Marked are cells outside 93 to 97 % where 95 is nominal and above 6 % where 5 is, by more
than two standard errors of the simulation.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Iterator
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks.coverage_cases import CASES, Case
from benchmarks.table import Table, as_text
from ddmd_bench.stats import resampling

FLIPS = 999
_OUTSIDE = "below 93 % or above 6 % by more than the simulation's own error"


class Rate(NamedTuple):
    """How many of the repetitions."""

    share: float
    error: float  # standard error of the simulation where the nominal rate holds
    test: bool

    @property
    def mark(self) -> str:
        """Where it lies outside by more than the simulation's own error."""
        slack = 2 * self.error
        if self.test:
            return " above" if self.share > 0.06 + slack else ""
        if self.share < 0.93 - slack:
            return " below"
        return " wide" if self.share > 0.97 + slack else ""


def rates_of(case: Case, prompts: int, repetitions: int) -> Iterator[Rate]:
    """Of the interval and of the test, what there is."""
    num = max(20, int(case.share * repetitions))
    seed = zlib.crc32(f"{case.name} {prompts}".encode())
    draws = np.random.default_rng(seed)
    with patch.object(resampling, "NUM_PERMUTATIONS", FLIPS):
        outcomes = [case.trial(draws, prompts) for _ in range(num)]
    error = math.sqrt(0.05 * 0.95 / num)
    for test, found in enumerate(zip(*outcomes, strict=True)):
        if None not in found:
            yield Rate(sum(found) / num, error, bool(test))


def results(repetitions: int = 1_000, only: str = "") -> Table:
    """A row for each interval and each test, a column for each number of prompts."""
    sizes = sorted({prompts for case in CASES for prompts in case.prompts})
    rows, outside = [], []
    for case in CASES:
        if only not in case.name:
            continue
        found: dict[bool, dict[int, Rate]] = {}
        for prompts in case.prompts:
            for rate in rates_of(case, prompts, repetitions):
                found.setdefault(rate.test, {})[prompts] = rate
        for test, by_size in found.items():
            name = f"test: {case.name}" if test else case.name
            cells = {k: f"{100 * rate.share:.1f}{rate.mark}" for k, rate in by_size.items()}
            rows.append((name, *(cells.get(size, "") for size in sizes)))
            outside += [f"{name} at {k:,}" for k, rate in by_size.items() if rate.mark == " below"]
            outside += [f"{name} at {k:,}" for k, rate in by_size.items() if rate.mark == " above"]
    return Table(
        "Intervals hold what they say, at the edges too, and tests see nothing where nothing is.",
        ("%, by number of prompts", *(f"{size:,}" for size in sizes)),
        rows,
        (
            (
                "Intervals: how often they contain the truth, nominal 95; tests: how often p is "
                "below 0.05 without a difference, nominal 5. wide: above 97, as limits of few "
                f"wrong answers are. Of {repetitions} repetitions, of distances a fifth."
            ),
            f"Exceptions, {_OUTSIDE}: {'; '.join(outside) or 'none'}.",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1_000)
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    print(as_text(results(options.repetitions, options.only)))


if __name__ == "__main__":
    main()
