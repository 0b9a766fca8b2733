"""The one error that a user can act on, and sentences: what an error says, a name not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Bad input or a run that cannot go on, said in words for the person at the keyboard."""


class NotRun(BenchError):
    """What is asked about was not run, or not to its end: there is nothing to judge yet."""


class Unreadable(BenchError, ValueError):
    """A file that is cut, or none of its kind; where it may be, it is caught as a ValueError."""


LONGEST = 300  # characters of what a library says


def said_by(error: BaseException) -> str:
    """What an error says in one line, whatever it is: ours as it is, others with their type."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - anything may stand in a library's own error
        text = "its message cannot be read"
    # A path may hold bytes that are no text.
    text = " ".join(text.encode("utf-8", "backslashreplace").decode().split())
    if isinstance(error, BenchError):
        return text
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return f"{type(error).__name__}: {cut or 'no message'}"


def unknown(what: str, found: str, known: Iterable[str]) -> str:
    """A sentence for a name that is not known: lists the known ones and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {found!r}. Known: {', '.join(known)}.{hint}"
