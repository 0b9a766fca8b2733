"""Commands in fresh processes, and what they take."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Spent(NamedTuple):
    """Seconds of a command."""

    wall: float
    cpu: float  # of the process and of all that it waited for, in user and system mode


def spent(arguments: Sequence[str], exit_code: int = 0) -> Spent:
    """What `python ARGUMENTS` takes from the clone's root; another exit code ends the benchmark."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        # Unlike RUSAGE_CHILDREN, of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != exit_code:
            output.seek(0)
            command = " ".join(arguments)
            sys.exit(f"{command}: exit code {process.returncode}, not {exit_code}\n{output.read()}")
    return Spent(wall, usage.ru_utime + usage.ru_stime)


def medians(
    commands: Mapping[str, Sequence[str]], rounds: int, exit_codes: Mapping[str, int]
) -> dict[str, Spent]:
    """Of each command over the rounds, in each of which all take turns."""
    found: dict[str, list[Spent]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, arguments in commands.items():
            found[name].append(spent(arguments, exit_codes.get(name, 0)))
    return {
        name: Spent(*map(statistics.median, zip(*times, strict=True)))
        for name, times in found.items()
    }
