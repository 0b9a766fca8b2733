"""What a prompt decides of a teacher's prediction: `prompt_share`, `doctor SUITE`, `plan`."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_sdxl
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.commands.cli import app
from ddmd_bench.objective.guidance import prompt_share
from ddmd_bench.objective.process import flow_level
from ddmd_bench.planning.guidance import guidance_lines
from ddmd_bench.planning.part import Asked
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import Model

T_LIST, LEVEL = (1.0, 0.5), flow_level
SAME = "differ by 0.00%"


def run(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "400"}).invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_share_is_of_the_conditional_prediction() -> None:
    """A teacher that predicts its condition, a constant: |c - u| / |c| at every level."""

    def teacher(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        return torch.ones_like(x_t) * cond["value"].view(-1, 1, 1, 1)

    noises = [torch.randn(2, 3, 4, 4) for _ in T_LIST]
    cond, uncond = ({"value": torch.tensor(v)} for v in ([2.0, -2.0], [1.5, -1.5]))
    share = prompt_share(teacher, T_LIST, cond, uncond, noises, LEVEL)
    assert share == pytest.approx(0.25, abs=1e-12)
    assert prompt_share(teacher, T_LIST, cond, cond, noises, LEVEL) == 0


def test_the_share_is_taken_on_the_teachers_own_way() -> None:
    """The second level is met from the first prediction, noised again."""
    met = []

    def teacher(x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        met.append(x_t)
        return x_t.sign()

    noises = [torch.randn(1, 1, 4, 4) for _ in T_LIST]
    prompt_share(teacher, T_LIST, {}, {}, noises, LEVEL)
    assert torch.equal(met[0], noises[0])
    torch.testing.assert_close(met[2], 0.5 * noises[0].sign() + 0.5 * noises[1])


def test_a_teacher_that_predicts_nothing_is_none(
    tiny: dict[str, Any], write_suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddmd_bench.stages.doctor._prompt_share", lambda *_: float("nan"))
    suite = write_suite(tiny)
    found = run("doctor", suite)
    assert found.exit_code == 1
    assert "guidance: WRONG (its predictions are not finite" in found.output
    assert "amplify" not in run("plan", suite).output
    still = prompt_share(lambda x, t, c: 0 * x, T_LIST, {}, {}, [torch.ones(1, 1, 2, 2)] * 2, LEVEL)
    assert math.isnan(still)


class Deaf(nn.Module):
    """A network that is never told its prompt."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        found: Tensor = self.network(x_t, t, {key: value * 0 for key, value in cond.items()})
        return found


def test_plan_warns_of_a_teacher_that_doctor_found_deaf(
    tiny: dict[str, Any], write_suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(tiny)
    healthy = run("doctor", suite)
    assert healthy.exit_code == 0, healthy.output
    assert "teacher: guidance: ok (with and without its prompt" in healthy.output
    assert "CA has nothing to amplify" not in run("plan", suite).output

    def deaf(model: Model) -> Backend:
        made = shapes(model)
        return replace(made, load_teacher=lambda: Deaf(made.load_teacher()))

    shapes = BACKENDS["shapes"]
    with monkeypatch.context() as patched:
        patched.setitem(BACKENDS, "shapes", deaf)
        found = run("doctor", suite)
    assert found.exit_code == 1
    assert f"guidance: WRONG (with and without its prompt the teacher's predictions {SAME}" in (
        found.output
    )
    # What was measured is kept of the weights: any suite with them is warned.
    with_ca = [name for name, row in tiny["students"].items() if row.get("method") == "dmd"]
    planned = run("plan", suite).output
    assert f"{SAME}. CA has nothing to amplify" in planned
    assert all(name in planned.split(SAME)[0].splitlines()[-1] for name in with_ca)


def test_students_without_ca_are_no_concern(tiny: dict[str, Any], write_suite: Any) -> None:
    tiny["students"] = {"one": {"method": "dm_only"}}
    tiny |= {"baseline": "one", "claims": []}
    suite = write_suite(tiny)
    assert "amplify" not in run("plan", suite).output
    assert "teacher: guidance: not checked (no student is trained" in run("doctor", suite).output


def test_a_suites_scorers_are_examined_in_its_own_dtype(
    tiny: dict[str, Any], write_suite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its run examines them, unless the command line names another; other scorers are not."""
    seen = list[tuple[str, torch.dtype]]()

    def examine(scorers: list[str], device: str, dtype: torch.dtype) -> list[Any]:
        seen.append((scorers[0], dtype))
        return []

    monkeypatch.setattr("ddmd_bench.measuring.doctor.examine", examine)
    tiny["students"] = {"one": {"method": "dm_only"}}
    tiny |= {"baseline": "one", "claims": [], "metrics": ["hps_v21"]}
    suite = write_suite({**tiny, "scoring": {"dtype": "bfloat16"}})
    run("doctor", suite, "attributes")
    assert seen == [("hps_v21", torch.bfloat16), ("attributes", torch.float32)]
    seen.clear()
    run("doctor", suite, "attributes", "--dtype", "float32")
    assert seen == [("hps_v21", torch.float32), ("attributes", torch.float32)]


def test_a_teacher_that_is_a_few_step_student_is_named(
    tiny: dict[str, Any], write_suite: Any
) -> None:
    tiny |= {"backend": "sdxl", "model": {"repository": "stabilityai/sdxl-turbo"}}
    (line,) = guidance_lines(Asked.of(load_suite(write_suite(tiny))))
    assert "students.dmd, ca_only: their teacher stabilityai/sdxl-turbo is a few-step" in line


def test_what_is_neither_scorer_nor_suite_is_refused(tmp_path: Path) -> None:
    result = run("doctor", "hps_v22")
    assert result.exit_code == 2
    assert "unknown scorer 'hps_v22'" in result.output + str(result.exception)


def test_a_teacher_with_text_encoders_is_examined(
    tiny: dict[str, Any], write_suite: Any, tmp_path: Path
) -> None:
    """Its prompts are encoded for this alone: nothing is written beside a run."""
    repository = tiny_sdxl.write_repository(tmp_path / "repository")
    (tmp_path / "prompts.txt").write_text("a cat\ntwo dogs\n")
    tiny |= {
        "backend": "sdxl",
        "model": {"repository": str(repository), "resolution": tiny_sdxl.RESOLUTION},
        "prompts": {"some": {"source": str(tmp_path / "prompts.txt"), "num_prompts": 2}},
        "train_data": {"prompts": {"source": str(tmp_path / "prompts.txt"), "num_prompts": 2}},
        "students": {"one": {"method": "dmd"}},
        "baseline": "one",
        "metrics": ["std"],
        "claims": [],
    }
    result = run("doctor", write_suite(tiny))
    assert "teacher: guidance: " in result.output, result.output
    assert not (tmp_path / "runs").exists()
