"""One number, curve or reason from those of a suite's seeds.

One seed keeps its own interval, which is over prompts. Of several, the mean is shown with an
interval over the seeds and, of metrics that each image has, over the prompts that they share; and
how many of the expected seeds went into it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ddmd_bench.stats.intervals import Bounds
from ddmd_bench.stats.seeds import NO_PROMPTS, OfPrompts, seed_interval

Curve = dict[float, float]  # value by iteration


def interval_over(num_seeds: int, prompts: OfPrompts) -> str:
    """What an interval is over, as the record says it."""
    if num_seeds == 1:
        return "prompts"
    return "prompts and seeds" if prompts.num_prompts else "seeds"


def joined_cell(
    cells: Mapping[int, dict[str, Any]],
    prompts: OfPrompts = NO_PROMPTS,
    bounds: Bounds | None = None,
) -> dict[str, Any]:
    """A table's cell from the cells {value, low, high, n, n_expected} of every seed.

    n counts the images of all seeds; a seed without a value is expected and not counted.
    """
    known = [cell for cell in cells.values() if cell["value"] is not None]
    if len(cells) == 1:
        (only,) = cells.values()
        interval = {key: only[key] for key in ("value", "low", "high")}
    else:
        value, low, high, _ = seed_interval([cell["value"] for cell in known], prompts, bounds)
        interval = {"value": value, "low": low, "high": high}
    return {
        **interval,
        "over": interval_over(len(cells), prompts),
        "n": sum(cell["n"] for cell in cells.values()),
        "n_expected": sum(cell["n_expected"] for cell in cells.values()),
        "n_seeds": len(known),
        "n_seeds_expected": len(cells),
        "by_seed": {seed: {k: cell[k] for k in ("value", "n")} for seed, cell in cells.items()},
    }


def joined_curve(curves: Mapping[int, Curve]) -> dict[str, list[float]]:
    """The mean over seeds at each iteration and, of several seeds, the lowest and the highest.

    A value that is not finite is left out of them; where no seed has one, it is NaN.
    """
    iterations = sorted({iteration for curve in curves.values() for iteration in curve})
    rows = [[c.get(k, math.nan) for k in iterations] for c in curves.values()]
    values = np.ma.masked_invalid(np.array(rows, np.float64))
    lines = {"value": values.mean(0)}
    if len(curves) > 1:
        lines |= {"low": values.min(0), "high": values.max(0)}
    filled = {name: np.ma.filled(line, math.nan).tolist() for name, line in lines.items()}
    return {"iteration": iterations, **filled}


def joined_reason(reasons: Mapping[int, str]) -> str:
    """Why something is missing, from each seed's reason ('' where it is not)."""
    known = {seed: reason for seed, reason in reasons.items() if reason}
    if len(known) == len(reasons) and len(set(known.values())) == 1:
        return next(iter(known.values()))
    return "; ".join(f"with seed {seed} {reason}" for seed, reason in known.items())


def fewer_than_expected(cell: Mapping[str, Any]) -> str:
    """How many seeds, else how many images, went into a table's cell where some are missing.

    '' of a report of before there were several seeds, which does not say what was expected.
    """
    n, expected = cell["n"], cell.get("n_expected", cell["n"])
    images = "" if n == expected else f"n {n} of {expected}"
    return shortfall(cell.get("n_seeds", 1), cell.get("n_seeds_expected", 1)) or images


def shortfall(num: int, expected: int) -> str:
    """How many seeds went into a number where some are missing, else ''."""
    return f"{num} of {expected} seeds" if num < expected else ""
