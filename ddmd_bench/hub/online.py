"""Asking the Hub: what stands in the way of a remote, and how large it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from ddmd_bench.files.inside import require_inside
from ddmd_bench.hub.cache import absent, damage, find, pipeline_index, storage
from ddmd_bench.hub.layout import PIPELINE_INDEX, chosen
from ddmd_bench.hub.remote import Remote, is_local, lacking_sentences
from ddmd_bench.hub.sentences import failures, sentence, unreachable


@dataclass(frozen=True)
class Size:
    """Bytes of the wanted files, and how many of them are still to come; None is not known."""

    total: int | None
    missing: int | None


@dataclass(frozen=True)
class Look:
    """What is known of a remote before any work."""

    size: Size
    problems: tuple[str, ...]
    reached: bool = True  # False: the Hub was asked, and nothing answered
    to_come: Mapping[str, int] = field(default_factory=dict)  # bytes of each file, by its place


@dataclass(frozen=True)
class Offered:
    """A file as the Hub lists it."""

    size: int
    sha256: str | None  # of files in large storage; None for those that git holds


@dataclass(frozen=True)
class Offer:
    """The wanted files of a repository's commit, as the Hub lists them."""

    commit: str
    files: dict[str, Offered]
    problems: tuple[str, ...]
    gated: bool


def ask_hub(remote: Remote) -> Offer:
    """The listing, and of a whole pipeline the list of its parts, a file of a kilobyte.

    One request for the listing, which unlike that of a tree is not tried again for half a minute.
    """
    from huggingface_hub import HfApi, ModelInfo, constants

    info = HfApi().repo_info(
        remote.repository,
        revision=remote.revision,
        repo_type=remote.kind,
        files_metadata=True,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
    )
    info = cast(ModelInfo, info)  # a dataset's has the same fields
    listed = {
        file.rfilename: Offered(file.size or 0, file.lfs.sha256 if file.lfs else None)
        for file in info.siblings or ()
    }
    commit, where = info.sha or "", f"{remote.what}: the listing of {remote.place}"
    whole = remote.layout is not None and remote.layout.networks is None
    index = _offered_index(remote, commit) if whole and PIPELINE_INDEX in listed else None
    read = chosen(remote.files, remote.layout, listed, index)
    lacking = lacking_sentences(remote, read, listed)
    files = {require_inside(name, where): listed[name] for name in read.files}
    for name in [commit, *(file.sha256 for file in files.values() if file.sha256)]:
        require_inside(name, where)  # they name folders and files of the cache
    return Offer(commit, files, tuple(lacking), bool(info.gated))


def _offered_index(remote: Remote, commit: str) -> dict[str, Any] | None:
    """A pipeline's list of its parts; leaves nothing in the cache, since a plan fetches nothing."""
    from huggingface_hub import hf_hub_download

    with TemporaryDirectory() as folder:
        path = hf_hub_download(
            remote.repository,
            PIPELINE_INDEX,
            repo_type=remote.kind,
            revision=commit,
            cache_dir=folder,
        )
        return pipeline_index(Path(path))


def _check_access(remote: Remote, offer: Offer) -> None:
    """Raises what reading a file would: a listing does not tell who may read its files."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    name = next(iter(offer.files))
    get_hf_file_metadata(
        hf_hub_url(remote.repository, name, repo_type=remote.kind, revision=offer.commit)
    )


def look(remote: Remote, ask: bool = True) -> Look:
    """What a remote needs and what stands in the way; asks the Hub only for what is not here.

    Without `ask` it answers as if the Hub could not be reached.
    """
    found = find(remote)
    faults = damage(remote, found)
    if is_local(remote.repository) or not found.missing:
        total = sum(path.stat().st_size for path in found.files.values())
        return Look(Size(total, 0), (*absent(remote, found), *faults))
    unknown = Size(None, None)
    if not ask:
        halves = _half_downloaded(remote)
        return Look(unknown, (*absent(remote, found), *halves, *faults), reached=False)
    try:
        offer = ask_hub(remote)
        if offer.gated and offer.files:
            _check_access(remote, offer)
    except failures() as error:
        halves = _half_downloaded(remote)
        said = (sentence(remote, error), *halves, *faults)
        return Look(unknown, said, reached=not unreachable(error))
    total = sum(file.size for file in offer.files.values())
    to_come = _to_come(remote, offer)
    size = Size(total, sum(to_come.values()))
    return Look(size, (*offer.problems, *faults), to_come=to_come)


def partial_of(remote: Remote, sha256: str) -> Path:
    """Where a large file grows until it is whole."""
    # The name that the Hub's own tools know, and clean up, as an unfinished blob.
    return storage(remote) / "blobs" / f"{sha256}.incomplete"


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def bytes_here(remote: Remote, offer: Offer) -> int:
    """How many of the offered bytes need not be fetched, halves of large files included."""
    total = sum(file.size for file in offer.files.values())
    return total - sum(_to_come(remote, offer).values())


def _to_come(remote: Remote, offer: Offer) -> dict[str, int]:
    """What is left of each offered file, by the place that it will have."""
    snapshot, left = storage(remote) / "snapshots" / offer.commit, dict[str, int]()
    for name, file in offer.files.items():
        blob = storage(remote) / "blobs" / (file.sha256 or "")
        if (snapshot / name).is_file() or (file.sha256 and blob.is_file()):
            continue
        here = size_of(partial_of(remote, file.sha256)) if file.sha256 else 0
        left[str(snapshot / name)] = max(file.size - here, 0)
    return left


def _half_downloaded(remote: Remote) -> list[str]:
    halves = {half: size_of(half) for half in (storage(remote) / "blobs").glob("*.incomplete")}
    return [
        f"{remote.what}: {half} is half downloaded ({size} bytes). Fetching goes on from there"
        for half, size in sorted(halves.items())
        if size
    ]
