"""What networks compute in is set in one place, round every stage and command that computes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.files.numerics import numerics
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.run.workers import done
from ddmd_bench.suite.files import load_suite

SET = {
    "matmul": "highest",
    "tf32": False,
    "benchmark": False,
    "deterministic": True,
    "warn_only": True,
    "workspace": ":4096:8",
}


def found() -> dict[str, Any]:
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


@pytest.fixture
def otherwise() -> Any:
    """A process that has set everything otherwise, as a notebook may have."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1], False


def test_all_is_set_inside_and_as_it_was_afterwards(otherwise: None) -> None:
    outside = found()
    assert not any(outside[name] == SET[name] for name in SET)
    with numerics():
        assert found() == SET
        with numerics():
            assert found() == SET
        assert found() == SET
    assert found() == outside

    def fail() -> None:
        with numerics():
            raise ValueError("a stage fails")

    with pytest.raises(ValueError, match="a stage fails"):
        fail()
    assert found() == outside


def test_a_workspace_that_was_asked_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with numerics():
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_every_stage_computes_so(
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    otherwise: None,
) -> None:
    """Whatever its name: a worker enters it before it calls the stage."""
    plan = make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")
    seen: list[dict[str, Any]] = []
    stages = {task.stage: task for task in plan.tasks.values()}
    for stage, task in stages.items():
        module = f"ddmd_bench.stages.{stage}.{stage}"
        monkeypatch.setattr(module, lambda *_: seen.append(found()))
        done(task, plan, lambda message: None)
    assert len(stages) > 3
    assert seen == [SET] * len(stages)


def test_so_do_the_commands_that_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, otherwise: None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{k}.png")
    seen: list[dict[str, Any]] = []

    def stop(*_: Any, **__: Any) -> None:
        seen.append(found())
        raise KeyboardInterrupt

    commands = {
        "ddmd_bench.measuring.folder.score_folder": ["score", "images", "--metrics", "std"],
        "ddmd_bench.measuring.doctor.examine": ["doctor", "images"],
        "ddmd_bench.measuring.reference_build.build": [
            "stats",
            "build",
            "images",
            "out",
            "--scorers=x",
        ],
        "ddmd_bench.students.export.export": ["export", "shapes_smoke", "dmd", "out"],
    }
    # Nothing is trained here.
    monkeypatch.setattr("ddmd_bench.planning.plan.Plan.trained", lambda *_: None)
    for function, arguments in commands.items():
        monkeypatch.setattr(function, stop)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 130, result.output
    assert seen == [SET] * len(commands)
