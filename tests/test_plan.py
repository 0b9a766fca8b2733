"""A task's key changes with what determines its result, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddmd_bench.files import provenance
from ddmd_bench.files.records import mark_done, write_json
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.suite.files import load_suite

Planner = Callable[..., Plan]
TRAINED = ("train", "generate", "score")


@pytest.fixture
def planned(tmp_path: Path, tiny: dict, write_suite: Callable[[Any], str]) -> Planner:
    """Plans the tiny suite with overrides."""
    name = write_suite(tiny)

    def make(*overrides: str) -> Plan:
        return make_plan(load_suite(name, overrides), tmp_path / "runs", tmp_path / "reports")

    return make


Names = set[tuple[str, str]]


def keys_of(plan: Plan) -> dict[tuple[str, str], str]:
    """The keys of a plan's tasks by stage and student; one seed."""
    return {(stage, student): task.key for (stage, student, _), task in plan.tasks.items()}


def changed(before: Plan, after: Plan) -> Names:
    ours, theirs = keys_of(before), keys_of(after)
    assert ours.keys() == theirs.keys()
    return {name for name, key in ours.items() if key != theirs[name]}


def of(stages: tuple[str, ...], *students: str) -> set[tuple[str, str]]:
    return {(stage, student) for stage in stages for student in students}


def test_a_plan_has_each_stage_of_each_student(planned: Planner) -> None:
    expected = of(("generate", "score"), "real", "teacher_2", "dmd", "ca_only")
    expected |= of(("train",), "dmd", "ca_only") | {("reference", "")}
    assert keys_of(planned()).keys() == expected


def test_a_student_s_setting_changes_that_student_alone(planned: Planner) -> None:
    before, after = planned(), planned("students.ca_only.train.learning_rate=0.5")
    assert changed(before, after) == of(TRAINED, "ca_only")
    assert before.fingerprint == after.fingerprint
    after = planned("students.teacher_2.guidance_scale=2")
    assert changed(before, after) == of(("generate", "score"), "teacher_2")


def test_the_method_changes_the_student(planned: Planner) -> None:
    after = planned("students.ca_only.method=dm_only")
    assert changed(planned(), after) == of(TRAINED, "ca_only")


@pytest.mark.parametrize(
    "override",
    [
        "train.num_iterations=7",
        "train.guidance_scale=3",
        "train.t_list=[1.0, 0.5]",
        "train.normalizer=none",
        "train.ema=0.9",
    ],
)
def test_a_training_setting_changes_all_that_are_trained(planned: Planner, override: str) -> None:
    assert changed(planned(), planned(override)) == of(TRAINED, "dmd", "ca_only")


def test_the_seed_changes_all_but_the_reference(planned: Planner) -> None:
    before, after = planned(), planned("seeds=[1]")
    assert changed(before, after) == keys_of(before).keys() - {("reference", "")}
    assert before.fingerprint == after.fingerprint
    assert before.prompts == after.prompts


@pytest.mark.parametrize(
    "override",
    [
        "train.checkpoint_every=3",
        "title=Other",
        "description=Other",
        "students.dmd.title=Other",
        "baseline=ca_only",
        "claims=[{claim: rises, student: ca_only, series: x0_std}]",
        "students.dmd.train.learning_rate=5e-5",  # its default, said aloud
    ],
)
def test_what_determines_no_result_changes_no_task(planned: Planner, override: str) -> None:
    before, after = planned(), planned(override)
    assert changed(before, after) == set()
    assert before.fingerprint == after.fingerprint


EVALUATION = (
    "evaluation={at: [0, 6], num_prompts: 3, metrics: [std], keep_best: null}",
    "reference.images_per_prompt=50",
)


def test_evaluation_belongs_to_the_training(planned: Planner) -> None:
    before, after = planned(*EVALUATION[1:]), planned(*EVALUATION)
    assert changed(before, after) == of(TRAINED, "dmd", "ca_only")
    assert before.fingerprint == after.fingerprint
    assert "evaluation" not in before.task("train", "dmd", 0).inputs


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.at=[6]",
        "evaluation.num_prompts=4",
        "evaluation.images_per_prompt=2",
        "evaluation.metrics=[mean]",
        "prompts.seen.source=shapes/held_out",
    ],
)
def test_what_is_evaluated_changes_the_training(planned: Planner, override: str) -> None:
    found = changed(planned(*EVALUATION), planned(*EVALUATION, override))
    assert found >= of(("train",), "dmd", "ca_only")


