"""What continuous integration reads of a check, and the files that a user copies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
import yaml
from fake_run import MALICIOUS, make_run, make_suite
from typer.testing import CliRunner, Result

from ddmd_bench.commands import checking
from ddmd_bench.commands.cli import app
from ddmd_bench.files.records import read_json
from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting import ci
from ddmd_bench.reporting.checked import EXIT_CODES, NOT_RUN, WRONG_USE, Checked, Held
from ddmd_bench.reporting.expected import digest_of, write_expected
from ddmd_bench.reporting.worst import Worst
from ddmd_bench.stages.report import report

DOCS = Path(__file__).parents[1] / "docs/ci"
GATE = {"prompt_accuracy": {"margin": 0.15}, "frechet_attributes": {"share": 0.9}}
FOUND = Checked(
    "worse",
    [
        Held("pictures", "dmd, black", "ok", "0 of 80 images", 0.0),
        Held("metrics", "dmd, HPS | v3", "failed", "1.0 %,\nwas <2>: worse", 2.5),
        Held("metrics", "dmd, FID", "too few", "no interval \x00", float("inf")),
    ],
    ["a *note*"],
    (Worst("dmd, HPS v3", "seen/0000", MALICIOUS, "0, was 1", {}),),
)


def test_junit_counts_what_failed_and_what_could_not_be_told() -> None:
    root = ElementTree.fromstring(ci.junit(FOUND, "mine"))
    (suite,) = root
    assert {k: suite.get(k) for k in ("tests", "failures", "skipped", "errors")} == {
        "tests": "3", "failures": "1", "skipped": "1", "errors": "0",
    }  # fmt: skip
    kinds = [[part.tag for part in case] for case in suite.iter("testcase")]
    assert kinds == [[], ["failure"], ["skipped"]]
    assert len({case.get("name") for case in suite.iter("testcase")}) == 3


def test_a_summary_shows_any_text_as_it_is() -> None:
    text = ci.summary(FOUND, "mine")
    assert text.startswith("## check mine: worse\n")
    assert "<" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 5) for row in rows)


def test_an_annotation_is_one_line() -> None:
    lines = list(ci.workflow_commands(FOUND, "mine"))
    assert [line.split(" ", 1)[0] for line in lines] == ["::error", "::warning"]
    assert not any("\n" in line for line in lines)
    assert "1.0 %25,%0Awas <2>" in lines[0]


# The command


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def plans(runs: Path) -> dict[int, Plan]:
    """The same suite with three seeds, each reported."""
    found = {}
    for seed in (0, 1, 2):
        plan = make_run(runs / str(seed) / "fake", make_suite([], seeds=(seed,), gate=GATE))
        folder = runs / str(seed) / "reports/fake"
        found[seed] = replace(plan, runs=runs / str(seed), report_folder=folder)
        report(found[seed])
    return found


@pytest.fixture
def invoke(
    plans: dict[int, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def planned(suite: str, overrides: list[str] | None, *_: Path) -> Plan:
        (seed,) = yaml.safe_load((overrides or ["seeds=[0]"])[-1].partition("=")[2])
        return plans[seed]

    monkeypatch.setattr(checking, "planned", planned)
    monkeypatch.setattr("ddmd_bench.suite.files.load_suite", lambda *_: plans[0].suite)
    return lambda *arguments: CliRunner().invoke(app, ["check", "fake", *arguments])


def test_a_student_beside_its_rival_in_every_form(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    pair = ("--student", "ca_only", "--against", "decoupled_hybrid")
    result = invoke(*pair, "--json", "--junit", "out/j.xml", "--pictures", "pictures")
    assert result.exit_code == EXIT_CODES["worse"]
    record = json.loads(result.stdout)
    assert (record["status"], record["exit_code"]) == ("worse", 1)
    assert len(record["worst_prompts"]) == 3
    assert "::error title=check fake%3A metrics::ca_only against" in result.stderr
    assert "worse" in (tmp_path / "summary.md").read_text()
    assert ElementTree.parse(tmp_path / "out/j.xml").getroot().tag == "testsuites"
    pictures = [path.name for path in (tmp_path / "pictures").rglob("*.png")]
    assert len(pictures) == 3 * 2 * 2  # prompts, images of each, sides


def test_a_report_knows_where_its_run_lies(invoke: Callable[..., Result], plans: Any) -> None:
    result = invoke("--baseline", str(plans[0].report_folder))
    assert result.exit_code == EXIT_CODES["ok"]
    result = invoke("--baseline", str(plans[1].report_folder / "report.json"))
    assert "no seed in common (0 with 1)" in result.output
    assert result.exit_code in (1, 3)


def test_a_report_without_its_run_is_not_judged(
    invoke: Callable[..., Result], plans: Any, tmp_path: Path
) -> None:
    record = read_json(plans[0].report_folder / "report.json")
    record["suite"]["name"] = "elsewhere"
    (tmp_path / "report.json").write_text(json.dumps(record))
    assert invoke("--baseline", "report.json").exit_code == NOT_RUN
    record["suite"]["name"] = plans[0].suite.name
    lost = next(name for name in record["folders"] if name.startswith("score/teacher/"))
    record["folders"][lost.rpartition("/")[0] + "/7"] = record["folders"].pop(lost)
    told = plans[0].report_folder / "other.json"
    told.write_text(json.dumps(record))
    result = invoke("--baseline", str(told))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "was not scored" in result.output
    told.unlink()
    del record["folders"]
    (tmp_path / "report.json").write_text(json.dumps(record))
    result = invoke("--baseline", "report.json")
    assert result.exit_code == WRONG_USE
    assert "does not say where its run's files lie" in result.output
    assert invoke("--baseline", "nowhere").exit_code == WRONG_USE
    assert invoke("--student", "dmd").exit_code == WRONG_USE


def test_an_update_keeps_what_it_replaces_and_why(
    invoke: Callable[..., Result], plans: dict[int, Plan], tmp_path: Path
) -> None:
    records = [read_json(plan.report_folder / "report.json") for plan in plans.values()]
    for row in records[0]["table"]["teacher"].values():
        row["all"]["by_seed"]["0"]["value"] += 0.25  # as another version gave it
    path = write_expected(records, tmp_path)
    assert invoke("--expected", str(path)).exit_code == EXIT_CODES["drift"]
    result = invoke("--expected", str(path), "--update", "--why", "a new sampler")
    assert (result.exit_code, result.exception) == (0, None)
    new = read_json(path)
    assert new["written"]["why"] == "a new sampler"
    assert new["digest"] == digest_of(new)
    (old,) = new["replaced"]
    moved = new["values"]["teacher"]["std"][0] - old["values"]["teacher"]["std"][0]
    assert moved == pytest.approx(-0.25)
    result = invoke("--expected", str(path))
    assert result.exit_code == EXIT_CODES["ok"]
    assert "this very report is one of those" in result.output


# Files to copy


def test_the_files_to_copy_call_check_with_options_that_it_has() -> None:
    command = typer.main.get_command(app).commands["check"]  # type: ignore[attr-defined]
    known = {name for option in command.params for name in option.opts}
    action, workflow = (
        yaml.safe_load((DOCS / f"{n}.yml").read_text()) for n in ("action", "check")
    )
    script = action["runs"]["steps"][0]["run"]
    assert {*re.findall(r"--[a-z]+", script)} <= known
    uses = [
        step for step in workflow["jobs"]["check"]["steps"] if "ddmd-check" in step.get("uses", "")
    ]
    assert uses
    assert all(step["with"].keys() <= action["inputs"].keys() for step in uses)


def step_of(uses: str) -> dict[str, Any]:
    """The workflow's first step that uses such an action."""
    workflow = yaml.safe_load((DOCS / "check.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    found: dict[str, Any] = next(step for step in steps if uses in step.get("uses", ""))
    return found


@pytest.mark.long
def test_the_workflow_compares_a_student_that_was_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_suite: Callable[[Any], str],
    tiny: dict[str, Any],
) -> None:
    """Its folders have other names than the main branch's: only that one's report knows them."""
    monkeypatch.chdir(tmp_path)
    tiny["students"] = {"dmd": {"source": "teacher", "num_inference_steps": 1, "guidance_scale": 4}}
    baseline = step_of("ddmd-check")["with"]["baseline"].replace("mine", "tiny")

    def command(*words: str) -> Result:
        return CliRunner().invoke(app, [*words])

    assert command("run", write_suite(tiny)).exit_code == 0
    Path("baseline").mkdir()
    for folder in ("runs", "reports"):
        Path(folder).rename(Path("baseline") / folder)
    tiny["students"]["dmd"]["guidance_scale"] = 2
    suite = write_suite(tiny)
    assert command("run", suite).exit_code == 0
    result = command("check", suite, "--baseline", baseline)
    assert result.exit_code in (EXIT_CODES["worse"], EXIT_CODES["too few"]), result.output


def test_the_workflow_keeps_a_run_that_was_cut() -> None:
    restored, saved = step_of("actions/cache/restore"), step_of("actions/cache/save")
    assert (restored["with"]["path"], saved["with"]["path"]) == ("runs", "runs")
    assert restored["with"]["key"] == saved["with"]["key"]
    assert "github.run_attempt" in saved["with"]["key"]
    assert saved["if"] == "always()"


def test_the_page_names_every_exit_code() -> None:
    page = (DOCS / "README.md").read_text()
    named = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert named == {*EXIT_CODES.values(), NOT_RUN, WRONG_USE}
