"""Files on other storage, wherever fsspec reaches: s3://, gs://, hf://, sftp:// and more.

path = here("s3://lab/runs/report.json")        # a copy in the cache
folder = mirrored("s3://lab/runs/shapes", folder, tell)
pushed(folder, "s3://lab/runs/shapes", tell)

Only what is not there yet is copied. A copy has its name when it is whole; what was copied is noted
meanwhile, so that one that was cut off goes on.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files.inside import require_inside
from ddmd_bench.files.locks import LOCK
from ddmd_bench.files.records import (
    DONE,
    cache_folder,
    content_key,
    json_text,
    parse_json,
    read_record,
    write_json,
    written_whole,
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
COPIED = "copied.json"
# Of each file what its storage said of it, and size and time of the copy; first without these.
COPIED_FORM = {...: ({"of": str, "here": [int]}, str)}
NOTED_EVERY_S = 30.0  # a record of 100,000 files is some MB
# Of this machine, though an error does not say of which file; EIO is one of storages too.
DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EMFILE)
Tell = Callable[[int, int], None]  # bytes copied, of so many


def is_elsewhere(name: str) -> bool:
    """Whether a name is a URL, and no path of this machine."""
    return _URL.match(name) is not None


def here(name: str) -> Path:
    """A file's or a folder's path: of a URL, that of a copy of it in the cache, brought up to date.

    Raises BenchError where there is nothing, or the storage cannot be reached.
    """
    if not is_elsewhere(name):
        return Path(name)
    folder = cache_folder() / "elsewhere" / content_key(name.rstrip("/"))
    return mirrored(name, folder) / name.rstrip("/").rpartition("/")[2]


def mirrored(url: str, folder: Path, tell: Tell = lambda done, total: None) -> Path:
    """Make a folder of this machine hold what is behind a URL, a file or a folder; that folder."""
    _fetch_all(url, folder, tell, keep=False)
    return folder


def pulled(url: str, folder: Path, tell: Tell) -> None:
    """Copy the folder behind a URL below one of this machine.

    Files that others made there stay, and those that were worked on since they were copied.
    """
    _fetch_all(url, folder, tell, keep=True)


def _fetch_all(url: str, folder: Path, tell: Tell, *, keep: bool) -> None:
    name = url.rstrip("/").rpartition("/")[2]
    record = folder / f"{name}-{COPIED}"
    copied = _copied(record)
    storage, root = _reached(url)
    found = _listed(storage, root, url)
    if not found:
        raise BenchError(f"{url}: nothing is there, neither a file nor a folder with files")
    places = {
        require_inside(f"{name}{path.removeprefix(root)}", url): path
        for path in sorted(found, key=_record_last)
    }
    now = {place: content_key(str(found[path])) for place, path in places.items()}

    def is_wanted(place: str) -> bool:
        if not (folder / place).is_file():
            return True
        told = copied.get(place)
        if keep and (told is None or told["here"] != _state(folder / place)):
            return False  # others made it, or worked on it
        return told is None or told["of"] != now[place]

    def fetch(place: str) -> None:
        with written_whole(folder / place) as temporary, _asked(url, temporary):
            storage.get_file(places[place], str(temporary))
        copied[place] = {"of": now[place], "here": _state(folder / place)}

    wanted = [place for place in places if is_wanted(place)]
    sizes = {place: int(found[places[place]].get("size") or 0) for place in wanted}
    _copy(sizes, tell, fetch, lambda: write_json(record, copied))
    if not keep and (gone := {*copied} - {*now}):
        for place in gone:
            with suppress(OSError):  # it is no longer there
                (folder / place).unlink()
            del copied[place]
        write_json(record, copied)


def _copied(record: Path) -> dict[str, Any]:
    """What was copied by now, as the record here has it."""
    found = read_record(record, COPIED_FORM) if record.is_file() else {}
    return {k: {"of": v, "here": []} if isinstance(v, str) else v for k, v in found.items()}


def _state(path: Path) -> list[int]:
    """By which it is seen whether somebody has worked on a file."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def pushed(
    folder: Path, url: str, tell: Tell = lambda done, total: None, but: Collection[str] = ()
) -> int:
    """Copy a folder's files to where a URL leads; how many were not there yet.

    but: what is of this machine alone. What a run removes meanwhile is left out too.
    """
    states = {place: state for place, state in _states(folder).items() if place not in but}
    storage, root = _reached(url)
    record = f"{root}/{COPIED}"
    there = {path.removeprefix(f"{root}/") for path in _listed(storage, root, url)}
    sent = {k: state for k, state in _sent(storage, record, url).items() if k in there}
    own = dict[str, list[int]]()  # of those, what was sent now

    def put(place: str) -> None:
        target, path = f"{root}/{place}", folder / place
        try:
            with _asked(url, path):
                storage.makedirs(target.rpartition("/")[0], exist_ok=True)
                storage.put_file(str(path), target)
        except FileNotFoundError:  # of this machine: it is gone
            return
        sent[place] = own[place] = states[place]

    def note() -> None:
        _note_sent(folder, own)
        with _asked(url):
            storage.pipe_file(record, json_text(sent).encode())

    todo = {place: state[0] for place, state in states.items() if sent.get(place) != state}
    if todo:
        _copy(todo, tell, put, note)
    return len(own)


