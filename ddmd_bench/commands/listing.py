"""list: what a suite file can name, each with what it is or needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from ddmd_bench.commands.display import aligned
from ddmd_bench.commands.options import console
from ddmd_bench.errors import BenchError, unknown

Rows = Iterator[tuple[str, ...]]


def _suites() -> Rows:
    from ddmd_bench.suite.files import carried_suites, load_suite

    yield "suite", "students", "prompts", "title"
    for name in sorted(carried_suites()):
        suite = load_suite(name)
        asked = sum(one.num_prompts for one in suite.prompts.values())
        yield name, str(len(suite.students)), f"{asked:,}", suite.title


def _metrics() -> Rows:
    from ddmd_bench.scorers import METRICS, needs_of

    yield "metric", "better", "needs", "title"
    for name, row in METRICS.items():
        needs = needs_of(name)
        yield name, row.better, ", ".join(needs) or "pixels alone", row.title


def _methods() -> Rows:
    from ddmd_bench.objective.methods import METHODS

    yield "method", "CA re-noises", "DM re-noises", "beside them", "title"
    for name, row in METHODS.items():
        given = {"mean and variance": row.mean_variance, "GAN": row.gan}
        beside = [word for word, there in given.items() if there]
        shared = "with CA's draw" if row.shared_draw else row.tau_dm or "-"
        yield name, row.tau_ca or "-", shared, ", ".join(beside) or "-", row.title


LISTS: dict[str, Callable[[], Rows]] = {
    "suites": _suites,
    "metrics": _metrics,
    "methods": _methods,
}


def list_(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(LISTS)}.")] = "suites",
) -> None:
    """Print what a suite file can name; `published` prints the students that others have made."""
    if what not in LISTS:
        raise BenchError(unknown("list", what, LISTS))
    header, *rows = LISTS[what]()
    for line in aligned(header, rows):
        console.print(line)
