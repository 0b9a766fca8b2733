"""What is on this machine, found without network: files, commits, damage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.inside import require_inside
from ddmd_bench.files.records import canonical_json, read_record
from ddmd_bench.files.tensors import open_safetensors
from ddmd_bench.hub.hashes import known_sha256s
from ddmd_bench.hub.layout import PIPELINE_INDEX, Chosen, chosen
from ddmd_bench.hub.remote import Remote, is_local, lacking_sentences, shortened
from ddmd_bench.hub.shards import refuse_leading_out, shards_of

RUN_FETCH = "Run `python -m ddmd_bench fetch SUITE`"


@dataclass(frozen=True)
class Found:
    """The wanted files of a remote that are here, and what is not."""

    folder: Path | None
    files: dict[str, Path]
    missing: tuple[str, ...]  # names, and patterns that nothing fits
    sizes: dict[str, int] | None  # of every file of the place; None where no listing is here
    chosen: Chosen | None = None  # of the listing, or of what is here; None without a folder


def hub_cache() -> Path:
    """The folder of the Hub's cache, which HF_HOME and HF_HUB_CACHE move."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser().absolute()


def storage(remote: Remote) -> Path:
    """The folder of a repository in the Hub's cache."""
    from huggingface_hub.file_download import repo_folder_name

    return hub_cache() / repo_folder_name(repo_id=remote.repository, repo_type=remote.kind)


def commit_of(remote: Remote) -> str | None:
    """The commit that a revision on the Hub means here: itself, or as last seen; None if never."""
    ref = storage(remote) / "refs" / (remote.revision or "main")
    return remote.commit or (ref.read_text(encoding="utf-8").strip() if ref.is_file() else None)


def find(remote: Remote) -> Found:
    """Which of the wanted files are on this machine."""
    if (folder := _folder(remote)) is None:
        return Found(None, {}, remote.wanted, None)
    # A link whose blob is gone is no file.
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    if is_local(remote.repository):
        sizes: dict[str, int] | None = {name: path.stat().st_size for name, path in paths.items()}
    else:
        sizes = _listed_sizes(remote, folder.name)
    names = sorted(paths if sizes is None else sizes)
    read = chosen(remote.files, remote.layout, names, pipeline_index(paths.get(PIPELINE_INDEX)))
    files = {name: paths[name] for name in read.files if name in paths}
    missing = (*read.lacking, *(name for name in read.files if name not in paths))
    return Found(folder, files, missing, sizes, read)


def pipeline_index(path: Path | None) -> dict[str, Any] | None:
    """A pipeline's list of its parts; None where it is not here, or is none (`damage` says so).

    Each part is a folder: one that leads out of the pipeline's is refused.
    """
    try:
        index = {} if path is None else read_record(path)
    except Unreadable:
        return None
    return {require_inside(name, str(path)): value for name, value in index.items()} or None


def file_here(remote: Remote, name: str) -> Path | None:
    """One file of a remote, where it is on this machine; cheaper than `find`."""
    folder = _folder(remote)
    path = folder / name if folder is not None else None
    return path if path is not None and path.is_file() else None


def _folder(remote: Remote) -> Path | None:
    if is_local(remote.repository):
        folder = Path(remote.repository).expanduser()
        return folder if folder.is_dir() else None
    commit = commit_of(remote)
    folder = storage(remote) / "snapshots" / (commit or "")
    return folder if commit and folder.is_dir() else None


def _listed_sizes(remote: Remote, commit: str) -> dict[str, int] | None:
    """Sizes of all files of a commit, which the cache keeps of a snapshot; None if it does not."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(remote.repository, repo_type=remote.kind, revision=commit)
    except CachedRepoTreeNotFoundError:
        return None
    return {file.path: file.size for file in tree}


def absent(remote: Remote, found: Found) -> list[str]:
    """Sentences for what is not here: one for each name that the place is known not to have."""
    place = f"{remote.what}: {remote.place}"
    if found.folder is None and is_local(remote.repository):
        return [f"{place} is no folder; expected one with {shortened(remote.wanted)}"]
    if found.sizes is not None and found.chosen is not None and found.chosen.lacking:
        return lacking_sentences(remote, found.chosen, found.sizes)
    if found.missing:
        return [f"{place} is not on this machine, or not all of it: {shortened(found.missing)}"]
    return []


def folder_of(remote: Remote) -> Path:
    """The folder with the wanted files, without network: a snapshot of the cache, or the folder."""
    return _all_of(remote)[0]


def variant_of(remote: Remote) -> str | None:
    """The variant that `from_pretrained` must be told to read a remote's networks."""
    read = _all_of(remote)[1].chosen
    return read.variant if read is not None else None


def _all_of(remote: Remote) -> tuple[Path, Found]:
    found = find(remote)
    if found.folder is None or found.missing:
        todo = "Correct the path or the names" if is_local(remote.repository) else RUN_FETCH
        raise BenchError("\n".join(f"{line}. {todo}" for line in absent(remote, found)))
    refuse_leading_out(found.files.values())
    return found.folder, found


def remote_identity(remote: Remote) -> str:
    """What a content key takes of a remote: owner/name@commit, or of a folder its files' hash.

    Needs no network, and for a full commit hash not even the files.
    """
    if not is_local(remote.repository):
        if (commit := commit_of(remote)) is None:
            raise BenchError(
                f"{remote.what}: this machine does not know which commit {remote.place} is. "
                f"{RUN_FETCH}, or name a full commit hash as the revision"
            )
        return f"{remote.repository}@{commit}"
    _, found = _all_of(remote)
    sha256 = known_sha256s(found.files.values())
    rows = [[name, sha256[path]] for name, path in sorted(found.files.items())]
    return f"sha256:{hashlib.sha256(canonical_json(rows).encode()).hexdigest()}"


def damage(remote: Remote, found: Found) -> list[str]:
    """Files that are here and cannot be whole, as far as sizes and headers tell."""
    todo = "Copy it again" if is_local(remote.repository) else f"{RUN_FETCH}: it is replaced"
    broken = ((name, _fault(name, path, found)) for name, path in found.files.items())
    return [f"{remote.what}: {found.files[n]} {fault}. {todo}" for n, fault in broken if fault]


def _fault(name: str, path: Path, found: Found) -> str | None:
    size, expected = path.stat().st_size, (found.sizes or {}).get(name)
    if expected is not None and size != expected:
        return f"has {size} bytes, expected {expected}"
    if name.endswith(".safetensors"):
        return _safetensors_fault(path)
    if ".safetensors.index." in name and name.endswith(".json"):
        return _index_fault(path)
    if name == PIPELINE_INDEX and pipeline_index(path) is None:
        return "is no list of a pipeline's parts (JSON)"
    return None


def _safetensors_fault(path: Path) -> str | None:
    try:
        # Reads the header and holds it against the file's size; no weights.
        with open_safetensors(path, "np"):
            return None
    except Unreadable as error:
        return f"is no whole safetensors file ({error.__cause__ or error})"


def _index_fault(path: Path) -> str | None:
    try:
        shards = shards_of(path)
    except BenchError as error:
        return f"is not followed: {error}"
    gone = [shard for shard in shards if not (path.parent / shard).is_file()]
    return f"names {shortened(gone)}, which is not beside it" if gone else None
