"""Where the files of a published model are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.records import content_key, file_sha256


@dataclass(frozen=True)
class Remote:
    """Files of a repository."""

    repository: str
    revision: str | None = None
    files: tuple[str, ...] = ("*",)
    kind: str = "model"
    what: str = ""


def folder_of(remote: Remote) -> Path:
    """The folder that holds the files."""
    folder = Path(remote.repository)
    if not folder.is_dir():
        raise BenchError(f"{remote.what} {folder}: no such folder")
    return folder


def identity(remote: Remote) -> str:
    """A hash over the files."""
    folder = folder_of(remote)
    files = [file for pattern in remote.files for file in sorted(folder.glob(pattern))]
    return content_key([[str(file.relative_to(folder)), file_sha256(file)] for file in files])
