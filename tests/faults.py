"""Every write of a run, one after the other, and one of them, or all from it on, failing.

    with Writes(folder) as writes: ...                        # writes.made: what was written
    with Writes(folder, FAULTS["full"], chosen) as writes:    # the first that is `chosen` fails

It stands where Python hands a file to the system. What a library writes past it, safetensors' own
`save_file`, is one write of its own.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import safetensors.torch
from safetensors import SafetensorError

CALLS = ("mkdir", "rmdir", "unlink", "remove", "replace", "rename", "link", "symlink", "truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PROGRESS = "progress.json"  # of whoever looks on: written each two seconds, or not at all
FREEING = ("unlink", "remove", "rmdir")  # what a full disk allows


class Write(NamedTuple):
    """A call that changes a file or a folder."""

    call: str
    path: str  # below the folder, without the number of the process


class Fault(NamedTuple):
    """How a write fails."""

    error: int = 0  # the number of the system's error
    stays: bool = False  # all after it fail too
    signal: int = 0  # instead: what the process is sent just before
    vanishes: bool = False  # instead: the file is gone just before

    def concerns(self, write: Write) -> bool:
        """Whether that write can fail so."""
        if self.vanishes:
            return write.call in ("replace", "rename", "reopen")
        return not (self.error == errno.ENOSPC and write.call in FREEING)


FAULTS = {
    "full": Fault(errno.ENOSPC, stays=True),
    "full_once": Fault(errno.ENOSPC),
    "read_only": Fault(errno.EROFS, stays=True),
    "forbidden": Fault(errno.EACCES),
    "failing": Fault(errno.EIO),
    "vanished": Fault(vanishes=True),
    "stopped": Fault(signal=signal.SIGTERM),
    "killed": Fault(signal=signal.SIGKILL),
}


class Writes:
    """Notes what is written below a folder, and lets it fail where `chosen` says so."""

    def __init__(
        self,
        folder: Path,
        fault: Fault | None = None,
        chosen: Callable[[Write], bool] = lambda write: False,
    ) -> None:
        self.folder, self.fault, self.chosen = str(folder), fault, chosen
        self.made: list[Write] = []
        self.failed: Write | None = None  # the first that did
        self.harmless = False  # it was a file that nothing was written to while the disk was full
        self._lock = threading.Lock()
        self._patches: list[Any] = []

    def __enter__(self) -> Self:
        opened = io.open
        self._patch(io, "open", lambda *given, **named: self._open(opened, *given, **named))
        self._patch(builtins, "open", io.open)
        self._patch(os, "open", self._os_open(os.open))
        self._patch(os, "fsync", self._fsync(os.fsync))
        for name in CALLS:
            self._patch(os, name, self._call(name, getattr(os, name)))
        self._patch(safetensors.torch, "save_file", self._save_file(safetensors.torch.save_file))
        return self

    def __exit__(self, *raised: object) -> None:
        while self._patches:
            self._patches.pop().stop()

    def _patch(self, module: Any, name: str, new: Callable[..., Any]) -> None:
        self._patches.append(patch.object(module, name, new))
        self._patches[-1].start()

    def _place(self, path: Any) -> str | None:
        """Below the folder, or None for what is elsewhere, or hangs on the time alone."""
        if isinstance(path, int):
            return None
        text = os.path.abspath(os.fsdecode(path))
        inside = text.startswith(f"{self.folder}/") and PROGRESS not in text
        return text[len(self.folder) + 1 :].replace(f".{os.getpid()}.", ".") if inside else None

    def _error(self, call: str, path: Any) -> int:
        """Note a write; the error that it ends with, or 0."""
        with self._lock:
            if (place := self._place(path)) is None:
                return 0
            self.made.append(write := Write(call, place))
            fault = self.fault
            if fault is None or not fault.concerns(write):
                return 0
            if self.failed is None and self.chosen(write):
                self.failed = write
            elif self.failed is None or not fault.stays:
                return 0
        if fault.signal:
            os.kill(os.getpid(), fault.signal)
        if fault.vanishes:
            Path(path).unlink(missing_ok=True)
        return fault.error

    def _open(self, opened: Any, file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if not {*mode} & {*"wax+"}:
            return opened(file, mode, *given, **named)
        error = self._error("reopen" if "+" in mode or "a" in mode else "open", file)
        if error in (0, errno.ENOSPC):  # a full disk takes a file's name, and not its bytes
            made = opened(file, mode, *given, **named)
            return Full(made, self) if error else made
        raise OSError(error, os.strerror(error), os.fsdecode(file))

    def _os_open(self, opened: Any) -> Any:
        def call(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if flags & WRITING and (error := self._error("os.open", path)):
                raise OSError(error, os.strerror(error), os.fsdecode(path))
            number: int = opened(path, flags, *given, **named)
            return number

        return call

    def _fsync(self, fsync: Any) -> Any:
        def call(number: int) -> None:
            if error := self._error("fsync", os.readlink(f"/proc/self/fd/{number}")):
                raise OSError(error, os.strerror(error))
            fsync(number)

        return call

    def _call(self, name: str, called: Any) -> Any:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            # What is removed beside a folder that is open has no path; the rest changes nothing.
            idle = named.get("dir_fd") is not None or os.path.lexists(path) == (name == "mkdir")
            if not idle and (error := self._error(name, path)):
                raise OSError(error, os.strerror(error), os.fsdecode(path))
            return called(path, *given, **named)

        return call

    def _save_file(self, save_file: Any) -> Any:
        def call(tensors: Any, path: Any) -> None:
            if error := self._error("save_file", path):
                told = f"Error while serializing: I/O error: {os.strerror(error)}"
                raise SafetensorError(f"{told} (os error {error})")
            save_file(tensors, path)

        return call


class Full:
    """A file on a full disk: half of what it is given is written."""

    def __init__(self, file: Any, writes: Writes) -> None:
        self._file, self._writes = file, writes
        writes.harmless = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        self._writes.harmless = False
        self._file.write(bytes(data)[: len(data) // 2] if not isinstance(data, str) else data[:9])
        self._file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
