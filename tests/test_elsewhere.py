"""Runs on other storage: copied once, read from there, and whole or absent."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from conftest import TINY
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner, Result

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.files import elsewhere
from ddmd_bench.files.elsewhere import here, is_elsewhere, mirrored, pulled, pushed
from ddmd_bench.run import progress

URL = "memory://lab/runs"


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield fsspec.filesystem("memory")
    MemoryFileSystem.store.clear()


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("copied.json")
    }


def raising(error: BaseException) -> Callable[..., Any]:
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


FILES = {"train/a/done.json": "{}", "train/a/w.bin": "1", "train/a/x/0.png": "2", "b.txt": "3"}


def test_only_what_is_new_is_copied(tmp_path: Path, storage: Any) -> None:
    folder = write(tmp_path / "run", {**FILES, "lock.json": "mine", ".w.bin.7.tmp": "half"})
    assert pushed(folder, f"{URL}/run", quiet) == 4
    assert pushed(folder, f"{URL}/run", quiet) == 0
    (folder / "b.txt").write_text("4")
    os.utime(folder / "b.txt", ns=(1, 1))
    assert pushed(folder, f"{URL}/run", quiet) == 1
    got = []
    get_file = MemoryFileSystem.get_file

    def counted(self: Any, path: str, *rest: Any, **named: Any) -> None:
        got.append(path.rpartition("/")[2])
        get_file(self, path, *rest, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MemoryFileSystem, "get_file", counted)
        copy = mirrored(f"{URL}/run", tmp_path / "copy")
        assert texts(copy / "run") == {**FILES, "b.txt": "4"}
        assert got[-1] == "done.json"  # a reader finds no half of a task
        got.clear()
        storage.pipe_file("/lab/runs/run/train/a/w.bin", b"5")
        storage.rm_file("/lab/runs/run/b.txt")
        (copy / "run" / "train/a/x/0.png").unlink()
        mirrored(f"{URL}/run", copy)
    assert sorted(got) == ["0.png", "w.bin"]
    left = {name: text for name, text in FILES.items() if name != "b.txt"}
    assert texts(copy / "run") == {**left, "train/a/w.bin": "5"}


def test_a_file_is_a_copy_in_the_cache(tmp_path: Path, storage: Any) -> None:
    storage.pipe_file("/lab/report.json", b"{}")
    path = here("memory://lab/report.json")
    assert path.name == "report.json"
    assert path.read_text() == "{}"
    storage.pipe_file("/lab/report.json", b"[]")
    assert here("memory://lab/report.json").read_text() == "[]"
    assert here("some/report.json") == Path("some/report.json")
    assert [is_elsewhere(name) for name in ("s3://a", "C:/x", "a/b", "/a")] == [True, *[False] * 3]


def test_what_is_pulled_leaves_what_others_made(tmp_path: Path, storage: Any) -> None:
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    runs = write(tmp_path / "runs", {"run/b.txt": "own", "run/c.txt": "own", "other/b.txt": "own"})
    pulled(f"{URL}/run", runs, quiet)
    kept = {"run/b.txt": "own", "run/c.txt": "own", "other/b.txt": "own"}
    assert texts(runs) == {**{f"run/{name}": text for name, text in FILES.items()}, **kept}
    (runs / "run/train/a/w.bin").write_text("trained on")
    storage.rm_file("/lab/runs/run/train/a/x/0.png")
    pulled(f"{URL}/run", runs, quiet)
    assert texts(runs)["run/train/a/w.bin"] == "trained on"
    assert "run/train/a/x/0.png" in texts(runs)


def work_on(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(2, 2))  # a clock of any steps


def test_what_was_pulled_and_worked_on_stays(tmp_path: Path, storage: Any) -> None:
    """It was replaced once the storage moved; what others made was too, from the second pull on."""
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    runs = write(tmp_path / "runs", {"run/b.txt": "own"})
    pulled(f"{URL}/run", runs, quiet)
    pulled(f"{URL}/run", runs, quiet)
    work_on(runs / "run/train/a/w.bin", "trained on")
    for name in FILES:
        storage.pipe_file(f"/lab/runs/run/{name}", b"moved")
    pulled(f"{URL}/run", runs, quiet)
    moved = {f"run/{name}": "moved" for name in FILES}
    own = {"run/b.txt": "own", "run/train/a/w.bin": "trained on"}
    assert texts(runs) == {**moved, **own}


def test_what_was_sent_back_is_pulled_as_others_go_on_with_it(tmp_path: Path, storage: Any) -> None:
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    runs = tmp_path / "runs"
    pulled(f"{URL}/run", runs, quiet)
    work_on(runs / "run/train/a/w.bin", "trained on")
    pushed(runs / "run", f"{URL}/run", quiet)
    storage.pipe_file("/lab/runs/run/train/a/w.bin", b"and on")
    pulled(f"{URL}/run", runs, quiet)
    assert texts(runs)["run/train/a/w.bin"] == "and on"


@pytest.mark.parametrize("copied", [pulled, mirrored])
def test_a_copy_that_was_cut_off_goes_on(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch, copied: Callable[..., Any]
) -> None:
    """Its record came last: a pull took its own for others', a copy began from nothing."""
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    got: list[str] = []
    get_file, left = MemoryFileSystem.get_file, 2

    def breaking(self: Any, path: str, *rest: Any, **named: Any) -> None:
        if len(got) == left:
            raise ConnectionResetError("the line broke")
        get_file(self, path, *rest, **named)
        got.append(path.rpartition("/")[2])

    monkeypatch.setattr(MemoryFileSystem, "get_file", breaking)
    with pytest.raises(BenchError, match="the line broke"):
        copied(f"{URL}/run", tmp_path / "copy", quiet)
    assert got == ["b.txt", "w.bin"]
    storage.pipe_file("/lab/runs/run/b.txt", b"moved")
    left = 5
    copied(f"{URL}/run", tmp_path / "copy", quiet)
    assert got[2:] == ["b.txt", "0.png", "done.json"]
    assert texts(tmp_path / "copy/run") == {**FILES, "b.txt": "moved"}


