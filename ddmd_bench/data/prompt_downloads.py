"""Files of a published list: from the Hub's cache, from GitHub at one commit, or a local folder.

Those of the Hub are fetched as all that a suite needs of it (`hub.download`), and only read here;
GitHub's, which are small, are fetched where they are read.
"""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from collections.abc import Sequence
from fnmatch import fnmatch
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ddmd_bench.data.hub_tables import FETCH_OR_GIVE
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import content_key
from ddmd_bench.hub import Remote, folder_of

GITHUB = "https://github.com"
TIMEOUT_S = 60


def files_of_hub(remote: Remote) -> tuple[list[Path], str | None]:
    """The files in the order of their names in `remote`, and the commit; a folder here has none."""
    folder = folder_of(remote)
    commit = None if Path(remote.repository).is_dir() else folder.name
    return [folder / name for name in remote.files], commit


def files_of_github(
    repository: str, commit: str, patterns: Sequence[str]
) -> tuple[list[Path], str | None]:
    """The files in the order of the patterns, those of one pattern by name; and the commit.

    Unpacked once, from GitHub's archive of the commit, into the cache of `datasets`; a repository
    that is a folder here is read where it lies, and has no commit.
    """
    if Path(repository).is_dir():
        return _matching(Path(repository), patterns, repository), None
    from datasets import config

    name = f"{repository.replace('/', '+')}-{commit}-{content_key(list(patterns))}"
    folder = Path(config.HF_DATASETS_CACHE) / "github" / name
    if not folder.is_dir():
        _unpack(f"{GITHUB}/{repository}/archive/{commit}.zip", folder, patterns, repository)
    return _matching(folder, patterns, repository), commit


def _matching(folder: Path, patterns: Sequence[str], repository: str) -> list[Path]:
    found = [sorted(folder.glob(pattern)) for pattern in patterns]
    if missing := [p for p, files in zip(patterns, found, strict=True) if not files]:
        raise BenchError(f"{repository}: has no file {', '.join(missing)}")
    return [path for files in found for path in files]


def _unpack(url: str, folder: Path, patterns: Sequence[str], repository: str) -> None:
    """The matching files of an archive, all of them or none; its top folder is left out."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise BenchError(
            f"{repository}: HF_HUB_OFFLINE is set, and it is not in the cache. {FETCH_OR_GIVE}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as temporary:
        archive, unpacked = Path(temporary) / "archive.zip", Path(temporary) / "files"
        try:
            with (
                urllib.request.urlopen(url, timeout=TIMEOUT_S) as reply,
                archive.open("wb") as file,
            ):
                shutil.copyfileobj(reply, file)
        except (OSError, HTTPException) as error:  # urllib's own errors are OSErrors
            raise BenchError(
                f"{repository}: {url} cannot be had: {error}. {FETCH_OR_GIVE}"
            ) from error
        try:
            _extract(archive, unpacked, patterns)
        except zipfile.BadZipFile as error:
            raise BenchError(f"{repository}: {url} is not a zip: {error}") from error
        if not folder.is_dir():  # another process may have been faster
            unpacked.rename(folder)


def _extract(archive: Path, unpacked: Path, patterns: Sequence[str]) -> None:
    unpacked.mkdir()
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            name = PurePosixPath(*PurePosixPath(member.filename).parts[1:])
            wanted = any(fnmatch(str(name), pattern) for pattern in patterns)
            if member.is_dir() or not wanted or ".." in name.parts:
                continue
            target = unpacked / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(members.read(member))
