"""The verdict on a run: drift and incomparability are found, never called ok."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import SCHEMA, read_json
from ddmd_bench.reporting.checked import EXIT_CODES, NOT_RUN, WRONG_USE, Checked, lines_of
from ddmd_bench.reporting.drift import against_expected
from ddmd_bench.reporting.expected import digest_of, find_expected, report_sha256, write_expected

Record = dict[str, Any]
# Relative deviations of three seeds; their standard deviation is 1 %.
DEVIATION = {0: -0.01, 1: 0.0, 2: 0.01}
LEVELS = {"teacher_4": 2.0, "dmd": 3.0, "ca_only": 4.0}


def record(seed: int, deviation: float | None = None) -> Record:
    """A report's record: every value deviates from its level by the same share."""
    factor = 1 + (DEVIATION[seed] if deviation is None else deviation)

    def cell(value: float) -> dict[str, Any]:
        return {"all": {"by_seed": {str(seed): {"value": value * factor, "n": 8}}}}

    return {
        "schema": SCHEMA,
        "fingerprint": "f00",
        "suite": {
            "name": "tiny",
            "title": "Tiny",
            "seeds": [seed],
            "train": {"num_iterations": 5},
            "students": {
                "teacher_4": {"source": "teacher"},
                "dmd": {"source": "train"},
                "ca_only": {"source": "train"},
            },
        },
        "protocol": {"schema": SCHEMA, "prompts": "abc", "images_per_prompt": {"seen": 2}},
        "table": {
            name: {"mean": cell(level), "diversity": cell(0.1 * level)}
            for name, level in LEVELS.items()
        },
        "first_updates": {
            str(seed): {
                "dmd": {"x0_std": 0.5 * factor, "dm_norm": 0.1},
                "ca_only": {"x0_std": 0.5 * factor, "dm_norm": None},
            }
        },
        "provenance": {"common": {}, "varying": {}},
    }


def one(record: Record, student: str, metric: str) -> Record:
    """The cell of the record's only seed."""
    (cell,) = record["table"][student][metric]["all"]["by_seed"].values()
    return cell


def told(found: Checked) -> list[str]:
    """What failed, as name and text."""
    return [f"{one.name}: {one.text}" for one in found.failed]


@pytest.fixture
def expected(tmp_path: Path) -> Record:
    path = write_expected([record(seed) for seed in DEVIATION], tmp_path)
    assert path.name == "tiny.expected.json"
    return read_json(path)


@pytest.mark.parametrize("seed", DEVIATION)
def test_a_run_is_ok_against_itself(expected: Record, seed: int) -> None:
    found = against_expected(record(seed), expected)
    assert (found.status, found.failed) == ("ok", [])
    assert len(found.held) == 2 * 3 + 4  # every value and every series


def test_exit_codes_tell_verdicts_from_what_was_not_judged() -> None:
    assert EXIT_CODES == {"ok": 0, "drift": 1, "worse": 1, "incomparable": 2, "too few": 3}
    assert {NOT_RUN, WRONG_USE}.isdisjoint(EXIT_CODES.values())


# Values


def test_a_shifted_value_is_drift(expected: Record) -> None:
    found = record(0)
    one(found, "dmd", "diversity")["value"] *= 1.2
    (line,) = told(against_expected(found, expected))
    assert line.startswith("dmd, Diversity: 0.356, expected 0.2")


def test_another_seed_is_held_to_the_spread(expected: Record) -> None:
    assert against_expected(record(9, 0.02), expected).status == "ok"
    found = record(9, 0.02)
    one(found, "dmd", "mean")["value"] *= 1.5  # alone: the others move by 2 %
    assert against_expected(found, expected).status == "drift"


def test_what_all_students_share_is_told_apart_from_what_one_does(expected: Record) -> None:
    """Three seeds know little of what they share, and that little is said of all together."""
    outcome = against_expected(record(9, 2.0), expected)
    assert {line.split(",")[0] for line in told(outcome)} >= {"all trained students"}


def test_what_is_not_trained_is_held_to_its_own_seed(expected: Record) -> None:
    found = record(0)
    one(found, "teacher_4", "mean")["value"] *= 1.02  # within the spread of seeds
    (line,) = told(against_expected(found, expected))
    assert "at this seed" in line
    assert against_expected(record(9, 0.01), expected).status == "ok"


