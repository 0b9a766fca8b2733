"""sha256 of files that are too large to be read again each time: remembered by size and times."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddmd_bench.files.records import file_sha256, read_json, write_json

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


def _memory() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "ddmd_bench" / "sha256.json"


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


def content_sha256(path: Path) -> str:
    """sha256 of a file's bytes; read once, and again only after the file has changed."""
    path = path.resolve()
    stamp = _stamp(path)  # before reading: a change meanwhile gives another stamp
    match _remembered().get(str(path)):
        case [size, mtime_ns, ctime_ns, str(sha256)] if [size, mtime_ns, ctime_ns] == stamp:
            return sha256
    sha256 = file_sha256(path)
    _remember(path, stamp, sha256)
    return sha256


def remember_sha256(path: Path, sha256: str) -> None:
    """Note the sha256 of a file that has just been hashed under another name."""
    path = path.resolve()
    _remember(path, _stamp(path), sha256)


def _remember(path: Path, stamp: list[int], sha256: str) -> None:
    known = {name: row for name, row in _remembered().items() if Path(name).exists()}
    with suppress(OSError):  # a home that cannot be written costs time, not results
        write_json(_memory(), {**known, str(path): [*stamp, sha256]})


def blob_of(path: Path) -> Path | None:
    """The blob behind a file of the Hub's cache, named by its sha256 or by git's hash of it."""
    if not path.is_symlink():
        return None
    # One link only: the blob may itself be a link into a store with names of another kind.
    blob = Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    repository = blob.parent.parent.name
    in_cache = blob.parent.name == "blobs" and repository.startswith(("models--", "datasets--"))
    return blob if in_cache else None


def known_sha256(path: Path) -> str:
    """sha256 of a file: the name of its blob in the Hub's cache where it is one, else hashed."""
    blob = blob_of(path)
    return blob.name if blob and _SHA256.fullmatch(blob.name) else content_sha256(path)


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
