"""One process at a time in a folder: a lock that ends with its holder, however that ends.

The kernel holds it (flock), so that a process that was killed leaves none behind; beside it stands
who holds it. On a network file system this needs one that hands locks on, as NFS since version 4,
and Lustre mounted with `flock`; one that has no locks is refused.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files import ranks
from ddmd_bench.files.records import read_record, remove_cut, write_json

LOCK = "lock"
# Waiting for another to encode some prompts ends soon; one that takes hours is not asked for all
# the time, which a network file system would feel.
SOON_S, OFTEN_S, SELDOM_S = 1.0, 0.005, 0.25
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
HOLDER = {"host": str, "process": int, "command": str, "since": str}


@contextmanager
def locked(folder: Path, remedy: str = "") -> Iterator[None]:
    """Hold the folder's lock, when it is free; with a remedy, now or an error that ends with it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{LOCK}.json"
    # Not the soft lock, a mere file, where the kernel has none: it stays when its holder is killed.
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    with _refusing_no_locks(folder):
        try:
            lock.acquire(0 if remedy else SOON_S, OFTEN_S)
        except Timeout:
            if remedy:
                raise BenchError(f"{folder} is in use by {_shown(holder)}. {remedy}") from None
            lock.acquire(-1, SELDOM_S)
    try:
        remove_cut(folder)
        write_json(holder, _this_process())
        yield
    finally:
        with suppress(OSError):  # a note that stays says nothing: the kernel's lock does
            holder.unlink()
        lock.release()


@contextmanager
def locked_together(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, all ranks as one: the first has it before any begins, until all end.

    What one raises inside, all raise.
    """
    with ExitStack() as held:
        with ranks.together():
            if ranks.is_first():
                held.enter_context(locked(folder))
        with ranks.together():
            yield


@contextmanager
def _refusing_no_locks(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise BenchError(
            f"{folder}: no locks on this file system ({error.strerror}), so that two processes "
            "could write there at once. Mount it with them (Lustre: -o flock; NFS: version 4), or "
            "take another folder: --runs, or XDG_CACHE_HOME for the cache"
        ) from error


def _this_process() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _shown(holder: Path) -> str:
    with suppress(Unreadable):  # it has just come or gone
        found = read_record(holder, HOLDER)
        return (
            f"process {found['process']} on {found['host']} since {found['since']} "
            f"({found['command']})"
        )
    return "another process"