def test_a_spread_of_zero_is_known_from_the_other_students(tmp_path: Path) -> None:
    records = [record(seed) for seed in DEVIATION]
    for made in records:
        one(made, "dmd", "mean")["value"] = 3.0
    expected = read_json(write_expected(records, tmp_path))
    found = record(9, 0.02)
    assert against_expected(found, expected).status == "ok"


@pytest.mark.parametrize("student", LEVELS)
def test_a_value_that_vanished_is_drift(expected: Record, student: str) -> None:
    found = record(1)
    one(found, student, "mean")["value"] = None
    (line,) = told(against_expected(found, expected))
    assert line.startswith(f"{student}, Mean: None")


def test_a_value_that_was_missing_and_appears_is_drift(tmp_path: Path) -> None:
    records = [record(seed) for seed in DEVIATION]
    for made in records:
        one(made, "dmd", "mean")["value"] = None
    expected = read_json(write_expected(records, tmp_path))
    assert against_expected(records[0], expected).status == "ok"
    assert against_expected(record(0), expected).status == "drift"


def test_another_number_of_images_is_drift(expected: Record) -> None:
    found = record(0)
    one(found, "dmd", "mean")["n"] = 7
    assert told(against_expected(found, expected)) == ["dmd, Mean: n 7, expected 8"]


@pytest.mark.parametrize("suite", ["shapes", "shapes_smoke"])
def test_a_committed_expectation_is_read_and_holds_its_own_seeds(suite: str) -> None:
    expected = read_json(find_expected(suite))
    for column, seed in enumerate(expected["seeds"]):
        found = record(0)
        found["suite"] = {"name": suite, "seeds": [seed], **expected["settings"]}
        found["protocol"] = expected["protocol"]
        found["first_updates"] = {str(seed): expected["first_updates"][column]}
        found["table"] = {
            student: {
                metric: {"all": {"by_seed": {str(seed): {"value": values[column], "n": n}}}}
                for (metric, values), n in zip(
                    row.items(), expected["n"][student].values(), strict=True
                )
            }
            for student, row in expected["values"].items()
        }
        assert against_expected(found, expected).status == "ok"
        found["table"]["dmd"]["prompt_accuracy"]["all"]["by_seed"][str(seed)]["value"] -= 0.2
        assert told(against_expected(found, expected))[0].startswith("dmd, Prompt accuracy: 7")


# Several seeds in one report


def together(*records: Record) -> Record:
    """One record of several seeds."""
    whole = copy.deepcopy(records[0])
    for other in records[1:]:
        whole["suite"]["seeds"] += other["suite"]["seeds"]
        whole["first_updates"] |= other["first_updates"]
        for student, row in whole["table"].items():
            for metric, cell in row.items():
                cell["all"]["by_seed"] |= other["table"][student][metric]["all"]["by_seed"]
    return whole


def test_each_seed_of_a_report_is_held_for_itself(expected: Record) -> None:
    found = together(record(0), record(2))
    assert against_expected(found, expected).status == "ok"
    found["table"]["dmd"]["mean"]["all"]["by_seed"]["2"]["value"] *= 1.2
    found["first_updates"]["2"]["ca_only"]["x0_std"] *= 1.2
    assert [line.split(":")[0] for line in told(against_expected(found, expected))] == [
        "ca_only, x0_std, seed 2",
        "dmd, Mean, seed 2",
    ]
    found = together(record(0), record(2))
    del found["table"]["dmd"]["mean"]["all"]["by_seed"]["2"]
    assert told(against_expected(found, expected)) == ["dmd, Mean, seed 2: n None, expected 8"]


def test_one_report_of_all_seeds_makes_the_same_expectation(
    expected: Record, tmp_path: Path
) -> None:
    whole = together(*(record(seed) for seed in DEVIATION))
    made = read_json(write_expected([whole], tmp_path / "whole"))
    own = ("written", "reports", "digest")
    assert {k: v for k, v in made.items() if k not in own} == {
        k: v for k, v in expected.items() if k not in own
    }


# Settings and first iteration


def test_a_changed_setting_is_drift(expected: Record) -> None:
    found = record(0)
    found["suite"]["train"]["num_iterations"] = 6
    line = "settings.train.num_iterations: 6, expected 5"
    assert told(against_expected(found, expected)) == [line]


