"""Every write of a whole run fails once: nothing finished is lost, and running again ends the same.

Stage by stage, in this process: a command is repeated, and each time the next write that has not
failed yet does. With `--whole` every write fails in every way, else one in so many in some way.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from faults import FAULTS, FREEING, Fault, Write, Writes
from typer.testing import CliRunner, Result

from ddmd_bench.commands.cli import app
from ddmd_bench.files import stopping
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.task import Task
from ddmd_bench.run import tasks, workers

SUITE = {
    "name": "tiny",
    "title": "Tiny",
    "backend": "shapes",
    "prompts": {"seen": {"source": "shapes/seen", "num_prompts": 3}},
    "reference": {"images_per_prompt": 1},
    "train": {
        "num_iterations": 2,
        "batch_size": 4,
        "checkpoint_every": 1,
        "fake_score_updates": 1,
    },
    "evaluation": {
        "at": [0, 1],
        "num_prompts": 1,
        "metrics": ["saturation"],
        "keep_best": "saturation",
    },
    "students": {
        "teacher": {"source": "teacher", "num_inference_steps": 1, "guidance_scale": 1},
        "dmd": {"method": "dmd"},
    },
    "baseline": "dmd",
    "metrics": ["saturation", "frechet_attributes"],
}
# What a run ends without having removed.
NOT_NEEDED = ("lock.json", "checkpoint.pt", "drawn.jsonl", "failed.json", "traceback.txt")
STAGES = ("reference", "train", "generate", "score", "report")


class Inline:
    """A worker that does its task in this process."""

    def __init__(self, plan: Plan, slot: workers.Slot) -> None:
        self.plan, self.task, self.stage = plan, None, None
        self.said: list[Any] = []

    def begin(self, task: Task) -> None:
        self.task, self.stage = task, task.stage  # type: ignore[assignment]
        self.said.append(workers.done(task, self.plan, self.said.append))

    def messages(self) -> Iterator[Any]:
        said, self.said, self.task = self.said, [], None
        yield from said

    def stop(self) -> None: ...

    def end(self) -> None:
        self.stage = None


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Goes into a folder of that name, where all is done in this process."""
    monkeypatch.setattr(tasks, "Worker", Inline)
    monkeypatch.setattr(tasks, "wait_for", lambda crew, seconds: None)
    before = signal.getsignal(signal.SIGTERM)

    def enter(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tiny.yaml").write_text(json.dumps(SUITE))
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return folder

    yield enter
    signal.signal(signal.SIGTERM, before)
    stopping._Request.asked = False


def command(stage: str) -> Result:
    stopping._Request.asked = False
    return CliRunner().invoke(app, [stage, "tiny.yaml"])


def contents(folder: Path) -> dict[str, Any]:
    """What files hold, but for what a clock measured and when a file was packed."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name in ("cache", *NOT_NEEDED):
            continue
        if path.is_dir():
            found |= {f"{path.name}/{name}": held for name, held in contents(path).items()}
        elif path.name == "report.json":
            record = json.loads(path.read_bytes())
            found[path.name] = {k: v for k, v in record.items() if k not in ("clock", "key")}
        elif path.name in ("done.json", "index.html", "diagnostics.parquet"):
            found[path.name] = None
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                # Facts tell by which files' times an answer is known again.
                found[path.name] = {k: arrays[k].tobytes() for k in arrays if k != "facts"}
        else:
            found[path.name] = path.read_bytes()
    return found


def require_whole(path: Path) -> None:
    """A file under its own name is no part of one."""
    data = path.read_bytes()
    match path.suffix:
        case ".json":
            json.loads(data)
        case ".jsonl":
            # What is drawn is told line by line, and a last one that is cut is no line.
            whole = data.rpartition(b"\n")[0] if path.name.startswith("drawn") else data
            [json.loads(line) for line in whole.splitlines()]
        case ".parquet":
            pd.read_parquet(io.BytesIO(data))
        case ".npy":
            np.load(io.BytesIO(data))
        case ".npz" | ".pt":
            assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
        case ".safetensors":
            from safetensors.torch import load

            load(data)


def finished(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.glob("runs/tiny/*/*/done.json")}


class Chosen:
    """Every so many of the writes that were not seen before."""

    def __init__(self, every: int) -> None:
        self.every, self.seen = every, set[Write]()

    def __call__(self, write: Write) -> bool:
        if write in self.seen:
            return False
        self.seen.add(write)
        return len(self.seen) % self.every == 0


class Tried(NamedTuple):
    """How a command went in which a write was to fail."""

    failed: Write | None  # the one that did, if any
    ended: bool  # all the same


def failing(folder: Path, stage: str, fault: Fault, chosen: Chosen) -> Tried:
    """Do a stage while a write fails, after which all is as it should be."""
    before = finished(folder)
    with Writes(folder, fault, chosen) as writes:
        result = command(stage)
    told = f"{stage}, {writes.failed}: {result.exit_code} {result.output}"
    assert isinstance(result.exception, SystemExit | None), told
    assert "Traceback" not in result.output, told
    expected = (0, 143) if fault.signal else (0, 2, 3)
    assert result.exit_code in expected, told
    if result.exit_code:
        assert "run again" in result.output.lower(), told
        assert ".tmp" not in result.output, told
    elif writes.failed:
        failed = Path(writes.failed.path)  # what is in the cache is found out again
        name = failed.name.removeprefix(".").removesuffix(".tmp")
        needed = name not in NOT_NEEDED and failed.parts[0] != "cache"
        needed &= writes.failed.call not in FREEING  # what has served costs room, nothing else
        needed &= not (folder / failed).is_dir()  # a file without a name, else it has one
        assert not needed or writes.harmless or fault.signal, told
    require_kept(folder, before)
    for path in folder.rglob("*"):
        # An image is there once the journal beside its folder names it.
        if path.is_file() and path.suffix != ".png":
            assert not path.name.endswith(".tmp") or fault.stays, path
            require_whole(path)
    return Tried(writes.failed, not result.exit_code)


def killed(folder: Path, stage: str, fault: Fault, chosen: Chosen) -> Tried:
    """The same in a process of its own that is killed there."""
    ours, theirs = os.pipe()
    before = finished(folder)
    if not (child := os.fork()):
        with Writes(folder, fault, lambda write: _told(theirs, write, chosen(write))):
            os._exit(command(stage).exit_code)
    os.close(theirs)
    with open(ours, encoding="utf-8") as pipe:
        rows = [json.loads(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    writes = [Write(*row[:2]) for row in rows if chosen(Write(*row[:2]))]
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if writes else 0)
    require_kept(folder, before)
    return Tried(writes[0] if writes else None, not writes)


def put_back(folder: Path, kept: Path) -> None:
    """What was there before a stage, where that got to its end in spite of a fault."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, folder, dirs_exist_ok=True)


def _told(pipe: int, write: Write, fails: bool) -> bool:
    os.write(pipe, (json.dumps(write) + "\n").encode())
    return fails


def require_kept(folder: Path, before: dict[str, int]) -> None:
    """What was finished is, and was not done again."""
    after = finished(folder)
    assert {path: after.get(path) for path in before} == before


@pytest.mark.long
def test_every_write_fails_and_the_end_is_the_same(
    world: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    whole = world("whole")
    for stage in STAGES:
        assert (result := command(stage)).exit_code == 0, result.output
    expected = contents(whole)
    if pytestconfig.getoption("whole"):
        ways, every = [[name] for name in FAULTS], 1
    else:
        ways, every = [[*FAULTS]], 8
    for names in ways:
        folder, chosen, turns = world("-".join(names)), Chosen(every), cycle(names)
        failed, wrong = Counter[str](), list[str]()
        for stage in STAGES:
            kept = shutil.copytree(folder, folder.with_name(f"{folder.name} {stage}"))
            tried = Tried(None, ended=True)
            while True:
                name = next(turns)
                do = killed if name == "killed" else failing
                try:
                    tried = do(folder, stage, FAULTS[name], chosen)
                except AssertionError as error:  # all of them at once: a whole run takes long
                    wrong.append(str(error))
                if tried.failed is None:
                    break
                if tried.ended:
                    put_back(folder, kept)
                failed[name] += 1
            assert (result := command(stage)).exit_code == 0, result.output
        assert contents(folder) == expected
        sys.stdout.write(f"of {len(chosen.seen)} writes failed {dict(failed)}\n")
        assert not wrong, "\n".join(wrong)
        assert failed.total() >= len(chosen.seen) // every // 2


@pytest.mark.long
def test_killed_at_random_moments_it_ends_the_same(
    world: Callable[[str], Path], pytestconfig: pytest.Config
) -> None:
    """Forked, so that a whole run takes what its work takes: 50 of them with `--whole`."""
    whole = world("whole")
    begun = time.monotonic()
    assert _forked_run().wait() == 0
    seconds, expected = time.monotonic() - begun, contents(whole)
    draws, ends = random.Random(0), Counter[int]()
    for number in range(50 if pytestconfig.getoption("whole") else 2):
        folder = world(f"killed {number}")
        run = _forked_run()
        time.sleep(draws.uniform(0, seconds))
        before = finished(folder)
        os.kill(run.pid, signal.SIGKILL)
        ends[run.wait()] += 1
        assert _forked_run().wait() == 0
        require_kept(folder, before)
        assert contents(folder) == expected
    sys.stdout.write(f"runs of {seconds:.1f} s ended with {dict(ends)}, then whole\n")
    assert ends[-signal.SIGKILL]


class _Forked(NamedTuple):
    pid: int

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _forked_run() -> _Forked:
    if child := os.fork():
        return _Forked(child)
    os._exit(command("run").exit_code)
