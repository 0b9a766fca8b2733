"""Progress: bars with the time left in a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ddmd_bench.reporting.escaping import one_line
from ddmd_bench.run.events import Event, Note, OnEvent, Standing

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LINE_EVERY_S = 20


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table as lines, columns under each other; none is folded, however narrow the terminal."""
    lines = [[one_line(cell) for cell in line] for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(map(str.ljust, line, widths)).rstrip()


@contextmanager
def progress_shown(console: Console) -> Iterator[OnEvent]:
    """A handler of events that fits where the output goes."""
    if not console.is_terminal:
        yield _plain(console)
        return
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),  # all of a line, the time left too, fits in 80 columns
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress, standing = Progress(*columns, console=console), Text()

    def renderable() -> RenderableType:
        return Group(progress, standing) if standing.plain else progress

    with Live(get_renderable=renderable, console=console) as live:
        bars: dict[str, TaskID] = {}

        def on_event(event: Event | Note | Standing) -> None:
            if isinstance(event, Standing):
                standing.plain = standing_line(event)
                return
            if isinstance(event, Note):
                live.console.print(f"{event.task}: {event.text}")
                return
            if event.task not in bars:
                bars[event.task] = progress.add_task(event.task, total=event.total)
            progress.update(bars[event.task], completed=event.done, total=event.total)
            if event.done >= event.total:
                # A line instead of its bar: a suite has more tasks than a terminal has rows.
                progress.remove_task(bars.pop(event.task))
                live.console.print(f"{event.task}: {event.done}/{event.total}")

        yield on_event


def standing_line(standing: Standing) -> str:
    """How much of a run is under way, waits, and how long all of it still takes."""
    running, waiting, left_s, at_least = standing
    if not running:
        return ""
    left = ""
    if left_s is not None:
        left = f", {'at least' if at_least else 'about'} {_clock(left_s)} left in all"
    return f"{running} under way, {waiting} to come{left}"


def _plain(console: Console) -> OnEvent:
    began: dict[str, tuple[float, int]] = {}
    said: dict[str, float] = {}

    def on_event(event: Event | Note | Standing) -> None:
        now = time.monotonic()
        if isinstance(event, Note):
            console.print(f"{event.task}: {event.text}")
            return
        if isinstance(event, Standing):
            line = standing_line(event)
            if line and now - said.setdefault("", now) >= LINE_EVERY_S:
                said[""] = now
                console.print(line)
            return
        start, first = began.setdefault(event.task, (now, event.done))
        finished = event.done >= event.total
        if not finished and now - said.get(event.task, start) < LINE_EVERY_S:
            return
        said[event.task] = now
        elapsed, units = now - start, event.done - first
        each = elapsed / units if units else 0.0
        left = (
            f", {_clock(each * (event.total - event.done))} left" if each and not finished else ""
        )
        console.print(f"{event.task}: {event.done}/{event.total}{left}")

    return on_event


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
