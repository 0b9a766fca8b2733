"""How many prompts a comparison takes that stops when it is settled, and how often it errs.

    OMP_NUM_THREADS=1 python -m benchmarks.sequential [--repetitions 500] [--prompts 1000]

Differences of two students are drawn prompt by prompt, with a look after each from the fiftieth on,
until `stats/sequential.py` tells above from below or the suite ends. Beside it the power of the
t-interval over all prompts, which is looked at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks.table import Table, as_text
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.sequential import confidence_sequence, settled

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


def results(repetitions: int = 500, prompts: int = 1_000) -> Table:
    """A row for each kind of difference and each effect."""
    rows = []
    for name, draw in KINDS.items():
        for effect in EFFECTS if name == "normal" else (0.0, 0.2):
            draws = np.random.default_rng(0)
            differences = [effect + draw(draws, prompts) for _ in range(repetitions)]
            found = [settled(confidence_sequence(x, prompts // 3)) for x in differences]
            drawn = [prompts if one is None else one.num_prompts for one in found]
            told = [one.answer for one in found if one is not None]
            above = told.count("above") / repetitions
            wrong = len(told) / repetitions - (above if effect else 0)
            once = [ttest_1samp(x, 0).pvalue < 0.05 for x in differences]
            shares = (wrong, above if effect else None, np.mean(drawn) / prompts, np.mean(once))
            cells = ("" if x is None else f"{100 * x:.1f}" for x in shares)
            rows.append((f"{name}, effect {effect:g}", *cells))
    note = (
        "Effects in standard deviations of a prompt's difference; found by all: by the t-interval "
    )
    note += f"over all prompts, looked at once. {prompts:,} prompts, {repetitions} repetitions."
    return Table(
        "A comparison that stops when it is settled errs in 5 % at most, however often one looks.",
        ("difference", "wrong, %", "found, %", "prompts drawn, %", "found by all, %"),
        rows,
        (note,),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=1_000)
    options = parser.parse_args()
    print(as_text(results(options.repetitions, options.prompts)))


if __name__ == "__main__":
    main()
