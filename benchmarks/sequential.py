"""How many prompts a comparison takes that stops when it is settled, and how often it errs.

    OMP_NUM_THREADS=1 python -m benchmarks.sequential [--repetitions 500] [--prompts 1000]

Differences of two students are drawn prompt by prompt, with a look after each block, by what
`run --until-settled` calls (`stats/sequential.py`, `looks`), until it tells above from below, or
alike within a margin, or the suite ends. Beside it the power of the t-interval over all prompts,
which is looked at once. Families are of students with one baseline, at the level that lets all
their comparisons hold together: wrong is where one of them errs at least.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks.table import Table, as_text
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.sequential import level_of, looks

EFFECTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # in standard deviations of a prompt's difference
# Without a difference, and with a standard deviation of 1.
KINDS: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": lambda draws, n: draws.normal(size=n),
    "right and wrong, a tenth differ": lambda draws, n: (
        draws.choice([-1.0, 0.0, 1.0], n, p=[0.05, 0.9, 0.05]) / 0.1**0.5
    ),
    "exponential": lambda draws, n: draws.exponential(size=n) - 1,
    "t, 3 degrees": lambda draws, n: draws.standard_t(3, size=n) / 3**0.5,
}


FAMILIES = (2, 6, 20)  # students beside the baseline
MARGIN = 0.2  # of differences that do not matter


def results(repetitions: int = 500, prompts: int = 1_000, block: int = 50) -> Table:
    """A row for each kind of difference and each effect; then of families, and of a margin."""
    rows, ends = [], [*range(block, prompts, block), prompts]
    for name, draw in KINDS.items():
        for effect in EFFECTS if name == "normal" else (0.0, 0.2):
            draws = np.random.default_rng(0)
            differences = [effect + draw(draws, prompts) for _ in range(repetitions)]
            found = [looks(x, ends, prompts)[-1] for x in differences]
            drawn = [one.num_prompts for one in found]
            told = [one.answer for one in found if one.answer]
            above = told.count("above") / repetitions
            wrong = len(told) / repetitions - (above if effect else 0)
            once = [ttest_1samp(x, 0).pvalue < 0.05 for x in differences]
            share = float(np.mean(drawn)) / prompts
            shares = (wrong, above if effect else None, share, float(np.mean(once)))
            rows.append((f"{name}, effect {effect:g}", *_cells(*shares)))
    for num in FAMILIES:
        rows.append((f"exponential, {num} students, effect 0", *_family(num, repetitions, ends)))
    for effect in (0.0, MARGIN):
        rows.append(
            (f"normal, effect {effect:g}, margin {MARGIN:g}", *_alike(effect, repetitions, ends))
        )
    note = (
        "Effects in standard deviations of a prompt's difference; found by all: by the t-interval "
    )
    note += (
        f"over all prompts, looked at once. {prompts:,} prompts, a look every {block}, "
        f"{repetitions} repetitions. With a margin, found is alike where nothing differs, and "
        "alike is wrong where the difference is the margin."
    )
    return Table(
        "A comparison that stops when it is settled errs in 5 % at most, however often one looks.",
        ("difference", "wrong, %", "found, %", "prompts drawn, %", "found by all, %"),
        rows,
        (note,),
    )


def _cells(*shares: float | None) -> Iterator[str]:
    return ("" if x is None else f"{100 * x:.1f}" for x in shares)


def _family(num: int, repetitions: int, ends: list[int]) -> Iterator[str]:
    """Of students that are all as good as the one baseline: how often one is told from it."""
    draws, wrong, drawn = np.random.default_rng(0), 0, []
    for _ in range(repetitions):
        values = draws.exponential(size=(num + 1, ends[-1]))
        found = [looks(x - values[0], ends, ends[-1], level_of(num))[-1] for x in values[1:]]
        wrong += any(one.answer for one in found)
        drawn += [one.num_prompts for one in found]
    return _cells(wrong / repetitions, None, float(np.mean(drawn)) / ends[-1], None)


def _alike(effect: float, repetitions: int, ends: list[int]) -> Iterator[str]:
    draws = np.random.default_rng(0)
    found = [
        looks(effect + draws.normal(size=ends[-1]), ends, ends[-1], margin=MARGIN)[-1]
        for _ in range(repetitions)
    ]
    alike = sum(one.answer == "alike" for one in found) / repetitions
    wrong = (
        alike if effect else sum(one.answer in ("above", "below") for one in found) / repetitions
    )
    drawn = float(np.mean([one.num_prompts for one in found])) / ends[-1]
    return _cells(wrong, None if effect else alike, drawn, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=1_000)
    parser.add_argument("--block", type=int, default=50)
    options = parser.parse_args()
    print(as_text(results(options.repetitions, options.prompts, options.block)))


if __name__ == "__main__":
    main()
