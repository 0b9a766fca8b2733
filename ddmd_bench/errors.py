"""The one error that a user can act on, and the sentence for a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Bad input or a run that cannot go on, said in words for the person at the keyboard."""


def unknown(what: str, found: str, known: Iterable[str]) -> str:
    """A sentence for a name that is not known: lists the known ones and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(found, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {found!r}. Known: {', '.join(known)}.{hint}"
