"""Names that others wrote, in an index, a listing or an archive: they stay inside their folder."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import Any

from ddmd_bench.errors import BenchError

LONGEST = 1024  # characters; no file system takes more


def is_inside(name: Any) -> bool:
    """Whether a name is a plain path below its folder, on every system: no step up, none aside."""
    return (
        isinstance(name, str)
        and len(name) <= LONGEST
        and name.isprintable()  # no line ends, no NUL, no bytes that are no text
        and "\\" not in name
        and not PureWindowsPath(name).anchor
        and not PureWindowsPath(name).drive
        and not {"", ".", ".."} & set(name.split("/"))
    )


def require_inside(name: Any, where: str) -> str:
    """The name, or an error that says which file of others, `where`, led out of its folder."""
    if is_inside(name):
        return str(name)
    shown = repr(name) if len(repr(name)) < 200 else f"{repr(name)[:200]} ..."
    raise BenchError(
        f"{where}: names {shown}, which is no plain path below its folder. Nothing is read "
        "there: take the files from where they were first published, or leave this out"
    )
