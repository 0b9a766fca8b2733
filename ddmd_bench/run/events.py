"""What a run tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    """A task has done so many of its units (iterations, images)."""

    task: str
    done: int
    total: int


class Note(NamedTuple):
    """A task fails, or does something otherwise than it was asked to, in words."""

    task: str
    text: str


class Standing(NamedTuple):
    """The run as a whole: tasks that run and wait, and the time that all of them still take."""

    running: int
    waiting: int
    left_s: float | None  # None: not known yet
    at_least: bool  # whether some of what waits has no known pace


OnEvent = Callable[[Event | Note | Standing], None]
