"""fetch: everything that a suite needs from elsewhere, or the scorers of some metrics alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ddmd_bench.commands.display import shown
from ddmd_bench.commands.options import console, raise_problems
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import Remote
from ddmd_bench.planning.downloads import download_lines, fetch, fetch_weights, weights_lines
from ddmd_bench.planning.plan import draw_data, suite_remotes
from ddmd_bench.run import Event
from ddmd_bench.scorers import scorer_remotes, scorer_weights
from ddmd_bench.scorers.weights import Weights
from ddmd_bench.suite.schema import Suite

OnItem = Callable[[int, int], None]


def fetch_suite(suite: Suite, runs: Path) -> None:
    """All that a suite needs, prompts and training data among it."""

    def draw(on_item: OnItem) -> None:
        draw_data(suite, runs, on_item)

    _fetch(suite_remotes(suite), scorer_weights(suite.all_metrics), draw)


def fetch_metrics(metrics: Sequence[str]) -> None:
    """The weights of the metrics' scorers."""
    _fetch(scorer_remotes(metrics), scorer_weights(metrics), lambda on_item: None)


def _fetch(
    remotes: Sequence[Remote], weights: Sequence[Weights], draw: Callable[[OnItem], None]
) -> None:
    """Download as much as can be had; raise what went wrong, or say what is here."""
    problems = list[str]()
    with shown(console) as on_event:

        def on_download(remote: Remote, done: int, total: int) -> None:
            here = Event(f"{remote.what} of {remote.place}, MB", done // 10**6, total // 10**6)
            on_event(here)

        def on_weights(one: Weights, done: int, total: int) -> None:
            on_event(Event(f"{one.what}, MB", done // 10**6, total // 10**6))

        def on_item(done: int, total: int) -> None:
            on_event(Event("training data", done, total))

        for part in (
            partial(fetch, remotes, on_download),
            partial(fetch_weights, weights, on_weights),
            partial(draw, on_item),
        ):
            try:  # what can be had is fetched, whatever else cannot
                part()
            except BenchError as error:
                problems.append(str(error))
    raise_problems(problems)
    lines = download_lines(remotes) + weights_lines(weights)
    for line in lines or ["nothing to download"]:
        console.print(line, markup=False, highlight=False)
