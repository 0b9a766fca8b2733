"""A process that is asked to end (SIGTERM, as Slurm and `kill` send it): at once, or when it may.

with stops_when_it_may() as asked:
    for ...: step(); if asked(): save(); raise Stopped
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_CODE = 128 + signal.SIGTERM


class Stopped(BaseException):
    """The process was asked to end; no failure of what it was doing."""


class _Request:
    asked = False
    waits = False  # until the work says that it may


def obey() -> None:
    """From now on end at SIGTERM by `Stopped`, in whatever the process is doing."""
    signal.signal(signal.SIGTERM, _on_signal)


def obey_interrupt() -> None:
    """The same at SIGINT, which Ctrl-C sends and a launcher hands on."""
    signal.signal(signal.SIGINT, _on_signal)


def _on_signal(*_: Any) -> None:
    again, _Request.asked = _Request.asked, True
    if not (_Request.waits or again):
        raise Stopped


@contextmanager
def stops_when_it_may() -> Iterator[Callable[[], bool]]:
    """Inside nothing is cut off: the work asks whether to end, and ends itself."""
    _Request.waits = True
    try:
        yield lambda: _Request.asked
    finally:
        _Request.waits = False