def test_how_a_training_is_computed_is_no_setting_that_counts(expected: Record) -> None:
    found = record(0)
    computed = {"samples_at_once": 2, "gradient_checkpointing": True, "checkpoint_every": 7}
    found["suite"]["train"] |= computed
    found["suite"]["model"] = {"images_at_once": 3}
    for row in found["suite"]["students"].values():
        row["train"] = {**row.get("train", {}), "compile": True}
    assert against_expected(found, expected).status == "ok"


@pytest.mark.parametrize(("precision", "status"), [("float32", "ok"), ("bfloat16", "drift")])
def test_an_option_younger_than_the_expectation_had_its_default(
    expected: Record, precision: str, status: str
) -> None:
    found = record(0)
    found["suite"] |= {"evaluation": None, "trackers": ["tensorboard"]}
    found["suite"]["train"]["precision"] = precision
    for row in found["suite"]["students"].values():
        row |= {"adapters": [], "checkpoint": None}
    assert against_expected(found, expected).status == status


@pytest.mark.parametrize(("dtype", "status"), [("float32", "ok"), ("bfloat16", "drift")])
@pytest.mark.parametrize("now", [True, False])
def test_a_default_that_is_written_out_is_the_default(
    expected: Record, now: bool, dtype: str, status: str
) -> None:
    """By the run or, when it was written, by the expectation."""
    found = record(0)
    (found["suite"] if now else expected["settings"])["scoring"] = {"dtype": dtype}
    assert against_expected(found, expected).status == status


def test_what_a_reader_sees_may_change(expected: Record) -> None:
    found = record(0)
    found["suite"] |= {"title": "Other", "claims": [], "baseline": "dmd"}
    assert against_expected(found, expected).status == "ok"


@pytest.mark.parametrize("before", [True, False])
def test_names_and_numbers_of_others_are_no_setting_that_counts(
    expected: Record, before: bool
) -> None:
    """Whether the run has them or the expectation, as earlier versions wrote it."""
    found = record(0)
    settings = expected["settings"] if before else found["suite"]
    settings["literature"] = [{"table": "tdm", "rows": {"dmd": "tdm"}}]
    settings["students"]["dmd"]["title"] = "DMD of old"
    outcome = against_expected(found, expected)
    assert (outcome.status, told(outcome)) == ("ok", [])


@pytest.mark.parametrize("value", [0.55, None])
def test_a_changed_first_updates_is_drift(expected: Record, value: float | None) -> None:
    found = record(0)
    found["first_updates"]["0"]["dmd"]["x0_std"] = value
    outcome = against_expected(found, expected)
    (line,) = told(outcome)
    assert line.startswith("dmd, x0_std: ")
    assert any("not chance" in note for note in outcome.notes)


def test_a_first_updates_that_appears_is_drift(expected: Record) -> None:
    found = record(0)
    found["first_updates"]["0"]["ca_only"]["dm_norm"] = 0.1
    assert against_expected(found, expected).status == "drift"


# Students on one side only


@pytest.mark.parametrize("part", ["everything", "table", "first_updates"])
@pytest.mark.parametrize("student", ["teacher_4", "ca_only"])
def test_a_student_that_is_gone_is_drift(expected: Record, student: str, part: str) -> None:
    found = record(0)
    parts = (found["table"], found["first_updates"]["0"], found["suite"]["students"])
    removed = {"everything": parts, "table": parts[:1], "first_updates": parts[1:2]}[part]
    had = [rows.pop(student, None) for rows in removed]
    outcome = against_expected(found, expected)
    assert outcome.status == ("drift" if any(had) else "ok")
    assert not any(had) or any(student in line for line in told(outcome))


@pytest.mark.parametrize("seed", [0, 9])
def test_a_new_student_is_drift(expected: Record, seed: int) -> None:
    found = record(seed, 0.0)
    found["suite"]["students"]["new"] = {"source": "train"}
    found["table"]["new"] = copy.deepcopy(found["table"]["dmd"])
    found["first_updates"][str(seed)]["new"] = {"x0_std": 0.5}
    assert any("new" in line for line in told(against_expected(found, expected)))


def test_a_metric_that_is_gone_is_drift(expected: Record) -> None:
    found = record(0)
    for row in found["table"].values():
        del row["mean"]
    assert against_expected(found, expected).status == "drift"


# The cause


