"""How far a run is, for whoever looks from outside: a file in its folder, anew every 2 seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.records import read_record, write_json
from ddmd_bench.run.events import Event, Note, OnEvent, Standing

FILE, EVERY_S = "progress.json", 2.0
FORM = {"at": float, "tasks": {...: [int]}, "standing": [(*MAYBE_NUMBER, bool)]}


@contextmanager
def told_beside(folder: Path, on_event: OnEvent) -> Iterator[OnEvent]:
    """A handler that also keeps what it is told in a file, which goes when the run ends."""
    path, last = folder / FILE, 0.0
    tasks: dict[str, list[int]] = {}
    standing: list[Any] = []

    def told(event: Event | Note | Standing) -> None:
        nonlocal last
        on_event(event)
        if isinstance(event, Standing):
            standing[:] = event
        elif isinstance(event, Event) and event.done < event.total:
            tasks[event.task] = [event.done, event.total]
        else:
            tasks.pop(event.task, None)
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            with suppress(OSError):  # nobody's result hangs on it
                write_json(path, {"at": time.time(), "tasks": tasks, "standing": standing})

    try:
        yield told
    finally:
        with suppress(OSError):
            path.unlink()


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What a run has told last; None where none is under way."""
    with suppress(Unreadable):  # it has just gone
        if (folder / FILE).is_file():
            found: dict[str, Any] = read_record(folder / FILE, FORM)
            return found
    return None
