"""Everything that a suite needs from elsewhere, fetched or described as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.hub import Look, Remote, download, look
from ddmd_bench.hub.cache import hub_cache
from ddmd_bench.hub.urls import download_url
from ddmd_bench.planning.part import Downloads
from ddmd_bench.planning.sizes import gigabytes
from ddmd_bench.scorers.weights import Weights, folders, located, missing_sentence

OnDownload = Callable[[Remote, int, int], None]  # bytes here, bytes wanted
OnWeights = Callable[[Weights, int, int], None]


def look_at(remotes: Sequence[Remote], ask: bool = True) -> list[Look]:
    """What is known of each; once the Hub cannot be reached it is not asked again."""
    looks: list[Look] = []
    for remote in remotes:
        looks.append(look(remote, ask=ask and all(seen.reached for seen in looks)))
    return looks


def bytes_to_come(looks: Iterable[Look]) -> int:
    """What is still to be downloaded, as far as it is known; a file of two remotes counts once."""
    return sum({place: left for seen in looks for place, left in seen.to_come.items()}.values())


def download_lines(remotes: Sequence[Remote]) -> list[str]:
    """One line for each remote: what it is, from where, and what is still to come."""
    return lines_of(remotes, look_at(remotes))


def lines_of(remotes: Sequence[Remote], looks: Sequence[Look]) -> list[str]:
    """The same for what is known already."""
    pairs = zip(remotes, looks, strict=True)
    return [f"{remote.what}: {remote.place}  {_state(seen)}" for remote, seen in pairs]


def _state(seen: Look) -> str:
    missing = seen.size.missing
    if missing is None:
        return "size unknown: " + ("the Hub refused" if seen.reached else "no network")
    if seen.problems:
        return "has problems"
    return f"to download {gigabytes(missing)}" if missing else "complete"


def weights_lines(weights: Iterable[Weights]) -> list[str]:
    """One line for each of the scorers' files that no repository holds."""
    return [
        f"{one.what}: {one.url}  {'complete' if located(one) else 'to download, size unknown'}"
        for one in weights
        if one.url is not None
    ]


def require_here(downloads: Downloads) -> None:
    """Raise unless all is on this machine, whole; the Hub is not asked."""
    looks = look_at(downloads.remotes, ask=False)
    problems = [problem for seen in looks for problem in seen.problems]
    problems += [
        missing_sentence(one)
        for one in downloads.weights
        if one.remote is None and not located(one)
    ]
    if problems:
        todo = "Run `python -m ddmd_bench fetch SUITE`, or correct the paths"
        raise BenchError("\n".join([*dict.fromkeys(problems), todo]))


def fetch_remotes(
    remotes: Sequence[Remote], progress: OnDownload = lambda remote, done, total: None
) -> list[Path]:
    """Download all of them, or as many as can be, and then say everything that went wrong.

    Stops before the first byte if the disk has no room for all.
    """
    remotes = list(dict.fromkeys(remotes))
    _check_disk(bytes_to_come(look_at(remotes)))
    folders, problems = [], []
    for remote in remotes:
        try:
            folders.append(download(remote, partial(progress, remote)))
        except BenchError as error:
            problems.append(str(error))
    if problems:
        raise BenchError("\n".join(problems))
    return folders


def fetch_weights(
    weights: Iterable[Weights], progress: OnWeights = lambda weights, done, total: None
) -> list[Path]:
    """Scorers' files that are at a URL: fetched where they are not here, or all that went wrong."""
    paths, problems = [], []
    for one in dict.fromkeys(weights):
        if one.url is None or located(one):
            continue
        path = next(folders(one)) / one.files[0]
        try:
            paths.append(download_url(one.url, path, partial(progress, one), one.sha256 or ""))
        except BenchError as error:
            problems.append(str(error))
    if problems:
        raise BenchError("\n".join(problems))
    return paths


def _check_disk(needed: int) -> None:
    folder = hub_cache()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise BenchError(
            f"{gigabytes(needed)} are to be downloaded into {folder}, where {gigabytes(free)} are "
            "free. Make room, or set HF_HOME to a folder on another disk"
        )
