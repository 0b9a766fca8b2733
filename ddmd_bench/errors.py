"""The one error that a user can act on, and sentences: what an error says, a name not known."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class BenchError(Exception):
    """Bad input or a run that cannot go on, said in words for the person at the keyboard."""


class NotRun(BenchError):
    """What is asked about was not run, or not to its end: there is nothing to judge yet."""


class Unreadable(BenchError, ValueError):
    """A file that is cut, or none of its kind; where it may be, it is caught as a ValueError."""


LONGEST = 300  # characters of what a library says


# What its user can do about a file that cannot be written or read.
_ROOM = "Make room there"
_RIGHTS = "Let this user write there, or name another folder"
_OTHER = "Name another, or move away what is in its place"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EROFS: _RIGHTS,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOTDIR: _OTHER,
    errno.EISDIR: _OTHER,
    errno.EEXIST: _OTHER,
    errno.ENOTEMPTY: _OTHER,
    errno.ELOOP: _OTHER,
    errno.ENAMETOOLONG: "Take a shorter name",
    errno.ENOENT: "See that nothing else removes or renames files there",
    errno.EIO: "See what the system's log says of its disk",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "Raise the limit on open files (ulimit -n)",
}


@contextmanager
def files_told() -> Iterator[None]:
    """What a file could not be written or read for is a BenchError that says how to go on.

    An OSError of another kind (a connection, a pipe) stays what it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in REMEDIES or isinstance(error, BenchError):
            raise
        place = error.filename2 or error.filename or "a file"
        place = place.decode(errors="backslashreplace") if isinstance(place, bytes) else place
        raise BenchError(
            f"{place}: {error.strerror}. {REMEDIES[error.errno]}, and run again: what is complete "
            "is kept"
        ) from error


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
