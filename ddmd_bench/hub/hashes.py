"""sha256 of files that are too large to be read again each time: remembered by size and times."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from ddmd_bench.files.records import file_sha256
from ddmd_bench.files.remembered import remember, remembered

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
_MEMORY = "sha256"


def contents_sha256(paths: Iterable[Path]) -> dict[Path, str]:
    """sha256 of files' bytes; each is read once, and again only after it has changed."""
    return remembered(_MEMORY, paths, lambda path: file_sha256(path))


def content_sha256(path: Path) -> str:
    """The same of one file."""
    return contents_sha256([path])[path]


def remember_sha256(path: Path, sha256: str) -> None:
    """Note the sha256 of a file that has just been hashed under another name."""
    remember(_MEMORY, path, sha256)


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
