"""push and pull: a run on other storage, as far as it is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddmd_bench.commands.display import progress_shown
from ddmd_bench.commands.options import Overrides, Runs, SuiteName, console
from ddmd_bench.errors import BenchError
from ddmd_bench.files.elsewhere import Tell, is_elsewhere, pulled, pushed
from ddmd_bench.files.locks import locked
from ddmd_bench.run import progress
from ddmd_bench.run.events import Event, OnEvent

Url = Annotated[str, typer.Argument(help="Of what holds runs there: s3://lab/runs.")]
_IN_USE = "Wait for it, end it, or take another folder: --runs"


def push(suite: SuiteName, url: Url, set_: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Copy a suite's run to other storage, where report, check and verify read it: --runs URL.

    Files that are there already are not sent again. A run that is under way may be pushed.
    """
    name = _name(suite, set_, url)
    if not (runs / name).is_dir():
        raise BenchError(f"{runs / name}: no run of this suite is there. Name the folder: --runs")
    with progress_shown(console) as on_event:
        tell = _told(on_event, f"push {name}, MB")
        # Of a run that goes on here alone: `watch` there would wait for it.
        sent = pushed(runs / name, _below(url, name), tell, but=(progress.FILE,))
    console.print(f"pushed: {_below(url, name)}, {sent} files that were not there")


def pull(suite: SuiteName, url: Url, set_: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Copy a suite's run from other storage into the folder of runs, to go on with it.

    Files that others made there, or that were worked on since they were pulled, stay as they are.
    """
    name = _name(suite, set_, url)
    with locked(runs / name, _IN_USE), progress_shown(console) as on_event:
        pulled(_below(url, name), runs, _told(on_event, f"pull {name}, MB"))
    console.print(f"pulled: {runs / name}")


def _name(suite: str, overrides: list[str] | None, url: str) -> str:
    from ddmd_bench.suite.files import load_suite

    if not is_elsewhere(url):
        raise BenchError(f"{url}: expected a URL, as s3://lab/runs or file:///mnt/lab/runs")
    return load_suite(suite, overrides or []).name


def _below(url: str, name: str) -> str:
    return f"{url.rstrip('/')}/{name}"


def _told(on_event: OnEvent, what: str) -> Tell:
    def tell(done: int, total: int) -> None:
        on_event(Event(what, done // 10**6, max(1, total // 10**6)))

    return tell
