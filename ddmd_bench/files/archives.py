"""One tar of many files: equal bytes for equal files, and read without trust in what it says.

    write_archive(path, members)              # streams; there is a whole archive, or none
    with opened(path) as archive: archive.copy(name, to)

It holds plain files alone, each once, under names that stay inside (`files.inside`). It is not
compressed: nothing in it is larger than the archive is.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from ddmd_bench.errors import BenchError, Unreadable
from ddmd_bench.files.inside import LONGEST, require_inside
from ddmd_bench.files.records import written_whole

# GNU's headers hold any size and name; those of pax are texts, which need a parser.
FORMAT = tarfile.GNU_FORMAT
BLOCK, PART = tarfile.BLOCKSIZE, 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AGAIN = "Get the archive again, or pack the run anew"


class Member(NamedTuple):
    """A file to pack."""

    name: str
    content: Path | bytes
    sha256: str = ""  # that it must have; '' where nothing says

    @property
    def size(self) -> int:
        """Bytes that it takes in the archive."""
        size = len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size
        header = BLOCK * (1 if len(self.name.encode()) <= tarfile.LENGTH_NAME else 4)
        return header + _padded(size)


class Written(NamedTuple):
    """An archive that was written."""

    num_files: int
    num_bytes: int
    sha256: str


class _Passing:
    """A file that goes by from its beginning to its end, and the sha256 of what has gone by."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)


def write_archive(path: Path, members: Iterable[Member]) -> Written:
    """Pack files in the order given; whatever stops it, nothing half-made is left."""
    try:
        with written_whole(path) as temporary, temporary.open("wb") as file:
            return _write(file, members)
    except OSError as error:
        full = "the disk is full" if error.errno in _FULL else str(error)
        raise BenchError(
            f"{path}: not written, and nothing is left of it: {full}. "
            "Make room, or name another place: --output"
        ) from error


def _write(file: IO[bytes], members: Iterable[Member]) -> Written:
    passing, number = _Passing(file), 0
    target: Any = passing
    with tarfile.open(fileobj=target, mode="w", format=FORMAT) as tar:
        for member in members:
            _add(tar, member)
            vars(tar)["members"].clear()  # its memory of each, which nobody asks
            number += 1
    return Written(number, file.tell(), passing.digest.hexdigest())


def _add(tar: tarfile.TarFile, member: Member) -> None:
    content = member.content
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        # No time, owner or right of the file: they are this machine's.
        info = tarfile.TarInfo(require_inside(member.name, "a file to pack"))
        info.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        passing: Any = _Passing(file)
        tar.addfile(info, passing)
    if member.sha256 not in ("", passing.digest.hexdigest()):
        raise BenchError(f"{content!s}: changed while it was packed. Pack again")


class Archive:
    """An archive that is open: where each file lies in it, by name, in its order."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        self.places: dict[str, tuple[int, int]] = {}  # offset and size
        folded: set[str] = set()
        for name, place in _places(path, file):
            if name.casefold() in folded:
                raise Unreadable(f"{path}: holds {name!r} twice. {_AGAIN}")
            folded.add(name.casefold())
            self.places[name] = place

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.places[name][1]

    def parts(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, a part at a time."""
        offset, left = self.places[name]
        while left > 0:
            self.file.seek(offset)
            data = self.file.read(min(PART, left))
            if not data:
                raise Unreadable(f"{self.path}: cut while it was read. {_AGAIN}")
            yield data
            offset, left = offset + len(data), left - len(data)

    def sha256(self, name: str) -> str:
        """sha256 of a file, in hex."""
        digest = hashlib.sha256()
        for part in self.parts(name):
            digest.update(part)
        return digest.hexdigest()

    def copy(self, name: str, path: Path) -> str:
        """Write a file of the archive to a place outside; its sha256."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                passing = _Passing(file)
                for part in self.parts(name):
                    passing.write(part)
        except OSError as error:
            raise BenchError(f"{path}: not copied out of {self.path}: {error}") from error
        return passing.digest.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Find every file of an archive; what is cut, foreign or leads out of it is an error."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BenchError(f"{path}: cannot be opened: {error.strerror or error}") from error
    with file:
        yield Archive(path, file)


def _places(path: Path, file: IO[bytes]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Each file's name, offset and size. Not by `tarfile`, which reads far more than is written
    here: links, sparse files, texts of any length, offsets that lead backwards."""
    end = os.fstat(file.fileno()).st_size
    offset, long_name = 0, ""
    while True:
        file.seek(offset)
        info = _header(path, file.read(BLOCK))
        if info is None:
            _require_empty(path, file, offset)
            return
        data, offset = offset + BLOCK, offset + BLOCK + _padded(info.size)
        if info.size < 0 or offset > end:
            raise Unreadable(f"{path}: cut, or no archive of a run. {_AGAIN}")
        if info.type == tarfile.GNUTYPE_LONGNAME and not long_name:
            if info.size > 4 * LONGEST + 1:
                raise Unreadable(f"{path}: holds a name of {info.size} bytes. {_AGAIN}")
            long_name = file.read(info.size).rstrip(b"\0").decode("utf-8", "surrogateescape")
            continue
        name, long_name = require_inside(long_name or info.name, str(path)), ""
        if info.type != tarfile.REGTYPE:
            raise Unreadable(f"{path}: {name!r} is no plain file: links, folders, devices are none")
        yield name, (data, info.size)


def _header(path: Path, block: bytes) -> tarfile.TarInfo | None:
    """What a file's header says; None of the block that ends an archive."""
    if block == bytes(BLOCK):
        return None
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise Unreadable(f"{path}: cut, or no archive of a run ({error}). {_AGAIN}") from None


def _require_empty(path: Path, file: IO[bytes], offset: int) -> None:
    """Behind the last file nothing stands but zeros up to a whole record."""
    file.seek(offset)
    most = tarfile.RECORDSIZE + BLOCK
    rest = file.read(most + 1)
    if len(rest) > most or rest.strip(b"\0"):
        raise Unreadable(f"{path}: something stands behind its end. {_AGAIN}")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