def test_first_updates_come_before_values_and_values_by_how_far_they_lie(expected: Record) -> None:
    found = record(0)
    one(found, "dmd", "mean")["value"] *= 1.2
    one(found, "ca_only", "mean")["value"] *= 1.5
    found["first_updates"]["0"]["dmd"]["x0_std"] *= 1.1
    outcome = against_expected(found, expected)
    parts = [(one.part, one.name) for one in outcome.failed]
    assert parts == [
        ("first updates", "dmd, x0_std"),
        ("values", "ca_only, Mean"),
        ("values", "dmd, Mean"),
    ]
    assert all("times its margin" in line for line in [*lines_of(outcome)][1:3])


def test_what_changed_since_is_said(expected: Record) -> None:
    made = {"commit": "a" * 40, "packages": {"torch": "2.1"}, "device": "cpu", "cpu_count": 2}
    found = record(0)
    expected["provenance"] = {"common": made, "varying": {}}
    found["provenance"] = {"common": {**made, "cpu_count": 64}, "varying": {}}
    same = "commit, packages, device and weights are those of the expected values"
    assert against_expected(found, expected).notes[-1] == same
    found["provenance"] = {"common": {**made, "commit": None}, "varying": {}}  # no clone
    assert against_expected(found, expected).notes[-1] == same.removeprefix("commit, ")
    newer = {**made, "packages": {"torch": "2.2", "timm": "1"}, "commit": "b" * 40}
    found["provenance"]["common"] = newer
    (*_, note) = against_expected(found, expected).notes
    assert note.endswith(": commit aaaaaaaaaa, now bbbbbbbbbb; packages.torch 2.1, now 2.2")


def test_an_ok_says_how_close_it_was(expected: Record) -> None:
    found = record(0)
    one(found, "dmd", "mean")["value"] *= 1.004
    outcome = against_expected(found, expected)
    assert outcome.status == "ok"
    assert outcome.nearest is not None
    assert outcome.nearest.name == "dmd, Mean"
    assert 0 < outcome.nearest.beyond < 1
    line = next(lines_of(outcome))
    assert line.startswith("10 of 10 held; the nearest to its margin: dmd, Mean, ")


def test_an_edit_by_hand_shows_and_another_order_of_keys_does_not(expected: Record) -> None:
    def edits() -> list[str]:
        return [n for n in against_expected(record(0), expected).notes if "by hand" in n]

    assert edits() == []
    expected = dict(reversed(expected.items()))
    assert edits() == []
    expected["values"]["dmd"]["mean"][1] += 1e-9
    assert len(edits()) == 1
    del expected["digest"]  # older files have none
    assert edits() == []


def test_an_expectation_keeps_what_it_replaced(tmp_path: Path) -> None:
    first = read_json(write_expected([record(seed) for seed in DEVIATION], tmp_path, "the first"))
    assert first["written"]["why"] == "the first"
    assert [row["sha256"] for row in first["reports"]] == [
        report_sha256(record(seed)) for seed in DEVIATION
    ]
    moved = [record(seed, DEVIATION[seed] + 0.3) for seed in DEVIATION]
    second = read_json(write_expected(moved, tmp_path, "a better sampler"))
    third = read_json(write_expected(moved, tmp_path / "tiny.expected.json", "again"))
    assert "replaced" not in first
    assert third["digest"] == digest_of(third)
    assert [old["written"]["why"] for old in third["replaced"]] == ["the first", "a better sampler"]
    assert third["replaced"][0]["values"] == first["values"] != second["values"]


# Protocol


@pytest.mark.parametrize(
    ("field", "value"),
    [("prompts", "abd"), ("images_per_prompt", {"seen": 3}), ("resolution", 64)],
)
def test_another_protocol_is_incomparable(expected: Record, field: str, value: Any) -> None:
    found = record(0, deviation=0.5)  # and would be drift
    found["protocol"][field] = value
    outcome = against_expected(found, expected)
    assert outcome.status == "incomparable"
    (line,) = told(outcome)
    assert line.startswith(f"protocol.{field}")


def test_a_protocol_field_that_is_gone_is_incomparable(expected: Record) -> None:
    found = record(0)
    del found["protocol"]["prompts"]
    assert against_expected(found, expected).status == "incomparable"


def test_another_schema_is_incomparable(expected: Record) -> None:
    expected["schema"] = SCHEMA + 1
    assert against_expected(record(0), expected).status == "incomparable"


def test_seeds_of_different_protocols_make_no_expectation(tmp_path: Path) -> None:
    records = [record(0), {**record(1), "fingerprint": "f01"}, record(2)]
    with pytest.raises(BenchError, match="do not share protocol"):
        write_expected(records, tmp_path)
    assert list(tmp_path.iterdir()) == []
