"""How often `check` is wrong: false alarms with nothing changed, and losses that it does not see.

    python -m benchmarks.gate [--suites 1000]

Made-up suites of nine trained students and eight metrics, held against expected values of some
seeds. A loss is one student's, on one metric, in standard deviations of that student's values over
seeds. `their seeds` is a run at a seed of the expectation whose trainings took another course by
rounding, which moves values by half of what a seed does; the other runs are at a further seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import Table, as_text
from ddmd_bench.files.records import SCHEMA
from ddmd_bench.reporting.drift import FALSE_ALARMS, against_expected
from ddmd_bench.reporting.expected import expectation
from ddmd_bench.stats.ends import Array

STUDENTS = [f"student_{k}" for k in range(9)]
METRICS = ("hps_v21", "hps_v20", "pick_score", "aesthetic", "image_reward", "mean", "std", "hps_v3")
LOSSES = (3, 5, 8)
SPREAD = 0.01  # of values about 1: a fifth of it is what rounding may do


class World(NamedTuple):
    """What made-up values are like."""

    name: str
    num_seeds: int = 3
    shared: float = 0.0  # share of the variance that a seed moves all students by
    uneven: float = 0.0  # standard deviation of the logarithm of the students' spreads
    heavy: bool = False  # Student's t of 5 degrees of freedom instead of normal
    groups: int = 0  # students that are nearly copies of so many others
    their_seeds: bool = False


WORLDS = (
    World("normal, independent"),
    World("normal, four fifths shared", shared=0.8),
    World("normal, copies of three", groups=3),
    World("spreads uneven (x 1.6)", uneven=0.5),
    World("heavy tails (t of 5)", heavy=True),
    World("normal, shared, 5 seeds", num_seeds=5, shared=0.8),
    World("normal, independent, 5 seeds", num_seeds=5),
    World("normal, independent, 10 seeds", num_seeds=10),
    World("normal, their seeds", their_seeds=True),
)


def record_of(values: Array, seeds: list[int]) -> dict[str, Any]:
    """A report's record of values [metrics, students, seeds]."""

    def cells(row: Array) -> dict[str, Any]:
        pairs = zip(seeds, row.tolist(), strict=True)
        return {"all": {"by_seed": {str(s): {"value": v, "n": 100} for s, v in pairs}}}

    return {
        "schema": SCHEMA,
        "fingerprint": "",
        "protocol": {},
        "provenance": {},
        "suite": {
            "name": "made_up",
            "seeds": seeds,
            "students": {name: {"source": "train"} for name in STUDENTS},
        },
        "table": {
            name: {m: cells(values[k, g]) for k, m in enumerate(METRICS)}
            for g, name in enumerate(STUDENTS)
        },
        "first_updates": {str(seed): {} for seed in seeds},
    }


def drawn(world: World, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Known deviations [metrics, students, seeds], a further run's and the spreads [..., 1]."""
    num, size = len(METRICS), len(STUDENTS)
    spreads = np.exp(world.uneven * generator.normal(size=(num, size, 1)))

    def deviations(columns: int) -> Array:
        def one(rows: int) -> Array:
            if world.heavy:
                found = generator.standard_t(5, size=(num, rows, columns)) / np.sqrt(5 / 3)
            else:
                found = generator.normal(size=(num, rows, columns))
            return np.asarray(found)

        own = one(size)
        if world.groups:
            own = 0.2 * own + np.sqrt(0.96) * np.tile(one(world.groups), (1, size, 1))[:, :size]
        mixed = np.sqrt(world.shared) * one(1) + np.sqrt(1 - world.shared) * own
        return np.asarray(spreads * mixed)

    known = deviations(world.num_seeds)
    further = deviations(1)
    if world.their_seeds:
        further = known[..., :1] + 0.5 * further
    return known, further, spreads


def wrong(
    world: World, num_suites: int, losses: Sequence[float] = LOSSES
) -> tuple[float, list[float]]:
    """Share of suites with a false alarm, and for each loss the share that is seen."""
    generator = np.random.default_rng(num_suites)
    alarms, seen = 0, np.zeros(len(losses))
    for _ in range(num_suites):
        known, further, spreads = drawn(world, generator)
        expected = expectation([record_of(1 + SPREAD * known, [*range(world.num_seeds)])])
        at = [0 if world.their_seeds else world.num_seeds]
        alarms += _status(further, at, expected)
        for k, loss in enumerate(losses):
            lost = further.copy()
            lost[0, 0] -= loss * spreads[0, 0]
            seen[k] += _status(lost, at, expected, f"{STUDENTS[0]}, ")
    return alarms / num_suites, (seen / num_suites).tolist()


def _status(further: Array, at: list[int], expected: dict[str, Any], name: str = "") -> bool:
    """Whether anything whose name begins so failed."""
    found = against_expected(record_of(1 + SPREAD * further, at), expected)
    return any(one.name.startswith(name) for one in found.failed)


def _rows(num_suites: int) -> Iterator[tuple[str, ...]]:
    for world in WORLDS:
        alarms, seen = wrong(world, num_suites)
        yield world.name, *(f"{share:.1%}" for share in (alarms, *seen))


def results(num_suites: int = 100) -> Table:
    """The short form: a hundred suites, shares of which are known within some points."""
    return Table(
        f"At a further seed `check` means to give a false alarm in {FALSE_ALARMS:.0%} of suites.",
        ("values", "false alarms", *(f"loss of {loss} seen" for loss in LOSSES)),
        [*_rows(num_suites)],
        (f"{num_suites} suites a row.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suites", type=int, default=1000)
    print(as_text(results(parser.parse_args().suites)))


if __name__ == "__main__":
    main()