def test_what_was_copied_is_noted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill leaves no time for it."""
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    monkeypatch.setattr(elsewhere, "NOTED_EVERY_S", 0.0)
    noted: list[int] = []

    def tell(done: int, total: int) -> None:
        record = tmp_path / "copy/run-copied.json"
        noted.append(len(json.loads(record.read_text())) if record.is_file() else 0)

    pulled(f"{URL}/run", tmp_path / "copy", tell)
    assert noted == [0, 1, 2, 3]


def test_a_record_of_earlier_code_is_read(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no sizes and times: nothing is copied again, and what may be worked on stays."""
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)
    record = tmp_path / "copy/run-copied.json"
    mirrored(f"{URL}/run", tmp_path / "copy")
    earlier = {place: told["of"] for place, told in json.loads(record.read_text()).items()}
    record.write_text(json.dumps(earlier))
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "get_file", raising(AssertionError("copied again")))
        mirrored(f"{URL}/run", tmp_path / "copy")
    record.write_text(json.dumps(earlier))
    storage.pipe_file("/lab/runs/run/b.txt", b"moved")
    pulled(f"{URL}/run", tmp_path / "copy", quiet)
    assert texts(tmp_path / "copy/run") == FILES


def test_what_links_lead_to_is_pushed(tmp_path: Path) -> None:
    """A stage that lay on a larger disk was left out, and nothing said so."""
    folder = write(tmp_path / "run", {"b.txt": "3"})
    large = write(tmp_path / "large", {"a/0.png": "2", "w.bin": "1"})
    (folder / "generate").symlink_to(large)
    (folder / "w.bin").symlink_to(large / "w.bin")
    (folder / "itself").symlink_to(folder)
    (large / "back").symlink_to(folder)
    assert pushed(folder, f"{URL}/run", quiet) == 4
    left = {"b.txt": "3", "w.bin": "1", "generate/a/0.png": "2", "generate/w.bin": "1"}
    assert texts(mirrored(f"{URL}/run", tmp_path / "copy") / "run") == left
    (folder / "w.bin").unlink()
    large.rename(tmp_path / "away")
    with pytest.raises(BenchError, match=r"generate: a link to what is not there, .*large\. Mount"):
        pushed(folder, f"{URL}/run", quiet)


