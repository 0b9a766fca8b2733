"""What a worker's process writes, kept while it lives: the last lines of one that dies say why.

Nothing of it is printed beside the run's own words.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from tempfile import NamedTemporaryFile

NUM_LINES, LENGTH = 3, 200  # of what is told
READ = 16_384  # bytes, from the end


class Written:
    """The file that a process writes to, as the process that started it sees it."""

    def __init__(self) -> None:
        self._file = NamedTemporaryFile(  # noqa: SIM115
            prefix="ddmd_bench_", suffix=".txt", delete=False
        )
        self.name = self._file.name
        self._start = 0

    def begin(self) -> None:
        """What is there already belongs to an earlier task."""
        self._start = self._file.seek(0, os.SEEK_END)

    def last_lines(self) -> list[str]:
        """Of what was written since."""
        self._file.seek(max(self._start, self._file.seek(0, os.SEEK_END) - READ))
        lines = self._file.read().decode(errors="replace").splitlines()
        return [line.strip()[:LENGTH] for line in lines if line.strip()][-NUM_LINES:]

    def close(self) -> None:
        """Nothing is left of it."""
        self._file.close()
        Path(self.name).unlink(missing_ok=True)


def write_to(file: str) -> None:
    """From now on all that this process prints goes to the file, its libraries' C code included."""
    opened = os.open(file, os.O_WRONLY | os.O_APPEND)
    # Both have it open now: without a name it goes with them, however they end.
    Path(file).unlink(missing_ok=True)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        os.dup2(opened, number)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # what is in a buffer dies with the process
    os.close(opened)
