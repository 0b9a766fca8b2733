"""Progress: bars with the time left in a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from ddmd_bench.run import Event, OnEvent

LINE_EVERY_S = 20


@contextmanager
def progress_shown(console: Console) -> Iterator[OnEvent]:
    """A handler of events that fits where the output goes."""
    if not console.is_terminal:
        yield _plain(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # all of a line, the time left too, fits in 80 columns
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars: dict[str, TaskID] = {}

        def on_event(event: Event) -> None:
            if event.task not in bars:
                bars[event.task] = progress.add_task(event.task, total=event.total)
            progress.update(bars[event.task], completed=event.done, total=event.total)
            if event.done >= event.total:
                # A line instead of its bar: a suite has more tasks than a terminal has rows.
                progress.remove_task(bars.pop(event.task))
                progress.console.print(f"{event.task}: {event.done}/{event.total}", highlight=False)

        yield on_event


def _plain(console: Console) -> OnEvent:
    began: dict[str, tuple[float, int]] = {}
    said: dict[str, float] = {}

    def on_event(event: Event) -> None:
        now = time.monotonic()
        start, first = began.setdefault(event.task, (now, event.done))
        finished = event.done >= event.total
        if not finished and now - said.get(event.task, start) < LINE_EVERY_S:
            return
        said[event.task] = now
        elapsed, units = now - start, event.done - first
        left = "" if finished or not units else _duration(elapsed / units, event)
        console.print(f"{event.task}: {event.done}/{event.total}{left}", highlight=False)

    return on_event


def _duration(seconds_each: float, event: Event) -> str:
    left = round(seconds_each * (event.total - event.done))
    return f", {left // 60}:{left % 60:02d} left"
