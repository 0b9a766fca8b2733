"""How cost grows with the number of rows: the report, check, Fréchet distances, aggregation.

    python -m benchmarks.size [--sizes 1000 10000 100000] [--series report check]

A row is an image of each student for the report, an expected value for `check`, an image for the
distances and for the aggregates. Two images belong to a prompt. Files and numbers are made up
before the clock starts. A series ends after a point that took longer than the limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.processes import ROOT
from benchmarks.table import Table, as_text
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files.records import SCHEMA, read_json, write_jsonl
from ddmd_bench.measuring.aggregates import aggregate, cell_of, counted
from ddmd_bench.measuring.measure import Measured
from ddmd_bench.reporting.drift import against_expected
from ddmd_bench.reporting.expected import write_expected
from ddmd_bench.stages.report import report
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures, frechet_distance, gaussian_of
from ddmd_bench.stats.moments import factored

LIMIT = 60.0  # seconds of one point
SETS = ("seen", "new")
NUM_FEATURES = 32
METRICS = ("prompt_accuracy", "saturation", "std", "diversity")
NUM_COLUMNS = 10  # expected values of a student

Work = Callable[[], object]
Make = Callable[[int, Path], Work]


def prompts_of(num_rows: int) -> tuple[Prompt, ...]:
    """Two rows each, half of them in either set."""
    num = num_rows // 2
    sets = [SETS[2 * k // num] for k in range(num)]
    return tuple(Prompt(f"{s}/{k:06d}", s, f"a star number {k}") for k, s in enumerate(sets))


def make_report(num_rows: int, folder: Path) -> Work:
    """A run whose three students have so many images each, which show one picture."""
    sys.path.append(str(ROOT / "tests"))
    from fake_run import DIM, make_run, make_suite, write_scores

    students = {"real": {"source": "real"}, "dmd": {"method": "dmd"},
                "decoupled_hybrid": {"method": "decoupled_hybrid"}}  # fmt: skip
    suite = make_suite(claim_rows=[], students=students)
    plan = replace(make_run(folder, suite), prompts=prompts_of(num_rows))
    draws = np.random.default_rng(0)
    ids = [(prompt, k) for prompt in plan.prompts for k in range(2)]
    listing = [
        {"file_name": "00000.png", "prompt_id": p.prompt_id, "image_index": k} for p, k in ids
    ]
    for student in suite.students:
        write_jsonl(plan.task("generate", student, 0).folder / "images/metadata.jsonl", listing)
        write_scores(plan.task("score", student, 0).folder, student, ids, draws, suite)
    real = plan.task("reference").folder
    rows = [{"prompt_id": p.prompt_id, "prompt_set": p.prompt_set} for p in plan.prompts]
    np.save(real / "features_attributes.npy", draws.normal(size=(len(rows), DIM)))
    write_jsonl(real / "metadata.jsonl", rows)
    return lambda: report(plan)


def record_of(num_students: int, seed: int) -> dict[str, Any]:
    """What `check` reads of a report with so many students."""
    draws = np.random.default_rng(seed).normal(1, 0.01, (num_students, NUM_COLUMNS))
    names = [f"student_{k}" for k in range(num_students)]
    return {
        "schema": SCHEMA,
        "fingerprint": "f00",
        "suite": {
            "name": "wide",
            "seeds": [seed],
            "train": {},
            "students": {name: {"source": "train"} for name in names},
        },
        "protocol": {"schema": SCHEMA},
        "table": {
            name: {
                f"metric_{k}": {"all": {"by_seed": {str(seed): {"value": value, "n": 8}}}}
                for k, value in enumerate(values)
            }
            for name, values in zip(names, draws.tolist(), strict=True)
        },
        "first_updates": {str(seed): {name: {"x0_std": 0.5} for name in names}},
        "provenance": {},
    }


def make_check(num_rows: int, folder: Path) -> Work:
    """A record against what three seeds of it expect."""
    records = [record_of(num_rows // NUM_COLUMNS, seed) for seed in range(3)]
    expected = read_json(write_expected(records, folder))
    return lambda: against_expected(records[0], expected)


def features_of(num_rows: int) -> NDArray[np.float32]:
    draws = np.random.default_rng(0)
    return draws.normal(size=(num_rows, NUM_FEATURES)).astype(np.float32)


def make_distance(num_rows: int, folder: Path) -> Work:
    """The value alone."""
    features, real = features_of(num_rows), gaussian_of(features_of(5_000) + 0.1)
    return lambda: frechet_distance(real, gaussian_of(features))


def make_interval(num_rows: int, folder: Path) -> Work:
    """With its interval over prompts, as the stage `score` has it."""
    features, drawn = features_of(num_rows), features_of(5_000) + 0.1
    real = RealFeatures(drawn, np.arange(len(drawn)), factored(gaussian_of(drawn)))
    groups = np.array([prompt.prompt_id for prompt in prompts_of(num_rows)]).repeat(2)
    return lambda: DISTANCES["frechet"].interval(features, real, groups, 0)


def make_aggregates(num_rows: int, folder: Path) -> Work:
    """Four metrics over all images and over each prompt set, as the stage `score` does."""
    prompts, draws = prompts_of(num_rows), np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "prompt_id": np.repeat([prompt.prompt_id for prompt in prompts], 2),
            "prompt_set": np.repeat([prompt.prompt_set for prompt in prompts], 2),
            **{metric: draws.random(num_rows) for metric in METRICS},
        }
    )
    measured = Measured(table, {}, {})

    def work() -> None:
        for metric in METRICS:
            for group in ("all", *SETS):
                inside = counted(metric, table, group)
                cell_of(aggregate(metric, measured, inside, None, 0), inside)

    return work


SERIES: Mapping[str, Make] = {
    "report": make_report,
    "check": make_check,
    "Fréchet distance": make_distance,
    "Fréchet distance with interval": make_interval,
    "aggregates": make_aggregates,
}


def seconds_at(make: Make, num_rows: int) -> float:
    """The quickest of some in a second: of one alone where it takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        work = make(num_rows, Path(folder))
        found: list[float] = []
        while sum(found) < 1:
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return min(found)


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Of seconds = c * size ** exponent: the slope between logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def points_of(make: Make, sizes: Sequence[int]) -> list[float]:
    """Seconds at each size, up to the first that takes longer than the limit."""
    found: list[float] = []
    for size in sorted(sizes):
        found.append(seconds_at(make, size))
        if found[-1] > LIMIT:
            break
    return found


