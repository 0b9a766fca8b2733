"""The commands: exit codes, and messages that say what to type."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import ddmd_bench
from ddmd_bench.commands.cli import app
from ddmd_bench.commands.options import as_told
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.checked import NOT_RUN, WRONG_USE
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.schema import Suite

WRONG = {"check": WRONG_USE}  # others end with 2, which is a verdict of this one
COMMANDS = ("run", "plan", "reference", "train", "generate", "score", "report", "check", "expect")


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command in an empty folder of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_suite_ends_before_anything_is_made(
    invoke: Callable[..., Result], command: str
) -> None:
    result = invoke(command, "shape")
    assert result.exit_code == WRONG.get(command, 2)
    assert "Did you mean 'shapes'?" in result.output
    assert "Did you mean 'shapes'?" in result.output
    assert "Traceback" not in result.output
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bad_override_ends_before_anything_is_made(
    invoke: Callable[..., Result], command: str
) -> None:
    result = invoke(command, "shapes", "--set", "trian.num_iterations=3")
    assert result.exit_code == WRONG.get(command, 2)
    assert "Did you mean 'train'?" in result.output
    assert list(Path.cwd().iterdir()) == []


def test_plan_prints_every_task_and_makes_nothing(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    short = invoke("plan", write_suite(tiny))
    for line in ("reference: 1 to do", "train: 2 to do", "generate: 4 to do", "score: 4 to do"):
        assert line in short.output.splitlines()
    result = invoke("plan", write_suite(tiny), "--verbose")
    assert result.exit_code == 0
    tasks = [line for line in result.output.splitlines() if line.endswith("to do")]
    assert len(tasks) == 1 + 2 + 4 + 4
    assert any(line.startswith("train ca_only ") for line in tasks)
    assert "5 prompts, 10 images a student, 4 students" in result.output
    assert list(Path.cwd().iterdir()) == []


def test_problems_of_one_source_are_one_line_with_the_suites_own_name() -> None:
    hpd = "suite x: prompts.{}.source: HPD is missing. Run `ddmd_bench fetch SUITE`"
    lines = [
        hpd.format("anime"),
        hpd.format("photo"),
        "suite x: prompts.parti.source: Parti is missing",
        "no room: SUITE is too large",
    ]
    assert as_told("\n".join(lines), "sdxl").split("\n") == [
        "suite x: prompts anime, photo: HPD is missing. Run `ddmd_bench fetch sdxl`",
        "suite x: prompts.parti.source: Parti is missing",
        "no room: SUITE is too large",
    ]
    assert as_told(lines[0], None) == lines[0]
    assert as_told("ddmd_bench run SUITE", r"C:\1.yaml") == r"ddmd_bench run C:\1.yaml"


def test_check_before_a_run_says_what_to_type(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    name = write_suite(tiny)
    result = invoke("check", name)
    assert result.exit_code == WRONG_USE
    assert f"python -m ddmd_bench expect {name} " in result.output
    shutil.copy(
        Path(__file__).parents[1] / "reference_stats" / "shapes_smoke.expected.json",
        "tiny.expected.json",
    )
    result = invoke("check", name, "--expected", "tiny.expected.json")
    assert result.exit_code == NOT_RUN
    assert "nothing to check yet: reference, " in result.output
    assert "and 8 more tasks not run" in result.output
    assert f"python -m ddmd_bench run {name}`" in result.output  # a file, as it was typed


def test_wrong_use_of_check_is_no_verdict(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    assert invoke("check", "--no-such-option", "shapes").exit_code == WRONG_USE
    assert invoke("check").exit_code == WRONG_USE
    result = invoke("check", write_suite(tiny), "--update")
    assert result.exit_code == WRONG_USE
    assert "--why" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("fetch --metrics mean --set seeds=[0]", "--set: leave it out"),
        ("fetch --metrics mean --runs runs", "--runs: leave it out"),
        ("verify a.tar --runs runs --reports r", "--runs: leave it out\n--reports: leave it out"),
        ("report a.tar --reports r --runs runs", "holds its run:\n--runs: leave it out\n"),
        ("plan shapes --report r", "--report: give --for METRIC=DIFFERENCE beside it"),
        ("check shapes --baseline r --expected r", "--expected: leave it out"),
        ("check shapes --student dmd --against sid --why so", "--why: give --update beside it"),
        ("check shapes --update --why so --junit a.xml --json", "--junit: leave it out\n--json"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    invoke: Callable[..., Result], arguments: str, said: str
) -> None:
    command, *others = arguments.split()
    result = invoke(command, *others)
    assert result.exit_code == WRONG.get(command, 2)
    assert said in result.output
    assert list(Path.cwd().iterdir()) == []


def test_a_stage_names_the_stage_that_must_come_first(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    name = write_suite(tiny)
    for command, before, missing in (
        ("generate", "train", "train dmd, train ca_only"),
        ("score", "reference", "reference"),
    ):
        result = invoke(command, name)
        assert result.exit_code == 2
        assert f"{command} needs what is not there yet: {missing}" in result.output
        assert f"python -m ddmd_bench {before} {name}" in result.output
    assert not Path("runs").exists()


@pytest.mark.parametrize("seeds", ["0,1", "0,0,1", "a,b,c"])
def test_an_expectation_needs_three_seeds(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict, seeds: str
) -> None:
    result = invoke("expect", write_suite(tiny), "--seeds", seeds)
    assert result.exit_code == 2
    assert f"--seeds {seeds}" in result.output
    assert list(Path.cwd().iterdir()) == []


def test_the_schema_is_json_and_knows_every_key(invoke: Callable[..., Result]) -> None:
    result = invoke("schema")
    assert result.exit_code == 0
    schema = json.loads(result.output)
    assert schema["properties"].keys() == Suite.model_fields.keys()
    assert schema["additionalProperties"] is False


def test_the_version_is_told(invoke: Callable[..., Result]) -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output.strip()) == (0, ddmd_bench.__version__)


def test_help_lists_every_command() -> None:
    command = [sys.executable, "-m", "ddmd_bench", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    for name in COMMANDS:
        assert f" {name} " in result.stdout


def test_a_report_is_never_overwritten_by_an_empty_one(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    name = write_suite(tiny)
    page = Path("reports/tiny/index.html")
    page.parent.mkdir(parents=True)
    page.write_text("whole")
    result = invoke("report", name)
    assert result.exit_code == 2
    assert "no task of this suite is complete" in " ".join(result.output.split())
    assert page.read_text() == "whole"


@pytest.mark.long
def test_a_report_of_other_results_is_kept(
    invoke: Callable[..., Result], write_suite: Callable[[Any], str], tiny: dict
) -> None:
    """Overrides have a folder of their own; of a suite that was changed the old one stays too."""
    tiny["students"] = {
        f"teacher_{k}": {"source": "teacher", "num_inference_steps": k, "guidance_scale": 4}
        for k in (1, 2)
    }
    tiny["baseline"] = "teacher_1"
    name = write_suite(tiny)

    def reported(*more: str) -> tuple[Path, str]:
        """Where the report is now, and all that was said."""
        result = invoke("run", name, *more)
        assert result.exit_code == 0, result.output
        (line,) = (t for t in result.output.splitlines() if t.startswith("report: "))
        return Path(line.split()[1]).parent, result.output

    folder, said = reported()
    assert folder == Path("reports/tiny")
    assert re.search(
        r"teacher_2 +\d+\.\d \(\d+\.\d to \d+\.\d\)", said
    )  # the answer, not only a path
    first = (folder / "report.json").read_bytes()
    other, said = reported("--set", "seeds=[1]")
    assert other.parent == folder.parent
    assert other.name.startswith("tiny-")
    assert "other results" not in said
    assert (folder / "report.json").read_bytes() == first
    assert invoke("verify", name, "--set", "seeds=[1]").exit_code == 0
    named, _ = reported("--set", "seeds=[1]", "--reports", "mine")
    assert named == Path("mine/tiny")

    # One more student: all that the report held is in the new one.
    tiny["students"]["teacher_3"] = {**tiny["students"]["teacher_2"], "num_inference_steps": 3}
    write_suite(tiny)
    _, said = reported()
    assert "other results" not in said

    def kept_report() -> Path:
        """Where the suite's change leaves the report that was there."""
        before = (folder / "report.json").read_bytes()
        write_suite(tiny)
        _, said = reported()
        (line,) = (text for text in said.splitlines() if "has the report of other results" in text)
        kept = Path(line.partition(": now in ")[2].removesuffix(" too"))
        after = (folder / "report.json").read_bytes()
        assert (kept / "report.json").read_bytes() == before != after
        assert (kept / "index.html").is_file()
        return kept

    # The same images, scored by one metric fewer; then other images.
    tiny["metrics"].remove("std")
    kept_report()
    tiny["students"]["teacher_1"]["guidance_scale"] = 2
    kept = kept_report()
    (own, new) = (sorted(path.name for path in one.glob("images/*")) for one in (kept, folder))
    assert len(own) == len(new) == 1  # each with its own small pictures
    assert own != new
    # Made again of the same results, it replaces itself.
    assert "other results" not in invoke("report", name).output


def test_list_names_what_a_suite_can_name(invoke: Callable[..., Result]) -> None:
    """Every row, each on a line of its own, and what a metric needs."""
    lines = invoke("list", "metrics").output.splitlines()
    assert [line.split()[0] for line in lines] == ["metric", *METRICS]
    of = {line.split()[0]: line for line in lines}
    assert "pixels alone" in of["high_frequency"]
    assert "images of a run" in of["saturation"]
    assert "prompts, HPS v2.1" in of["hps_v21"]
    assert "real images" in of["frechet_efficientnet"]
    assert "prompts" not in of["frechet_efficientnet"]
    methods = invoke("list", "methods").output.splitlines()
    assert [line.split()[0] for line in methods] == ["method", *METHODS]
    suites = invoke("list").output
    assert "shapes_ablation" in suites
    assert "sdxl" in suites
    wrong = invoke("list", "metric")
    assert wrong.exit_code == 2
    assert "Did you mean 'metrics'?" in wrong.output
