"""Files of a published list: from the Hub, from GitHub at one commit, or from a local folder."""

from __future__ import annotations

import shutil
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from ddmd_bench.data_files import FETCH, problems
from ddmd_bench.errors import BenchError
from ddmd_bench.records import content_key

GITHUB = "https://github.com"
TIMEOUT_S = 60
# Repository, revision and the files' names or patterns -> where they lie, and the commit.
Host = Callable[[str, str | None, Sequence[str]], tuple[list[Path], str]]


def files_of(
    host: str, repository: str, revision: str | None, patterns: Sequence[str]
) -> tuple[list[Path], str | None]:
    """The files in the order of the patterns, those of one pattern by name; and the commit.

    A repository that is a folder here is read where it lies, and has no commit. Only GitHub's
    have patterns; a file of the Hub has its whole name.
    """
    if Path(repository).is_dir():
        return _matching(Path(repository), patterns, repository), None
    return HOSTS[host](repository, revision, patterns)


def _matching(folder: Path, patterns: Sequence[str], repository: str) -> list[Path]:
    found = [sorted(folder.glob(pattern)) for pattern in patterns]
    if missing := [p for p, files in zip(patterns, found, strict=True) if not files]:
        raise BenchError(f"{repository}: has no file {', '.join(missing)}")
    return [path for files in found for path in files]


def _hub(repo_type: str) -> Host:
    def download(
        repository: str, revision: str | None, names: Sequence[str]
    ) -> tuple[list[Path], str]:
        from huggingface_hub import hf_hub_download

        paths: list[Path] = []
        for name in names:
            with problems(f"{repository}: {name}"):
                path = hf_hub_download(repository, name, repo_type=repo_type, revision=revision)
            paths.append(Path(path))
            parts = paths[-1].parts
            revision = parts[parts.index("snapshots") + 1]  # the others at the same commit
        assert revision is not None, f"{repository}: a row names its files"
        return paths, revision

    return download


def _github(
    repository: str, revision: str | None, patterns: Sequence[str]
) -> tuple[list[Path], str]:
    """Unpacked once, from GitHub's archive of the commit, into the cache of `datasets`."""
    from datasets import config

    assert revision is not None, f"{repository}: a row on GitHub names its commit"
    name = f"{repository.replace('/', '+')}-{revision}-{content_key(list(patterns))}"
    folder = Path(config.HF_DATASETS_CACHE) / "github" / name
    if not folder.is_dir():
        _unpack(f"{GITHUB}/{repository}/archive/{revision}.zip", folder, patterns, repository)
    return _matching(folder, patterns, repository), revision


def _unpack(url: str, folder: Path, patterns: Sequence[str], repository: str) -> None:
    """The matching files of an archive, all of them or none; its top folder is left out."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise BenchError(
            f"{repository}: HF_HUB_OFFLINE is set, and it is not in the cache. {FETCH}"
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
            raise BenchError(f"{repository}: {url} cannot be had: {error}. {FETCH}") from error
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


HOSTS: dict[str, Host] = {
    "dataset": _hub("dataset"),
    "model": _hub("model"),
    "github": _github,
}