def _states(folder: Path) -> dict[str, list[int]]:
    """The state of each file of a folder that no process is writing, by its place there."""
    states = {}
    for path in sorted(_files(folder), key=lambda path: _record_last(str(path))):
        if path.stem != LOCK and not path.name.endswith(".tmp"):
            with suppress(FileNotFoundError):  # it is gone
                states[path.relative_to(folder).as_posix()] = _state(path)
    return states


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, and of what links lead to: a stage may lie on another disk."""
    for at, folders, names in os.walk(folder, onerror=_raise_unless_gone, followlinks=True):
        folders[:] = [name for name in folders if not _leads_back(Path(at, name))]
        for path in (Path(at, name) for name in names):
            if path.is_file():
                yield path
            elif path.is_symlink() and not path.exists():
                raise BenchError(
                    f"{path}: a link to what is not there, {path.readlink()}. Mount that disk, or "
                    "remove the link"
                )


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, below which all would come again."""
    return folder.is_symlink() and folder.resolve() in {above.resolve() for above in folder.parents}


def _note_sent(folder: Path, sent: Mapping[str, list[int]]) -> None:
    """What was pulled, worked on and sent back is no longer here alone: `pulled` may replace it."""
    record = folder.parent / f"{folder.name}-{COPIED}"
    copied = _copied(record)
    own = {f"{folder.name}/{place}": {"of": "", "here": state} for place, state in sent.items()}
    if known := {place: told for place, told in own.items() if place in copied}:
        write_json(record, copied | known)


def _sent(storage: Any, record: str, url: str) -> dict[str, Any]:
    """What was sent by now, as the record there has it; of one that is cut, nothing."""
    with _asked(url):
        text = storage.cat_file(record) if storage.isfile(record) else b"{}"
    with suppress(ValueError):
        if isinstance(sent := parse_json(text), dict):
            return sent
    return {}


def _record_last(path: str) -> tuple[bool, str]:
    """A task's record comes after its other files: whoever reads meanwhile finds no half of it."""
    return path.endswith(f"/{DONE}"), path


def _copy(
    sizes: Mapping[str, int],
    tell: Tell,
    copy: Callable[[str], None],
    note: Callable[[], None],
) -> None:
    """Copy one after the other; what was copied is noted meanwhile, and whatever ends it."""
    done, total, noted = 0, sum(sizes.values()), time.monotonic()
    try:
        for name, size in sizes.items():
            copy(name)
            done += size
            tell(done, total)
            if time.monotonic() - noted >= NOTED_EVERY_S:
                note()
                noted = time.monotonic()
    except BaseException:
        with suppress(BenchError, OSError):  # what ended it is what is told
            note()
        raise
    note()


def _listed(storage: Any, root: str, url: str) -> dict[str, dict[str, Any]]:
    """What the storage says of each file, by its path there."""
    with _asked(url):
        found: dict[str, dict[str, Any]] = storage.find(root, detail=True)
    return {path: info for path, info in found.items() if not path.endswith(f"/{COPIED}")}


def _reached(url: str) -> tuple[Any, str]:
    """A storage and the path of a URL on it."""
    import fsspec

    with _asked(url):
        try:
            storage, root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise BenchError(f"{url}: no way to reach it: {said_by(error)}") from error
        storage.invalidate_cache()
    return storage, root.rstrip("/")


@contextmanager
def _asked(url: str, local: Path | None = None) -> Iterator[None]:
    """What a storage raises is a sentence; what befell this machine's own file stays what it is."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:  # each storage's library has errors of its own
        if isinstance(error, OSError) and (error.errno in DISK or _names(error, local)):
            raise
        raise BenchError(
            f"{url}: {said_by(error)}. Look at the name, at the network, and at the account that "
            "its storage asks for (fsspec's documentation of it)"
        ) from error


def _names(error: OSError, file: Path | None) -> bool:
    named = [name for name in (error.filename, error.filename2) if name is not None]
    return file is not None and os.path.abspath(file) in (os.path.abspath(str(n)) for n in named)
