"""The losses of accuracy that `check --baseline` sees, by the number of images.

    python -m benchmarks.losses [--runs 200]

Made-up students of 95 % accuracy on prompts that are unequally hard, two images each; half of the
images are as they were, by the same noise, the others are drawn anew. The margin is two points.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from benchmarks.table import Table, as_text
from ddmd_bench.reporting.differences import Difference
from ddmd_bench.reporting.gate import Compared, verdict_on
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.intervals import paired_difference

SIZES = (200, 784, 3200)  # images
LOSSES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08)
ACCURACY, MARGIN = 0.95, 0.02
METRIC = "prompt_accuracy"


def verdicts(num_images: int, loss: float, num_runs: int) -> Counter[str]:
    """How often each verdict is reached on students of which the new one lost so much."""
    generator = np.random.default_rng(num_images)
    groups = np.arange(num_images // 2).repeat(2)
    found: Counter[str] = Counter()
    for run in range(num_runs):
        hard = generator.beta(ACCURACY * 2, (1 - ACCURACY) * 2, num_images // 2).repeat(2)
        drawn = generator.random((2, num_images))
        drawn[1] = np.where(generator.random(num_images) < 0.5, drawn[0], drawn[1])
        old, new = drawn[0] < hard, drawn[1] < hard * (1 - loss / ACCURACY)
        paired = paired_difference(new, old, groups, seed=run, bounds=METRICS[METRIC].bounds)
        difference = Difference(**paired._asdict())
        values = float(new.mean()), float(old.mean())
        one = Compared(("new", "new"), METRIC, difference, MARGIN, values)
        found[verdict_on(one, difference.p_value).status] += 1
    return found


def _rows(num_runs: int) -> Iterator[tuple[str, ...]]:
    for size in SIZES:
        for loss in LOSSES:
            found = verdicts(size, loss, num_runs)
            shares = (f"{found[s] / num_runs:.0%}" for s in ("ok", "failed", "too few"))
            yield f"{size} images, loss of {100 * loss:.0f} points", *shares


def results(num_runs: int = 25) -> Table:
    """The short form: shares of 25 runs, known within ten points or so."""
    return Table(
        "A loss of the margin is seldom called ok, and no loss seldom worse, however few images.",
        ("students", "ok", "worse", "too few"),
        [*_rows(num_runs)],
        (f"{num_runs} runs a row; margin {100 * MARGIN:.0f} points.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    print(as_text(results(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
