"""fetch: everything that a suite needs from elsewhere, or the scorers of some metrics alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import (
    LEAVE_OUT,
    Overrides,
    Runs,
    console,
    raise_problems,
    refuse_given,
    split_names,
)
from ddmd_bench.errors import BenchError
from ddmd_bench.run.events import Event

if TYPE_CHECKING:
    from ddmd_bench.hub import Remote
    from ddmd_bench.planning.part import Downloads
    from ddmd_bench.scorers.weights import Weights

OnItem = Callable[[int, int], None]


def fetch(
    ctx: typer.Context,
    suite: Annotated[str | None, typer.Argument(help="As for run.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Instead of a suite: weights for hps_v21,fid ...")
    ] = None,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Download and verify all that a suite needs, or the scorers of metrics, to go on offline."""
    if (suite is None) == (metrics is None):
        raise BenchError("fetch: give a suite, or --metrics")
    if metrics is not None:
        fact = "--metrics brings the weights of scorers, and reads no suite"
        refuse_given(ctx, fact, dict.fromkeys(("--set", "--runs"), LEAVE_OUT))
    from ddmd_bench.planning.part import Downloads
    from ddmd_bench.planning.plan import collect_data, suite_downloads
    from ddmd_bench.scorers import scorer_remotes, scorer_weights
    from ddmd_bench.suite.files import load_suite

    if suite is not None:
        loaded = load_suite(suite, set_ or [])
        _fetch(suite_downloads(loaded), partial(collect_data, loaded, runs))
    else:
        names = split_names(metrics or [])
        downloads = Downloads(tuple(scorer_remotes(names)), tuple(scorer_weights(names)))
        _fetch(downloads, lambda on_item: None)


def _fetch(downloads: Downloads, collect: Callable[[OnItem], None]) -> None:
    """Download as much as can be had; raise what went wrong, or say what is here."""
    from ddmd_bench.planning.downloads import (
        download_lines,
        fetch_remotes,
        fetch_weights,
        weights_lines,
    )

    problems = list[str]()
    with progress_shown(console) as on_event:

        def on_download(remote: Remote, done: int, total: int) -> None:
            here = Event(f"{remote.what} of {remote.place}, MB", done // 10**6, total // 10**6)
            on_event(here)

        def on_weights(one: Weights, done: int, total: int) -> None:
            on_event(Event(f"{one.what}, MB", done // 10**6, total // 10**6))

        def on_item(done: int, total: int) -> None:
            on_event(Event("training data", done, total))

        for part in (
            partial(fetch_remotes, downloads.remotes, on_download),
            partial(fetch_weights, downloads.weights, on_weights),
            partial(collect, on_item),
        ):
            try:  # what can be had is fetched, whatever else cannot
                part()
            except BenchError as error:
                problems.append(str(error))
    raise_problems(problems)
    lines = download_lines(downloads.remotes) + weights_lines(downloads.weights)
    for line in lines or ["nothing to download"]:
        console.print(line)
