"""Which files of a repository, or of a folder here, hold the weights of each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ddmd_bench.backends.weight_files import (
    CONFIG,
    LORA,
    NETWORK,
    PEFT,
    PEFT_CONFIG,
    lora_file,
    network_files,
)
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import Remote, is_local

# The weights of a network in full precision, or their index and shards; no variant.
_FULL_PRECISION = f"{NETWORK}[.-][s0]*"


def local_place(repository: str, file: str | None, title: str) -> Path | None:
    """The weights of a repository that is a local file or folder; None for one on the Hub."""
    place = Path(repository).expanduser()
    if not place.exists():
        if is_local(repository):
            raise BenchError(f"{title}: there is no file or folder {repository}")
        return None
    found = place / file if file else place
    if not found.exists():
        inside = ", ".join(sorted(p.name for p in place.iterdir())[:8]) if place.is_dir() else "-"
        raise BenchError(f"{title}: no {file!r} in {place}; it holds: {inside}")
    return found


def remote_of_weights(
    repository: str, revision: str | None, file: str | None, format: str, title: str
) -> Remote:
    """The files of one set of weights; the first is what its loader reads, or beside that."""
    place = Path(repository).expanduser()
    if place.is_file():
        repository, revision, file = str(place.parent), None, place.name
    local = local_place(repository, file, title)
    names = FILES[format](local, file)
    return Remote(repository, revision, names, kind="model", what=title)


def _of_network(local: Path | None, file: str | None) -> tuple[str, ...]:
    """One file, or a folder in diffusers' format: the repository's root, or one that it holds."""
    if file is not None and (local.is_file() if local else Path(file).suffix):
        return (file,)
    names = [path.name for path in network_files(local)] if local else [_FULL_PRECISION]
    return _inside(file, CONFIG, *names)


def _of_lora(local: Path | None, file: str | None) -> tuple[str, ...]:
    """One file, or that of a folder; with peft's settings where peft wrote it."""
    if local is not None and local.is_dir():
        found = lora_file(local).name
    elif file is not None and (local is not None or Path(file).suffix):
        found, file = Path(file).name, Path(file).parent.as_posix()
    else:
        found = LORA[0]
    settings = [PEFT_CONFIG] if Path(found).stem == PEFT else []
    return _inside(file, found, *settings)


def _inside(folder: str | None, *names: str) -> tuple[str, ...]:
    return tuple((Path(folder or ".") / name).as_posix() for name in names)


FILES: Mapping[str, Callable[[Path | None, str | None], tuple[str, ...]]] = {
    "unet": _of_network,
    "transformer": _of_network,
    "lora": _of_lora,
}
