"""A run that lies in an archive: what numbers are made of is copied out, the rest is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.files.archives import Archive
from ddmd_bench.files.made import Changed

RUNS = "runs"  # the folder in an archive that a run's own is
# What may be left out, and is never copied as a whole: by kind its stage and how its names end.
KINDS: Mapping[str, tuple[str, str]] = {
    "weights": ("train", ".safetensors"),
    "images": ("generate", ".png"),
}


def kind_of(name: str) -> str | None:
    """Of a file by its name in an archive: runs/SUITE/STAGE/TASK/..."""
    folder, _, stage, *_ = (*name.split("/"), "", "")
    for kind, (its, end) in KINDS.items():
        if folder == RUNS and stage == its and name.endswith(end):
            return kind
    return None


@dataclass(frozen=True)
class Packed:
    """The files of an archive, and the folder where those lie that were copied out of it."""

    archive: Archive
    folder: Path
    without: frozenset[str]  # kinds that were left out
    listed: Mapping[str, str]  # sha256 that a file was packed with, by its name
    copied: Mapping[str, str]  # sha256 that a file has, of those that were copied
    unread: Collection[str]  # what is wrong with the lists themselves

    def left_out(self, name: str) -> bool:
        """Whether a file is not here because its kind was not packed."""
        return name not in self.archive.places and kind_of(name) in self.without

    def problems(self, names: Iterable[str]) -> Iterator[str]:
        """A sentence for each file that is not the one that was packed."""
        yield from self.unread
        for name in names:
            if name not in self.archive.places:
                if not self.left_out(name):
                    yield f"{self.archive.path}: {name} is missing"
            elif (self.copied.get(name) or self.archive.sha256(name)) != self.listed[name]:
                yield f"{self.archive.path}: {name} is another file than was packed"

    def refuse_changed(self) -> None:
        """Every file that numbers are made of is the one that was packed."""
        names = [name for name in self.listed if kind_of(name) is None]
        if found := list(self.problems(names)):
            more = f"\n(and {len(found) - 3} more)" if len(found) > 3 else ""
            raise Changed("\n".join(found[:3]) + f"{more}\nGet the archive again")

    def fetch(self, paths: Iterable[Path]) -> None:
        """Copy more files to where they are looked for, of those that were packed."""
        for path in paths:
            name = path.relative_to(self.folder).as_posix()
            if path.exists() or name not in self.archive.places:
                continue
            if self.archive.copy(name, path) != self.listed.get(name):
                path.unlink()
                raise BenchError(
                    f"{self.archive.path}: {name} is another file than was packed. "
                    "Get the archive again"
                )
