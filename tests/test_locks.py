"""One process at a time in a folder, and none after its death."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.files.locks import locked

HOLDER = """
import sys, time
from pathlib import Path
from ddmd_bench.files.locks import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_is_there(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    told = rf"in use by process {other.pid} on \S+ since .*\. Take another"
    with pytest.raises(BenchError, match=told), locked(tmp_path, "Take another"):
        pass


def test_a_dead_holder_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    with locked(tmp_path, "Take another"):  # though the file that names the dead one is there
        assert json.loads((tmp_path / "lock.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / "lock.json").exists()


def test_without_a_remedy_it_waits(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    start = time.monotonic()
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {other.pid}"])
    with locked(tmp_path):
        assert time.monotonic() - start >= 0.3
    killer.wait()


@pytest.mark.parametrize("remedy", ["", "Take another"])
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    """Lustre without flock: what filelock would take instead, a file, outlives its holder."""

    def without(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    told = r"no locks on this file system \(.*flock.*--runs.*XDG_CACHE_HOME"
    with pytest.raises(BenchError, match=told), locked(tmp_path, remedy):
        pass
    assert not (tmp_path / "lock.json").exists()


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "Take another"):
        raise ZeroDivisionError
    with locked(tmp_path, "Take another"):
        pass


def test_one_run_at_a_time_in_a_folder(
    tmp_path: Path,
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_suite(tiny)
    monkeypatch.chdir(tmp_path)
    with locked(Path("runs") / "tiny"):
        result = CliRunner().invoke(app, ["run", "tiny.yaml"])
    assert result.exit_code == 2
    assert f"is in use by process {os.getpid()}" in result.stderr
    assert "--runs" in result.stderr
    assert not list(Path("runs").rglob("done.json"))
