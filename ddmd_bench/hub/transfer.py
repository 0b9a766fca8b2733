"""Fetching a remote into the Hub's cache, checked against the hashes that the Hub announces.

Large files are fetched here and not by `snapshot_download`, which throws away what an interrupted
process had fetched and checks no hash (huggingface_hub 2.4, `_download_to_tmp_and_move`): here a
file goes on where it stopped, and enters the cache under its sha256 once its bytes have it. They
come by plain HTTP, so hf_xet, which that client would use for them, is not involved.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256
from ddmd_bench.hub.cache import find, folder_of, hub_cache, storage
from ddmd_bench.hub.hashes import blob_of, content_sha256, is_corrupted, remember_sha256
from ddmd_bench.hub.online import Offer, ask_hub, bytes_here, partial_of, size_of
from ddmd_bench.hub.remote import Remote, is_local
from ddmd_bench.hub.sentences import failures, sentence

OnBytes = Callable[[int, int], None]  # bytes here, bytes wanted


def download(remote: Remote, progress: OnBytes = lambda done, total: None) -> Path:
    """Fetch what is missing and return the folder; needs no network where nothing is missing.

    What is in the cache is held against its hash (once: the result is remembered), and fetched
    again where it differs.
    """
    if is_local(remote.repository):
        return folder_of(remote)
    corrupted = _corrupted(remote)
    if corrupted or find(remote).missing:
        try:
            _fetch(remote, ask_hub(remote), corrupted, progress)
        except failures() as error:
            said = [*_sentences(remote, corrupted), sentence(remote, error)]
            raise BenchError("\n".join(said)) from error
        if corrupted := _corrupted(remote):
            raise BenchError("\n".join(_sentences(remote, corrupted)))
    return folder_of(remote)


def _corrupted(remote: Remote) -> list[Path]:
    """The wanted files in the cache whose bytes are not those their blob is named after."""
    return [path for path in find(remote).files.values() if is_corrupted(path)]


def _sentences(remote: Remote, corrupted: list[Path]) -> list[str]:
    todo = "Fetch it again; if it stays so, look at the proxy or the disk"
    said = "has not the bytes that the Hub announced for it"
    return [f"{remote.what}: {path} {said}. {todo}" for path in corrupted if path.is_file()]


def _fetch(remote: Remote, offer: Offer, corrupted: list[Path], progress: OnBytes) -> None:
    from huggingface_hub import constants, snapshot_download

    if offer.problems:
        raise BenchError("\n".join(offer.problems))
    for path in corrupted:
        if blob := blob_of(path):
            blob.unlink(missing_ok=True)  # two names may share it
        path.unlink()
    total = sum(file.size for file in offer.files.values())
    done = bytes_here(remote, offer)
    progress(done, total)

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    for name, file in offer.files.items():
        # The Hub serves larger ones by xet alone: `snapshot_download` takes them.
        if file.sha256 and file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
            _fetch_large(remote, offer.commit, name, file.size, file.sha256, on_bytes)
    # The small files, the links to the large ones, the listing and what a branch means today.
    snapshot_download(
        remote.repository,
        repo_type=remote.kind,
        revision=remote.revision,
        allow_patterns=[glob.escape(name) for name in offer.files],
        tqdm_class=_counting(lambda count: None),
    )
    progress(total, total)


def _fetch_large(
    remote: Remote, commit: str, name: str, size: int, sha256: str, on_bytes: Callable[[int], None]
) -> None:
    """One file into its blob, going on where an earlier attempt, of any process, stopped."""
    import httpx2
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

    partial = partial_of(remote, sha256)
    blob = partial.with_suffix("")
    # The lock of the Hub's own client: it may be fetching the same blob.
    lock = hub_cache() / ".locks" / storage(remote).name / f"{sha256}.lock"
    for path in (partial, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if (storage(remote) / "snapshots" / commit / name).is_file():
            return
        if blob.is_file():  # of another commit, or linked by nothing yet
            if content_sha256(blob) == sha256:
                return
            blob.unlink()
        if size_of(partial) > size:
            partial.unlink()
        url = hf_hub_url(remote.repository, name, repo_type=remote.kind, revision=commit)
        # No compression: a server that compresses does not serve ranges.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        while (begun := size_of(partial)) < size or not partial.exists():
            try:
                with partial.open("ab") as file:
                    http_get(
                        url,
                        file,
                        resume_size=begun,
                        headers=headers,
                        expected_size=size,
                        displayed_filename=name,
                        tqdm_class=_counting(on_bytes),
                    )
            except httpx2.TransportError:
                if size_of(partial) <= begun:  # as long as each attempt brings something
                    raise
        if (arrived := file_sha256(partial)) != sha256:
            partial.unlink()
            raise BenchError(
                f"{remote.what}: {name} arrived with sha256 {arrived[:12]}..., the Hub announced "
                f"{sha256[:12]}...; it was removed. Fetch again; if it stays so, look at the proxy "
                "or the disk"
            )
        partial.replace(blob)
        remember_sha256(blob, sha256)


def _counting(on_bytes: Callable[[int], None]) -> Any:
    """A progress bar for the Hub's client that shows nothing and reports bytes."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Counting(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

    return Counting
