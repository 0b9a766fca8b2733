"""Where a command is to write: told apart before any work that would be lost."""

from __future__ import annotations

from pathlib import Path

from ddmd_bench.errors import BenchError


def require_folder(path: Path, what: str) -> None:
    """A folder, there or not: neither it nor one above it is a file."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise BenchError(f"{what} {path}: {place} is a file; name a folder")


def require_file(path: Path, what: str) -> None:
    """A file, there or not, in a folder, there or not."""
    if path.is_dir():
        raise BenchError(f"{what} {path}: is a folder; name a file")
    require_folder(path.parent, what)


def own_place(folder: Path) -> Path:
    """A folder's path from the working folder, or from the root if it is not below that.

    Two folders have two: `modelA/images` and `modelB/images` are no one's `images`.
    """
    whole, here = folder.resolve(), Path.cwd().resolve()
    if whole == here:
        return Path(whole.name)
    return whole.relative_to(here if whole.is_relative_to(here) else whole.anchor)
