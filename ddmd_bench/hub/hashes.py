"""sha256 of files that are too large to be read again each time: remembered by size and times."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddmd_bench.files.records import cache_folder, file_sha256, read_json, write_json

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
SAVE_EVERY_S = 30  # of hashing that a process may lose


def _memory() -> Path:
    return cache_folder() / "sha256.json"


def _remembered() -> dict[str, list[Any]]:
    try:
        known = read_json(_memory())
    except (OSError, ValueError):  # none yet, not readable, or not JSON: hash again
        return {}
    return known if isinstance(known, dict) else {}


def _stamp(path: Path) -> list[int]:
    # ctime too: no copying tool can set it back, as it can set mtime.
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def contents_sha256(paths: Iterable[Path]) -> dict[Path, str]:
    """sha256 of files' bytes; each is read once, and again only after it has changed.

    The memory is read once for all, and written now and then: 10,000 files of a folder cost what
    hashing them costs.
    """
    remembered, found = _remembered(), {}
    new: dict[str, list[Any]] = {}
    saved = time.monotonic()
    for given in paths:
        path = given.resolve()
        stamp = _stamp(path)  # before reading: a change meanwhile gives another stamp
        match remembered.get(str(path)):
            case [size, mtime_ns, ctime_ns, str(sha256)] if [size, mtime_ns, ctime_ns] == stamp:
                found[given] = sha256
            case _:
                found[given] = file_sha256(path)
                new[str(path)] = [*stamp, found[given]]
        if new and time.monotonic() - saved > SAVE_EVERY_S:
            _remember(new)
            new, saved = {}, time.monotonic()
    if new:
        _remember(new)
    return found


def content_sha256(path: Path) -> str:
    """The same of one file."""
    return contents_sha256([path])[path]


def remember_sha256(path: Path, sha256: str) -> None:
    """Note the sha256 of a file that has just been hashed under another name."""
    path = path.resolve()
    _remember({str(path): [*_stamp(path), sha256]})


def _remember(new: dict[str, list[Any]]) -> None:
    # Read again: another process may have written since.
    known = {name: row for name, row in _remembered().items() if Path(name).exists()}
    with suppress(OSError):  # a home that cannot be written costs time, not results
        write_json(_memory(), {**known, **new})


def blob_of(path: Path) -> Path | None:
    """The blob behind a file of the Hub's cache, named by its sha256 or by git's hash of it."""
    if not path.is_symlink():
        return None
    # One link only: the blob may itself be a link into a store with names of another kind.
    blob = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    repository = blob.parent.parent.name
    in_cache = blob.parent.name == "blobs" and repository.startswith(("models--", "datasets--"))
    return blob if in_cache else None


def known_sha256s(paths: Collection[Path]) -> dict[Path, str]:
    """sha256 of files: the name of its blob where one is in the Hub's cache, else hashed."""
    blobs = {path: blob.name for path in paths if (blob := blob_of(path))}
    named = {path: name for path, name in blobs.items() if _SHA256.fullmatch(name)}
    return named | contents_sha256(path for path in paths if path not in named)


def known_sha256(path: Path) -> str:
    """The same of one file."""
    return known_sha256s([path])[path]


def is_corrupted(path: Path) -> bool:
    """Whether a file of the Hub's cache has other bytes than its blob's name says.

    False where the name says nothing: in a cache without symbolic links.
    """
    blob = blob_of(path)
    name = blob.name if blob else ""
    if _SHA256.fullmatch(name):
        return content_sha256(path) != name
    if _GIT_SHA1.fullmatch(name):
        data = path.read_bytes()
        header = b"blob %d\0" % len(data)
        return hashlib.sha1(header + data, usedforsecurity=False).hexdigest() != name
    return False
