"""What was found out of files, remembered by their sizes and times: asked again once changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISLNK
from typing import Any

from ddmd_bench.files.records import cache_folder, read_json, write_json

SAVE_EVERY_S = 30  # of work that a process may lose


def remembered(name: str, paths: Iterable[Path], find: Callable[[Path], Any]) -> dict[Path, Any]:
    """What `find` says of each file, as JSON holds it: asked once, and again once it has changed.

    The memory called `name` is read once for all, and written now and then: 10,000 files of a
    folder cost what finding it out costs, and a second time what looking at their times costs.
    Of a file that is not there `find` is asked, and may raise; nothing is remembered.
    """
    known, found = _read(name), {}
    new: dict[str, list[Any]] = {}
    folders: dict[str, str] = {}
    saved = time.monotonic()
    for path in paths:
        try:
            place, stamp = _placed(path, folders)  # before asking: a change meanwhile is another
        except FileNotFoundError:
            found[path] = find(path)
            continue
        row = known.get(place)
        if isinstance(row, list) and row[:-1] == stamp:
            found[path] = row[-1]
        else:
            found[path] = find(path)
            new[place] = [*stamp, found[path]]
        if new and time.monotonic() - saved > SAVE_EVERY_S:
            _add(name, new)
            new, saved = {}, time.monotonic()
    if new:
        _add(name, new)
    return found


def remember(name: str, path: Path, value: Any) -> None:
    """Note what is known of a file without asking."""
    place, stamp = _placed(path, {})
    _add(name, {place: [*stamp, value]})


def _placed(path: Path, folders: dict[str, str]) -> tuple[str, list[int]]:
    """A file's one path, links followed, with its size and times; `folders` holds those resolved.

    The time of the inode's last change too: no copying tool can set it back, as it can set mtime.
    """
    given = os.fspath(path)
    stat = os.lstat(given)
    if S_ISLNK(stat.st_mode):
        place, stat = os.path.realpath(given), os.stat(given)
    else:
        folder, file = os.path.split(given)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        place = os.path.join(folders[folder], file)
    return place, [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read(name: str) -> dict[str, list[Any]]:
    try:
        known = read_json(_memory(name))
    except (OSError, ValueError):  # none yet, not readable, or not JSON: ask again
        return {}
    return known if isinstance(known, dict) else {}


def _add(name: str, new: dict[str, list[Any]]) -> None:
    # Read again: another process may have written since.
    known = {place: row for place, row in _read(name).items() if os.path.exists(place)}
    with suppress(OSError):  # a home that cannot be written costs time, not results
        write_json(_memory(name), {**known, **new})


def _memory(name: str) -> Path:
    return cache_folder() / f"{name}.json"
