"""What a task has made: each file is the one that its `done.json` lists, or it is not read.

Many files stand in a list of their own, `LIST`, which `done.json` lists in turn; `sha256sum -c`
reads it too. A record without a list is of an earlier version: of its files nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import iter_lines
from ddmd_bench.files.records import DONE, file_sha256, read_done, write_whole
from ddmd_bench.files.remembered import remembered

LIST = "images.sha256"


class Changed(BenchError):
    """A file is not the one that its task has made."""


def write_list(folder: Path, made: Mapping[str, str]) -> None:
    """The sha256 of many files by their names in the folder."""
    write_whole(folder / LIST, "".join(f"{sha256}  {name}\n" for name, sha256 in made.items()))


def made_by(folder: Path) -> dict[str, str]:
    """sha256 of each file that the finished task of a folder has made; {} where none is listed."""
    made: dict[str, str] = (read_done(folder) or {}).get("files", {})
    if LIST not in made:
        return made
    _refuse(folder, [LIST] if _sha256(folder / LIST) != made[LIST] else [])
    rows = (line.partition("  ") for line in iter_lines(folder / LIST))
    return {**made, **{name: sha256 for sha256, _, name in rows}}


def require_made(folder: Path, names: Iterable[str] | None = None) -> None:
    """Each of the files, or all that are listed, has the bytes that it was made with."""
    if made := made_by(folder):
        asked = made if names is None else names
        _refuse(folder, [name for name in asked if _sha256(folder / name) != made.get(name)])


def changed_since(folder: Path) -> list[str]:
    """Files that were touched since the task was finished and have other bytes now.

    What is older than `done.json` is not read. Nor is twice what was touched, e.g. copied.
    """
    if not (made := made_by(folder)):
        return []
    finished = (folder / DONE).stat().st_ctime_ns
    touched = {folder / name: name for name in made if _touched(folder / name) > finished}
    found = remembered("run_files", touched, _sha256)
    return [name for path, name in touched.items() if found[path] != made[name]]


def refuse_changed(folder: Path) -> None:
    """No file of a finished task was changed since."""
    _refuse(folder, changed_since(folder))


def is_as_made(folder: Path) -> bool:
    """Whether that is so."""
    try:
        return not changed_since(folder)
    except Changed:  # the list itself
        return False


def _touched(path: Path) -> float:
    """When a file's bytes, or its name, last changed, in ns; of one that is not there just now."""
    try:
        stat = path.stat()
    except OSError:
        return float("inf")
    # The time of the last change of the inode too: renaming or copying can keep the other.
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""  # not there, or no file


def _refuse(folder: Path, names: list[str]) -> None:
    if names:
        raise Changed(_sentence(folder, names))


def _sentence(folder: Path, names: list[str]) -> str:
    stage = folder.parent.name
    more = f" (and {len(names) - 1} more files there)" if len(names) > 1 else ""
    what = "another file than" if (folder / names[0]).is_file() else "missing, of what"
    return (
        f"{folder / names[0]}{more}: {what} {stage} {folder.name} has made, by the sha256 in its "
        f"{DONE}. {anew(folder)}"
    )


def anew(folder: Path) -> str:
    """What to do where a file of a task's folder is not what it was."""
    return f"Put it back, or delete {folder} and make it anew: `python -m ddmd_bench run SUITE`"