def test_real_images_change_an_evaluation_that_compares_with_them(planned: Planner) -> None:
    more = "reference.images_per_prompt=51"
    distance = "evaluation.metrics=[frechet_attributes]"
    enough = "evaluation.images_per_prompt=50"
    trained = of(("train",), "dmd", "ca_only")
    assert not changed(planned(*EVALUATION), planned(*EVALUATION, more)) & trained
    compared = (*EVALUATION, distance, enough)
    assert changed(planned(*compared), planned(*compared, more)) >= trained


@pytest.mark.parametrize("override", ["title=Other", "baseline=ca_only"])
def test_what_a_reader_sees_changes_the_report(planned: Planner, override: str) -> None:
    assert planned().report_key != planned(override).report_key


@pytest.mark.parametrize(
    "override",
    [
        "prompts.seen.num_prompts=4",
        "prompts.seen.images_per_prompt=3",
        "prompts.compositional.source=shapes/seen",
        "reference.images_per_prompt=2",
    ],
)
def test_the_protocol_knows_what_is_drawn(planned: Planner, override: str) -> None:
    before, after = planned(), planned(override)
    assert before.fingerprint != after.fingerprint
    assert not changed(before, after) & of(("train",), "dmd", "ca_only")
    assert of(("score",), "real", "dmd") <= changed(before, after)


def test_metrics_change_the_scores_alone(planned: Planner) -> None:
    before, after = planned(), planned("metrics=[mean]")
    assert changed(before, after) >= of(("score",), "real", "teacher_2", "dmd", "ca_only")
    assert not changed(before, after) & of(("train", "generate"), "real", "dmd")
    turned = planned("metrics=[diversity, std, mean, saturation, prompt_accuracy]")
    assert changed(before, turned) == set()


def test_a_larger_subset_of_prompts_holds_the_smaller(planned: Planner) -> None:
    few, many = planned(), planned("prompts.seen.num_prompts=50")
    assert set(few.prompts) < set(many.prompts)


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import load_suite

plan = make_plan(load_suite(sys.argv[1]), Path("runs"), Path("reports"))
print(plan.fingerprint, *(task.key for task in plan.tasks.values()))
"""


def test_keys_are_the_same_in_another_process(planned: Planner, tmp_path: Path) -> None:
    plan = planned()
    command = [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "tiny.yaml")]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == [plan.fingerprint, *(t.key for t in plan.tasks.values())]


# Sources


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's sources that a plan takes for the package."""
    copy = tmp_path / "copy" / "ddmd_bench"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(provenance.PACKAGE, copy, ignore=ignored)
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    provenance.source_sha256.cache_clear()
    yield copy
    provenance.source_sha256.cache_clear()


EVERY = ("real", "teacher_2", "dmd", "ca_only")


def test_a_comment_anywhere_redoes_nothing(planned: Planner, sources: Path) -> None:
    before, evaluated = planned(), planned(*EVALUATION)
    for path in sources.rglob("*.py"):
        path.write_text(path.read_text() + "# changed\n")
    provenance.source_sha256.cache_clear()
    assert changed(before, planned()) == set()
    assert changed(evaluated, planned(*EVALUATION)) == set()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("train", of(TRAINED, "dmd", "ca_only")),
        ("generate", of(("generate", "score"), *EVERY)),
        ("loaded", set()),
        ("evaluation", set()),
        ("encode", set()),  # words are encoded with the network
        ("reference", {("reference", ""), *of(("score",), *EVERY)}),
        ("score", of(("score",), *EVERY)),
        ("answers", {("reference", ""), *of(("score",), *EVERY)}),
        ("scorer attributes", {("reference", ""), *of(("score",), *EVERY)}),
        ("scorer hps_v21", set()),
        ("backend shapes", {("reference", ""), *of(TRAINED, *EVERY)}),
        ("backend sdxl", set()),
    ],
)
def test_a_version_is_in_the_keys_that_hang_on_it(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, version: str, expected: Names
) -> None:
    before = planned()
    monkeypatch.setitem(VERSIONS, version, VERSIONS.get(version, 1) + 1)
    assert changed(before, planned()) == expected & keys_of(before).keys()


