"""A bad suite is refused with what was found, where, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ddmd_bench.errors import BenchError
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.plan import make_plan, suite_downloads
from ddmd_bench.suite import settings
from ddmd_bench.suite.claims import Claim
from ddmd_bench.suite.files import find_suite, load_suite
from ddmd_bench.suite.gate import Margin
from ddmd_bench.suite.schema import (
    Evaluation,
    LiteratureRows,
    PromptSet,
    Reference,
    Scoring,
    Suite,
)
from ddmd_bench.suite.students import Adapter, Checkpoint, Student
from ddmd_bench.suite.until_settled import UntilSettled

SUITES = Path(__file__).parents[1] / "suites"
Write = Callable[[Any], str]


def refused(name: str, overrides: tuple[str, ...] = ()) -> str:
    """The message with which a suite is refused, by the file or by the plan."""
    with pytest.raises(BenchError) as caught:
        make_plan(load_suite(name, overrides), Path("unused"), Path("unused"))
    return str(caught.value)


def test_a_valid_suite_loads_with_its_defaults(tiny: dict, write_suite: Write) -> None:
    suite = load_suite(write_suite(tiny))
    assert suite.train_settings("dmd").num_iterations == 6
    assert suite.train.t_list == (1.0, 0.75, 0.5, 0.25)
    assert suite.prompts["seen"].images_per_prompt == 2


COMMITTED = sorted(SUITES.glob("*.yaml"))
OF_PUBLISHED = [path for path in COMMITTED if not path.stem.startswith("shapes")]
# What a suite leaves to its user.
FILLED_IN = {
    "my_lora": ["students.with_lora.adapters=[{repository: owner/style, file: a.safetensors}]"]
}


@pytest.mark.parametrize("path", OF_PUBLISHED, ids=lambda path: path.stem)
def test_a_suite_of_published_models_lacks_nothing_but_downloads(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without network and with an empty cache, every problem is one that a command mends."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    suite = load_suite(str(path), FILLED_IN.get(path.stem, ()))
    assert suite.name == path.stem
    assert len(suite_downloads(suite).remotes) >= 3
    with pytest.raises(BenchError) as refused:
        make_plan(suite, tmp_path, tmp_path)
    for line in str(refused.value).splitlines():
        statistics = "reference.statistics" in line
        command = "stats build coco2014_10k reference_stats/" if statistics else "fetch"
        assert f"python -m ddmd_bench {command}" in line, line


def test_the_suite_of_tab_2_trains_its_row_with_the_gan_that_it_had() -> None:
    suite = load_suite("sdxl")
    (table,) = suite.literature
    assert suite.train_data is not None
    assert suite.train_data.images is not None
    assert re.fullmatch("[0-9a-f]{40}", suite.train_data.images.revision or "")
    trained = {
        row: METHODS[suite.students[name].method or ""]
        for name, row in table.rows.items()
        if suite.students[name].source == "train"
    }
    assert {row: method.gan for row, method in trained.items()} == {
        "dmd2": True,
        "decoupled_hybrid": True,
    }
    folder = load_suite("sdxl", ("train_data.images={source: ./real_images, num_images: 20000}",))
    assert folder.train_data is not None
    assert folder.train_data.images is not None
    assert folder.train_data.images.revision is None


@pytest.mark.parametrize(
    "path", sorted(set(COMMITTED) - set(OF_PUBLISHED)), ids=lambda path: path.stem
)
def test_the_committed_suites_load_and_plan(path: Path) -> None:
    by_path, by_name = load_suite(str(path)), load_suite(path.stem)
    assert by_path == by_name
    assert by_path.name == path.stem
    plan = make_plan(by_path, Path("unused"), Path("unused"))
    assert len(plan.prompts) == sum(p.num_prompts for p in by_path.prompts.values())
    assert len({task.folder for task in plan.tasks.values()}) == len(plan.tasks)
    assert not Path("unused").exists()


def test_the_resolved_suite_is_a_suite(tiny: dict, write_suite: Write) -> None:
    suite = load_suite(write_suite(tiny))
    assert Suite.model_validate(suite.model_dump(mode="json", exclude_unset=True)) == suite


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_report_is_its_suite(path: Path, tmp_path: Path) -> None:
    """By its folder or its report.json, as it was overridden; not where defaults were others."""
    suite = load_suite(str(path))
    report = tmp_path / "report.json"
    said = suite.model_dump(mode="json")
    asked = suite.model_dump(mode="json", exclude_unset=True)

    def write(**parts: Any) -> str:
        report.write_text(json.dumps(parts))
        return str(report)

    loaded = load_suite(write(suite=said, asked=asked))
    assert loaded == load_suite(str(tmp_path)) == suite
    assert loaded.model_dump(exclude_unset=True) == suite.model_dump(exclude_unset=True)
    assert load_suite(str(report), ["title=Other"]).title == "Other"
    with pytest.raises(BenchError, match="unknown key 'kind'"):
        load_suite(write(suite=said, asked={**asked, "kind": "odd"}))
    with pytest.raises(BenchError, match="kept no suite"):
        load_suite(write(suite=said))
    said["train"]["guidance_scale"] = None  # what a version may have had by default
    with pytest.raises(BenchError, match="other defaults than the one that wrote it"):
        load_suite(write(suite=said, asked=asked))


# Files


def test_an_unknown_name_lists_the_known() -> None:
    message = refused("shape")
    assert ", ".join(sorted(path.stem for path in SUITES.glob("*.yaml"))) in message
    assert "Did you mean 'shapes'?" in message
    assert find_suite("shapes").is_file()


def test_a_missing_file_is_named() -> None:
    message = refused("suites/shapse.yaml")
    assert message.startswith("suites/shapse.yaml: no such suite file")
    assert "Did you mean 'shapes'?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a: [", "not valid YAML"), ("", "expected a mapping"), ("- a", "expected a mapping")],
)
def test_what_is_no_mapping_is_refused(write_suite: Write, text: str, expected: str) -> None:
    name = write_suite(text)
    message = refused(name)
    assert message.startswith(f"{name}: {expected}")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert str(path) in refused(str(path))


# Values: (change, where it is said to be, what is said)

CLAIM = {"claim": "beats", "student": "dmd", "other": "ca_only", "metric": "mean"}


def _set(*path: str | int) -> Callable[[dict, Any], None]:
    def change(data: Any, value: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


BAD = {
    "key of the suite": (_set("sed"), 1, "suite: unknown key 'sed'", "Did you mean 'seeds'?"),
    "a key that was": (
        _set("train", "gradient_accumulation"),
        1,
        "train: there is no 'gradient_accumulation' any more: batch_size is what",
        "samples_at_once",
    ),
    "the old key of a seed": (_set("seed"), 1, "unknown key 'seed'", "Did you mean 'seeds'?"),
    "no seed": (_set("seeds"), [], "seeds", "at least 1"),
    "one seed twice": (_set("seeds"), [1, 0, 1], "seeds", "names a seed more than once"),
    "a seed below 0": (_set("seeds"), [-1], "seeds.0", "greater than or equal to 0"),
    "key of train": (
        _set("train", "num_iteration"),
        1,
        "train: unknown key 'num_iteration'",
        "Did you mean 'num_iterations'?",
    ),
    "key of a student": (
        _set("students", "dmd", "methd"),
        1,
        "students.dmd: unknown key 'methd'",
        "Did you mean 'method'?",
    ),
    "key of a student's train": (
        _set("students", "dmd", "train"),
        {"learning_rat": 1},
        "students.dmd.train: unknown key 'learning_rat'",
        "Did you mean 'learning_rate'?",
    ),
    "type in a student's train": (
        _set("students", "dmd", "train"),
        {"learning_rate": "fast"},
        "students.dmd.train",
        "learning_rate: expected a number",
    ),
    "steps in a student's train": (
        _set("students", "dmd", "train"),
        {"batch_size": 7},
        "students.dmd.train",
        "multiple of the 4 steps",
    ),
    "key of a prompt set": (
        _set("prompts", "seen", "num_prompt"),
        3,
        "prompts.seen: unknown key 'num_prompt'",
        "Did you mean 'num_prompts'?",
    ),
    "key of a claim": (
        _set("claims"),
        [{**CLAIM, "papre": "Tab. 1"}],
        "claims.0: unknown key 'papre'",
        "Did you mean 'paper'?",
    ),
    "method": (
        _set("students", "dmd", "method"),
        "dmdd",
        "students.dmd: unknown method 'dmdd'",
        "Did you mean 'dmd'?",
    ),
    "metric": (
        _set("metrics"),
        ["prompt_acuracy"],
        "unknown metric 'prompt_acuracy'",
        "Did you mean 'prompt_accuracy'?",
    ),
    "backend": (_set("backend"), "shape", "unknown backend 'shape'", "Did you mean 'shapes'?"),
    "prompt source": (
        _set("prompts", "seen", "source"),
        "shapes/sean",
        "prompts.seen.source: unknown prompt source 'shapes/sean'",
        "Did you mean 'shapes/seen'?",
    ),
    "baseline": (
        _set("baseline"),
        "dmd2",
        "baseline: unknown student 'dmd2'",
        "Did you mean 'dmd'?",
    ),
    "claim with a field too few": (
        _set("claims"),
        [{"claim": "beats", "student": "dmd", "metric": "mean"}],
        "claims.0: claim 'beats' takes ['metric', 'other']",
        "found .'metric'.",
    ),
    "claim with a field too many": (
        _set("claims"),
        [{**CLAIM, "series": "x0_std"}],
        "claims.0",
        "found .'metric', 'other', 'series'.",
    ),
    "claim of an unknown kind": (
        _set("claims"),
        [{**CLAIM, "claim": "beat"}],
        "claims.0.claim",
        "'beats'",
    ),
    "claim on an unknown student": (
        _set("claims"),
        [{**CLAIM, "other": "ca_onli"}],
        "claims[0]: unknown student 'ca_onli'",
        "Did you mean 'ca_only'?",
    ),
    "claim on a metric not asked for": (
        _set("claims"),
        [{**CLAIM, "metric": "high_frequency"}],
        "claims[0] is about 'high_frequency', which is not among",
        "prompt_accuracy, saturation",
    ),
    "series of a student without training": (
        _set("claims"),
        [{"claim": "rises", "student": "real", "series": "x0_std"}],
        "claims[0]: real is not trained",
        "no series",
    ),
    "type": (
        _set("train", "num_iterations"),
        "many",
        "train.num_iterations",
        "expected a number.*'many'",
    ),
    "mapping": (_set("students"), ["dmd"], "students: ", "dictionary"),
    "size of the batch": (_set("train", "batch_size"), 6, "train: batch_size", "multiple of the 4"),
    "order of the steps": (_set("train", "t_list"), [0.5, 1.0], "train: t_list", "must fall"),
    "repeated step": (_set("train", "t_list"), [1.0, 1.0], "train: t_list", "must fall"),
    "range of tau": (_set("train", "tau_range"), [0.9, 0.1], "train: tau_range", "low, high"),
    "number of prompts": (
        _set("prompts", "compositional", "num_prompts"),
        193,
        "prompts.compositional: asks for 193 prompts",
        "has 192",
    ),
    "teacher without its steps": (
        _set("students", "teacher_2"),
        {"source": "teacher", "guidance_scale": 4},
        "students.teacher_2",
        "needs .'num_inference_steps'.",
    ),
    "method of real scenes": (
        _set("students", "real", "method"),
        "dmd",
        "students.real",
        "takes no .'method'.",
    ),
}

# Every part of a suite within another: (where it stands, its class, a value that is whole)
PARTS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "model": (settings.Model, {}),
    "prompts.seen": (PromptSet, {"source": "shapes/seen", "num_prompts": 3}),
    "train": (settings.TrainSettings, {}),
    "train_data": (settings.TrainData, {}),
    "train_data.prompts": (settings.TrainPrompts, {"source": "a.txt", "num_prompts": 1}),
    "train_data.images": (settings.TrainImages, {"source": "./a", "num_images": 1}),
    "students.dmd": (Student, {"method": "dmd"}),
    "students.other.checkpoint": (
        Checkpoint,
        {"repository": "a/b", "format": "unet", "num_inference_steps": 1},
    ),
    "students.other.adapters.0": (Adapter, {"repository": "a/b"}),
    "reference": (Reference, {}),
    "scoring": (Scoring, {}),
    "evaluation": (Evaluation, {"at": [6], "num_prompts": 3, "metrics": ["std"]}),
    "claims.0": (Claim, CLAIM),
    "literature.0": (LiteratureRows, {"table": "decoupled_dmd_tab2", "rows": {"dmd": "dmd2"}}),
    "gate.std": (Margin, {"margin": 0.1}),
    "until_settled": (UntilSettled, {}),
}


def test_every_part_of_a_suite_is_among_the_parts() -> None:
    found = {part.__name__ for part, _ in PARTS.values()}
    assert found == Suite.model_json_schema(mode="validation")["$defs"].keys()


@pytest.mark.parametrize("where", PARTS)
def test_a_slip_in_any_part_lists_that_parts_own_keys(
    where: str, tiny: dict, write_suite: Write
) -> None:
    part, whole = PARTS[where]
    nested: Any = {**whole, "no_such_key": 1}
    for step in reversed(where.split(".")[1:]):
        nested = [nested] if step.isdigit() else {step: nested}
    tiny[where.split(".")[0]] = nested
    keys = ", ".join(sorted(part.model_fields))
    assert f"{where}: unknown key 'no_such_key'. Known: {keys}." in refused(write_suite(tiny))


EVALUATION = {"at": [0, 6], "num_prompts": 3, "metrics": ["std", "prompt_accuracy"]}
BAD |= {
    f"evaluation: {name}": (_set("evaluation"), {**EVALUATION, **change}, where, hint)
    for name, change, where, hint in [
        ("key", {"num_prompt": 3}, "evaluation: unknown key 'num_prompt'", "'num_prompts'?"),
        ("no iteration", {"at": []}, "evaluation.at: ", "at least 1 item"),
        ("iteration below 0", {"at": [-1]}, "evaluation.at.0: ", "greater than or equal to 0"),
        ("order", {"at": [6, 0]}, "evaluation: at must rise", r"\[6, 0\]"),
        ("iteration twice", {"at": [6, 6]}, "evaluation: at must rise", r"\[6, 6\]"),
        ("beyond the end", {"at": [6, 7]}, "evaluation.at: [7] lie beyond the 6", "student dmd"),
        ("no prompts", {"num_prompts": 0}, "evaluation.num_prompts: ", "greater than 0"),
        ("prompts", {"num_prompts": 6}, "evaluation.num_prompts: asks for 6", "suite has 5"),
        ("metric twice", {"metrics": ["std", "std"]}, "evaluation: metrics: ['std']", "once"),
        (
            "metric",
            {"metrics": ["sdt"]},
            "evaluation.metrics: unknown metric 'sdt'",
            "Did you mean 'std'?",
        ),
        (
            "best by another metric",
            {"keep_best": "prompt_acuracy"},
            "evaluation: keep_best: unknown metric 'prompt_acuracy'",
            "Did you mean 'prompt_accuracy'?",
        ),
        (
            "best without a direction",
            {"keep_best": "std"},
            "evaluation.keep_best: std is best where real images have it",
            "another metric",
        ),
        (
            "pairs of one image",
            {"metrics": ["diversity"]},
            "evaluation.metrics: diversity compares the images of one prompt",
            "images_per_prompt .now 1. to 2 or more",
        ),
        (
            "few images",
            {"metrics": ["frechet_attributes"], "images_per_prompt": 42},
            "takes 129 images or more, found 126 a student's (3 prompts x 42)",
            "Raise evaluation.num_prompts or evaluation.images_per_prompt",
        ),
        (
            "few real images",
            {"metrics": ["frechet_efficientnet"], "images_per_prompt": 42},
            "takes 113 images or more, found 3 real (3 prompts x 1)",
            "Raise evaluation.num_prompts or reference.images_per_prompt",
        ),
    ]
}


def test_a_suite_evaluates_while_it_trains(tiny: dict, write_suite: Write) -> None:
    tiny["evaluation"] = EVALUATION | {"keep_best": "prompt_accuracy"}
    suite = load_suite(write_suite(tiny))
    assert suite.evaluation is not None
    assert suite.evaluation.at == (0, 6)
    assert suite.evaluation.images_per_prompt == 1


def test_no_student_is_evaluated_beyond_its_own_end(tiny: dict, write_suite: Write) -> None:
    tiny["evaluation"] = EVALUATION
    tiny["students"]["ca_only"]["train"] = {"num_iterations": 4}
    expected = r"evaluation\.at: \[6\] lie beyond the 4 iterations of student ca_only"
    assert re.search(expected, refused(write_suite(tiny)))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused(name: str, tiny: dict, write_suite: Write) -> None:
    change, value, where, hint = BAD[name]
    change(tiny, value)
    message = refused(write_suite(tiny))
    assert where in message
    assert re.search(hint, message)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("method: dmd", "method: dmd\n    train: {batch_sise: 1}", "train: {batch_sise"),
        ("method: dmd", "method: dmd\n    train:\n      batch_size: 0", "batch_size: 0"),
        ("metric: std", "metric: hue", "- claim: above"),
        ("baseline: dmd", "baseline: dmdd", "baseline: dmdd"),
    ],
)
def test_a_problem_between_parts_has_its_line(
    tiny: dict, write_suite: Write, old: str, new: str, line: str
) -> None:
    tiny["claims"] = [{**CLAIM, "claim": "above", "metric": "std"}]
    text = yaml.safe_dump(tiny, sort_keys=False)
    assert text.count(old) == 1
    text = text.replace(old, new)
    number = next(k for k, row in enumerate(text.splitlines(), 1) if row.strip().startswith(line))
    assert refused(write_suite(text)).endswith(f"(line {number})")


def test_several_problems_are_named_at_once(tiny: dict, write_suite: Write) -> None:
    del tiny["title"]
    tiny["sed"] = 1
    tiny["train"]["num_iterations"] = 0
    tiny["students"]["dmd"]["method"] = "dmdd"
    name = write_suite(tiny)
    lines = refused(name).splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"{name}: ") for line in lines)


def test_several_problems_of_the_plan_are_named_at_once(tiny: dict, write_suite: Write) -> None:
    tiny["metrics"] = ["maen", "sdt"]
    tiny["prompts"]["seen"]["source"] = "shapes/sean"
    assert len(refused(write_suite(tiny)).splitlines()) == 3


# --set


def test_set_overrides_a_value(tiny: dict, write_suite: Write) -> None:
    overrides = ["train.num_iterations=20", "students.dmd.train.t_list=[1.0, 0.5]", "seeds=[3, 4]"]
    suite = load_suite(write_suite(tiny), overrides)
    assert suite.train_settings("dmd").num_iterations == 20
    assert suite.train_settings("dmd").t_list == (1.0, 0.5)
    assert suite.train_settings("ca_only").t_list == (1.0, 0.75, 0.5, 0.25)
    assert suite.seeds == (3, 4)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.num_iterations", "expected key=value, e.g. train.num_iterations=20"),
        ("=3", "expected key=value"),
        ("trian.num_iterations=3", "Did you mean 'train'?"),
        ("train.num_iteration=3", "Did you mean 'num_iterations'?"),
        ("name.of=3", "'name' holds a value, not a mapping"),
        ("train.num_iterations=[", "--set train.num_iterations=["),
        ("train.num_iterations=many", "--set train.num_iterations=many: train.num_iterations: "),
    ],
)
def test_a_bad_set_is_refused(tiny: dict, write_suite: Write, override: str, expected: str) -> None:
    assert expected in refused(write_suite(tiny), (override,))


def test_a_slip_among_the_metrics_is_not_recommended(tiny: dict, write_suite: Write) -> None:
    tiny["claims"] = [CLAIM]
    message = refused(write_suite(tiny), ("metrics=[meen, std]",))
    assert "claims[0] is about 'mean', which is not among the suite's metrics: meen, std" in message
    assert "Did you mean" not in message


def test_only_some_claims_need_a_better_direction(tiny: dict, write_suite: Write) -> None:
    tiny["claims"] = [{**CLAIM, "claim": "above"}, {**CLAIM, "claim": "same", "margin": 0.1}]
    make_plan(load_suite(write_suite(tiny)), Path("unused"), Path("unused"))
    tiny["claims"] = [CLAIM]
    message = refused(write_suite(tiny))
    assert "claims[0]: mean is best where real images have it" in message
    assert "claim 'same' or 'above'" in message


def test_a_margin_in_spreads_needs_a_value_of_each_prompt(tiny: dict, write_suite: Write) -> None:
    tiny["metrics"] = [*tiny["metrics"], "frechet_attributes"]
    tiny["gate"] = {"frechet_attributes": {"spreads": 0.1}}
    assert "gate.frechet_attributes: spreads are of the values" in refused(write_suite(tiny))