@pytest.mark.parametrize("gone", ["train/a/w.bin", "train"])
def test_what_vanishes_while_it_is_pushed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """A run under way removes checkpoints and parts; the storage was said not to be reached."""
    folder = write(tmp_path / "run", FILES)
    put_file = MemoryFileSystem.put_file

    def vanishing(self: Any, path: str, *rest: Any, **named: Any) -> None:
        for place in (folder / gone, *(folder / gone).rglob("*")):
            if place.is_file():
                place.unlink()
        put_file(self, path, *rest, **named)

    monkeypatch.setattr(MemoryFileSystem, "put_file", vanishing)
    left = {name: text for name, text in FILES.items() if not name.startswith(gone)}
    assert pushed(folder, f"{URL}/run", quiet) == len(left)
    assert texts(mirrored(f"{URL}/run", tmp_path / "copy") / "run") == left
    assert pushed(folder, f"{URL}/run", quiet) == 0


@pytest.mark.parametrize("ends", [ConnectionResetError("the line broke"), KeyboardInterrupt()])
def test_a_push_that_was_cut_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    """Its record came last: all was sent again."""
    folder = write(tmp_path / "run", FILES)
    put: list[str] = []
    put_file, left = MemoryFileSystem.put_file, 3

    def breaking(self: Any, path: str, *rest: Any, **named: Any) -> None:
        if len(put) == left:
            raise ends
        put_file(self, path, *rest, **named)
        put.append(path.rpartition("/")[2])

    monkeypatch.setattr(MemoryFileSystem, "put_file", breaking)
    with pytest.raises((BenchError, KeyboardInterrupt)):
        pushed(folder, f"{URL}/run", quiet)
    left = 9
    assert pushed(folder, f"{URL}/run", quiet) == 1
    assert put == ["b.txt", "w.bin", "0.png", "done.json"]


def test_what_was_pushed_is_noted_meanwhile(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "run", FILES)
    monkeypatch.setattr(elsewhere, "NOTED_EVERY_S", 0.0)
    noted: list[int] = []

    def tell(done: int, total: int) -> None:
        record = "/lab/runs/run/copied.json"
        noted.append(len(json.loads(storage.cat_file(record))) if storage.isfile(record) else 0)

    pushed(folder, f"{URL}/run", tell)
    assert noted == [0, 1, 2, 3]


def test_a_copy_that_breaks_off_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(write(tmp_path / "there", FILES), f"{URL}/run", quiet)

    def broken(self: Any, path: str, target: str, **named: Any) -> None:
        Path(target).write_bytes(b"ha")
        raise ConnectionResetError("the line broke")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "get_file", broken)
        with pytest.raises(BenchError, match=r"memory://lab/runs/run: .*the line broke.* network"):
            mirrored(f"{URL}/run", tmp_path / "copy")
    assert texts(tmp_path) == {f"there/{name}": text for name, text in FILES.items()}
    assert texts(mirrored(f"{URL}/run", tmp_path / "copy") / "run") == FILES