@pytest.mark.parametrize("version", ["evaluation", "answers", "scorer images"])
def test_a_version_of_evaluation_is_in_the_training_s_key(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    without, before = planned(), planned(*EVALUATION)
    monkeypatch.setitem(VERSIONS, version, VERSIONS.get(version, 1) + 1)
    assert changed(before, planned(*EVALUATION)) >= of(("train",), "dmd", "ca_only")
    assert not changed(without, planned()) & of(("train",), "dmd", "ca_only")


def test_a_changed_report_source_makes_a_new_report(planned: Planner, sources: Path) -> None:
    before = planned().report_key
    with (sources / "reporting" / "tables.py").open("a") as file:
        file.write("# changed\n")
    provenance.source_sha256.cache_clear()
    assert planned().report_key != before


def test_compiled_sources_beside_the_sources_change_no_key(planned: Planner, sources: Path) -> None:
    before = planned()
    for folder in [sources, *(path.parent for path in sources.glob("*/**/*.py"))]:
        (folder / "__pycache__").mkdir(exist_ok=True)
        (folder / "__pycache__" / "plan.cpython-311.pyc").write_bytes(b"compiled")
    provenance.source_sha256.cache_clear()
    after = planned()
    assert changed(before, after) == set()
    assert after.report_key == before.report_key


def test_another_run_s_report_is_not_this_run_s(planned: Planner) -> None:
    """As one that came with the checkout: same tasks, other clock values."""
    plan = planned()
    task = plan.task("reference")
    mark_done(task.folder, {"key": task.key, "seconds": 1.0})
    path = plan.report_folder / "report.json"
    write_json(path, {"key": plan.report_key})
    assert plan.report_complete()
    mark_done(task.folder, {"key": task.key, "seconds": 1.5})
    assert not plan.report_complete()
    shutil.rmtree(task.folder)
    assert not plan.report_complete()


def test_a_failure_asks_for_a_new_report(planned: Planner) -> None:
    plan, path = planned(), planned().report_folder / "report.json"
    write_json(path, {"key": plan.report_key})
    task = plan.task("train", "dmd", 0)
    write_json(task.folder / "failed.json", {"key": task.key, "message": "not finite"})
    assert not plan.report_complete()
    write_json(path, {"key": plan.report_key})
    assert plan.report_complete()
    mark_done(task.folder, {"key": task.key})
    assert not plan.report_complete()


# Seeds


def test_each_seed_has_the_tasks_that_it_has_alone(planned: Planner) -> None:
    """But for the scores: with several seeds, intervals are over them and not over prompts."""
    both, alone = planned("seeds=[3, 5]"), {seed: planned(f"seeds=[{seed}]") for seed in (3, 5)}
    found = {name: (task.key, task.inputs) for name, task in both.tasks.items()}
    expected = {
        name: (task.key, task.inputs)
        for plan in alone.values()
        for name, task in plan.tasks.items()
    }
    for name, (_, inputs) in found.items():
        if name[0] == "score":
            assert inputs == {**expected[name][1], "intervals_over": "seeds"}
        else:
            assert found[name] == expected[name]
    assert found.keys() == expected.keys()
    assert both.fingerprint == alone[3].fingerprint
    assert both.task("train", "dmd", 5).inputs["seed"] == 5
    assert "seed" not in both.task("reference").inputs


def test_a_task_names_its_seed_where_there_are_several(planned: Planner) -> None:
    assert str(planned().task("train", "dmd", 0)) == "train dmd"
    both = planned("seeds=[0, 1]")
    assert str(both.task("train", "dmd", 1)) == "train dmd, seed 1"
    assert str(both.task("reference")) == "reference"
    assert len({str(task) for task in both.tasks.values()}) == len(both.tasks)