def row_of(name: str, sizes: Sequence[int], seconds: Sequence[float]) -> tuple[str, ...]:
    """A line of the table; a dash where nothing was measured or two points are wanting."""
    shown = [f"{value:.3g}" for value in seconds] + ["-"] * (len(sizes) - len(seconds))
    known = sizes[: len(seconds)]
    slopes = [
        f"{exponent(known[first:], seconds[first:]):.2f}" if len(known[first:]) > 1 else "-"
        for first in (0, max(len(known) - 2, 0))
    ]
    return (name, *shown, *slopes)


def results(
    sizes: Sequence[int] = (1_000, 10_000, 100_000), series: Sequence[str] = tuple(SERIES)
) -> Table:
    """Seconds and exponents of each series."""
    sizes = sorted(sizes)
    found = {name: points_of(SERIES[name], sizes) for name in series}
    how = (
        "The quickest of as many as take a second. What does not depend on size flattens the small "
        "end, so that the exponent of the last two points is the one to extrapolate with."
    )
    stopped = [
        f"{name} ended at {sizes[len(points) - 1]:,} rows, which took over {LIMIT:.0f} s."
        for name, points in found.items()
        if points[-1] > LIMIT and len(points) < len(sizes)
    ]
    return Table(
        "Cost grows about as the number of rows does: exponents are at most 1.1.",
        ("seconds for n rows", *(f"{n:,}" for n in sizes), "exponent", "of the last two"),
        [row_of(name, sizes, points) for name, points in found.items()],
        (how, *stopped),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=list(SERIES))
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