def test_an_error_of_this_machine_is_none_of_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told as one of the name, the network or the account."""
    folder = write(tmp_path / "there", FILES)
    pushed(folder, f"{URL}/run", quiet)

    forbidden = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "copy"))
    for owner, name, error in (
        (Path, "mkdir", forbidden),  # of the cache
        (os, "fsync", OSError(errno.EIO, "Input/output error")),
        (MemoryFileSystem, "get_file", OSError(errno.EMFILE, "Too many open files")),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, raising(error))
            with pytest.raises(OSError, match=error.strerror) as raised:
                mirrored(f"{URL}/run", tmp_path / "copy")
        assert str(tmp_path / "copy") in str(raised.value.filename)

    monkeypatch.chdir(tmp_path)  # a library may name the whole path of a file
    write(folder, {"b.txt": "45"})
    forbidden.filename = str(folder / "b.txt")
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", raising(forbidden))
        with pytest.raises(PermissionError):
            pushed(Path("there"), f"{URL}/run", quiet)
    forbidden.filename = None  # of an account of the storage
    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", raising(forbidden))
        with pytest.raises(BenchError, match="the account that its storage asks for"):
            pushed(Path("there"), f"{URL}/run", quiet)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://lab/none", "nothing is there"),
        ("nosuch://lab/runs", "no way to reach it.*nosuch"),
    ],
)
def test_what_is_not_there_is_said(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=said):
        mirrored(url, tmp_path)


def test_a_name_that_leads_out_is_refused(tmp_path: Path, storage: Any) -> None:
    storage.pipe_file("/lab/runs/run/a\\..\\b", b"x")
    with pytest.raises(BenchError, match="no plain path below its folder"):
        mirrored(f"{URL}/run", tmp_path / "copy")


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_a_run_that_goes_on_here_alone_is_none_there(
    tmp_path: Path, storage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress was pushed, and `watch` there waited for it without end."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(TINY))
    write(Path("runs/tiny"), {**FILES, progress.FILE: "{}"})
    result = command("push", "tiny.yaml", URL)
    assert result.exit_code == 0, result.output
    assert "4 files that were not there" in result.output
    assert not storage.exists(f"/lab/runs/tiny/{progress.FILE}")


@pytest.mark.long
def test_a_run_is_reported_checked_and_verified_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    students = {name: TINY["students"][name] for name in ("real", "teacher_2")}
    suite = {**TINY, "students": students, "baseline": "teacher_2"}
    Path("tiny.yaml").write_text(json.dumps(suite))
    assert command("run", "tiny.yaml", "--workers", 1).exit_code == 0
    assert command("push", "tiny.yaml", URL).exit_code == 0
    assert "0 files that were not there" in command("push", "tiny.yaml", URL).output
    assert command("pack", "tiny.yaml").exit_code == 0
    storage = fsspec.filesystem("memory")
    storage.put_file("tiny.tar", "/lab/tiny.tar")
    storage.put_file("reports/tiny/report.json", "/lab/report.json")
    Path("runs").rename("away")

    result = command("report", "tiny.yaml", "--runs", URL, "--reports", "again")
    assert result.exit_code == 0, result.output
    reports = [json.loads(Path(f, "tiny/report.json").read_text()) for f in ("reports", "again")]
    assert reports[0]["table"] == reports[1]["table"]
    result = command("verify", "tiny.yaml", "--runs", URL, "--reports", "again")
    assert result.exit_code == 0, result.output
    asked = ["--student", "teacher_2", "--against", "teacher_2"]
    for baseline in ("memory://lab/report.json", "memory://lab/tiny.tar"):
        result = command(
            "check",
            "tiny.yaml",
            "--runs",
            URL,
            "--reports",
            "again",
            "--baseline",
            baseline,
            *asked,
        )
        assert result.exit_code in (0, 3), result.output
    assert command("verify", "memory://lab/tiny.tar").exit_code == 0
    result = command("compare", "memory://lab/report.json", "again/tiny")
    assert result.exit_code == 0, result.output

    assert command("pull", "tiny.yaml", URL).exit_code == 0
    result = command("run", "tiny.yaml", "--workers", 1)
    assert "0 tasks done" in result.output, result.output
    result = command("run", "tiny.yaml", "--runs", URL)
    assert result.exit_code == 2
    assert "pull" in result.output
    result = command("push", "tiny.yaml", "elsewhere")
    assert result.exit_code == 2
    assert "expected a URL" in result.output
