"""The environment in which the authors' packages import: made once, kept in the cache, checked.

    <cache>/vendors/KEY/env-1        KEY: of the pins, the version of Python and the machine
    <cache>/vendors/KEY/made.json    which of them is whole; written last

Their packages need versions that ours is past, so that one environment cannot hold both.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.forms import NUMBER
from ddmd_bench.files.locks import locked
from ddmd_bench.files.records import cache_folder, content_key, read_record, write_json
from ddmd_bench.planning.sizes import gigabytes

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PACKAGES = Path(__file__).with_name("packages.txt")  # installed without their dependencies
MADE = "made.json"
MADE_FORM = {"env": str, "python": str, "installed_by": str, "seconds": NUMBER, "bytes": int}
# On Linux 6.1 GB are installed, torch's libraries for CUDA among them. What an installer holds
# packed meanwhile was not measured: room for two thirds of that is asked for.
INSTALLED, PACKED = 6_500_000_000, 4_000_000_000
NUM_LINES, LENGTH = 3, 300  # of what an installer said

Command = Sequence[str]


def _by_uv(env: Path) -> tuple[Command, Command]:
    return (
        ("uv", "venv", "--quiet", "--python", sys.executable, str(env)),
        ("uv", "pip", "install", "--quiet", "--python", str(interpreter_in(env))),
    )


def _by_pip(env: Path) -> tuple[Command, Command]:
    return (
        (sys.executable, "-m", "venv", str(env)),
        (
            str(interpreter_in(env)), "-m", "pip", "install", "--quiet", "--no-cache-dir",
            "--disable-pip-version-check",
        ),
    )  # fmt: skip


# How an environment is made, and how something is installed into it; the first that is on PATH.
INSTALLERS: Mapping[str, Callable[[Path], tuple[Command, Command]]] = {"uv": _by_uv, "pip": _by_pip}


def environment_folder() -> Path:
    """Where the environment of these pins is, or will be."""
    machine = [sys.platform, platform.machine(), *sys.version_info[:2]]
    pins = [requirements(path) for path in (REQUIREMENTS, PACKAGES)]
    return cache_folder() / "vendors" / content_key([pins, machine])


def requirements(path: Path) -> list[str]:
    """What a file of pins asks for, a package a line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def interpreter_in(env: Path) -> Path:
    """The interpreter of a virtual environment."""
    return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interpreter(tell: Callable[[str], None], remake: bool = False) -> Path:
    """The environment's interpreter; it is made where it is not there, or where it shall be anew.

    Of several processes one makes it and the others wait. One that is made anew takes the place of
    the one before when it is whole. `tell` hears what takes long.
    """
    folder = environment_folder()
    if remake or not (folder / MADE).is_file():
        tell(f"an environment of the authors' packages is wanted in {folder}; one process makes it")
        with locked(folder):
            if remake or not (folder / MADE).is_file():  # nobody made it while this one waited
                _make(folder, tell)
    return interpreter_in(folder / _read(folder)["env"])


def broken(folder: Path, why: str) -> BenchError:
    """The error for an environment that was made and does not work."""
    return BenchError(f"{folder}: this environment of the authors' packages is broken: {why}. "
                      f"{_again(folder)}")  # fmt: skip


def _again(folder: Path) -> str:
    return f"Make it again: --remake, or delete {folder}"


def _read(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_record(folder / MADE, MADE_FORM, _again(folder))
    return record


def _keep_only(folder: Path, name: str) -> None:
    """Delete every environment but one: those before, and what a kill has left of one."""
    for env in folder.glob("env*"):
        if env.name != name:
            shutil.rmtree(env, ignore_errors=True)


def _make(folder: Path, tell: Callable[[str], None]) -> None:
    try:
        before = str(_read(folder)["env"])
    except BenchError:  # none, or no record that can be read
        before = ""
    _keep_only(folder, before)
    env = folder / ("env-2" if before == "env-1" else "env-1")
    _require_room(folder)
    name = next((name for name in INSTALLERS if name != "pip" and shutil.which(name)), "pip")
    tell(
        f"making the environment of the authors' packages by {name}, once, in {folder}: up to "
        f"{gigabytes(INSTALLED)} and some minutes"
    )
    start = time.monotonic()
    create, install = INSTALLERS[name](env)
    steps = (create, (*install, "-r", str(REQUIREMENTS)),
             (*install, "--no-deps", "-r", str(PACKAGES)))  # fmt: skip
    log = folder / "install.log"
    log.unlink(missing_ok=True)
    try:
        for step in steps:
            _run(step, log, env, name)
    except BaseException:
        shutil.rmtree(env, ignore_errors=True)  # gigabytes that nobody would use
        raise
    made = {
        "env": env.name, "python": platform.python_version(), "installed_by": name,
        "seconds": round(time.monotonic() - start, 1), "bytes": _size(env),
    }  # fmt: skip
    write_json(folder / MADE, made)
    _keep_only(folder, env.name)
    tell(f"made in {made['seconds']:.0f} s, {gigabytes(_size(env))}")


def _require_room(folder: Path) -> None:
    """Room for what is installed, and where temporary files go for what is still packed."""
    wanted: dict[int, tuple[Path, int]] = {}
    for place, size in ((folder, INSTALLED), (Path(gettempdir()), PACKED)):
        disk = place.stat().st_dev
        first, before = wanted.get(disk, (place, 0))
        wanted[disk] = first, before + size
    for place, size in wanted.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise BenchError(
                f"no room on the disk: {gigabytes(free)} are free in {place}, and the environment "
                f"of the authors' packages takes up to {gigabytes(size)} there. Make room, or set "
                "XDG_CACHE_HOME (and TMPDIR) to a folder on another disk"
            )


def _run(command: Command, log: Path, env: Path, name: str) -> None:
    with log.open("ab") as file:
        try:
            ended = subprocess.run(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                                   check=False)  # fmt: skip
            said, failed = last_lines(log.read_text("utf-8", "replace")), ended.returncode != 0
        except OSError as error:
            said, failed = str(error), True
    if failed:
        raise BenchError(
            f"{name} could not make the environment of the authors' packages in {env.parent}: "
            f"{said or 'it said nothing'}. It needs a network, or an index of packages that {name} "
            f"is set to and that has {REQUIREMENTS} and {PACKAGES}. All that it said is in {log}; "
            "nothing half made is kept, run again"
        )


def last_lines(text: str) -> str:
    """What a process wrote last, in one line; of an installer its errors."""
    lines = [line.strip() for line in text.splitlines()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    chosen = (errors or [line for line in lines if line])[-NUM_LINES:]
    return "; ".join(line.rstrip(".")[:LENGTH] for line in chosen)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in paths)
