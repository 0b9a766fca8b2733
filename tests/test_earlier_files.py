"""Files of every version that was ever written are read; a newer one is refused in a sentence.

`fixtures/README.md` says by which commit each was made, and how it was cut.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ddmd_bench.errors import BenchError
from ddmd_bench.files.arrays import read_npz
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.records import read_done, read_record, write_json
from ddmd_bench.measuring.answers import read_part
from ddmd_bench.planning.task import Task
from ddmd_bench.reporting.between import between, between_markdown
from ddmd_bench.reporting.drift import against_expected
from ddmd_bench.reporting.expected import edited, read_expected
from ddmd_bench.reporting.power import power_markdown
from ddmd_bench.reporting.runfiles import StudentFiles, load_student
from ddmd_bench.reporting.saved import read_report
from ddmd_bench.suite.schema import Suite
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
RUNS = sorted((FIXTURES / "runs").iterdir())
REPORTS = sorted((FIXTURES / "reports").glob("*.json"))
EXPECTED = sorted((FIXTURES / "expected").glob("*.json"))
IMAGES, PROMPTS = 10, 5
# A report of no seeds, as those of the first version were, and one of today.
FIRST, LAST = FIXTURES / "reports/a1b9bdb.json", FIXTURES / "reports/f571b0c.json"


def files_of(run: Path) -> StudentFiles:
    """A student's files as a report reads them."""
    tasks = {}
    for stage in ("train", "generate", "score"):
        done = read_done(run / stage)
        assert done is not None
        tasks[stage] = Task(stage, "dmd", 0, "dmd", done["key"], run / stage, {})
    suite = Suite.model_validate({**TINY, "metrics": ["std", "frechet_attributes"]})
    plan: Any = SimpleNamespace(
        suite=suite, packed=None, find=lambda stage, student, seed: tasks[stage]
    )
    return load_student(plan, "dmd", 0)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_of_each_version_is_read(run: Path) -> None:
    found = files_of(run)
    assert found.missing == ""
    assert found.per_image is not None
    assert found.diagnostics is not None
    assert len(found.per_image) == IMAGES
    assert found.features["attributes"].shape == (IMAGES, 128)
    assert found.diagnostics["iteration"].tolist() == [1, 2, 3]
    identity = found.per_image[["prompt_id", "image_index"]]
    assert {*found.images} == {*map(tuple, identity.to_numpy().tolist())}
    # What the stage aggregated is what its table says.
    value = found.aggregates["std"]["all"]["value"]
    assert value == pytest.approx(found.per_image["std"].mean(), rel=1e-12)
    assert found.done["score"]["n"] == IMAGES
    if (run / "train/evaluations.parquet").is_file():
        assert found.evaluations is not None
        assert found.evaluations["iteration"].tolist() == [2]


@pytest.mark.parametrize("part", sorted(FIXTURES.glob("runs/*/answers/*.npz")), ids=str)
def test_answers_of_each_version_are_read(part: Path) -> None:
    facts = json.loads(str(read_npz(part)["facts"]))
    answer = read_part(part, facts["stamp"])
    assert answer is not None
    assert answer.num_images == IMAGES
    assert all(np.isfinite(values).all() for values in answer.columns.values())
    assert read_part(part, "of other images") is None


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("runs/*/embeddings")), ids=str)
def test_encoded_prompts_of_each_version_are_read(folder: Path) -> None:
    store = Store(folder)
    store.verify()
    assert len(store.places) == PROMPTS
    assert all("labels" in row for row in store.rows([*store.places]))


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("runs/*/*/asked.json")), ids=str)
def test_what_was_asked_is_read(path: Path) -> None:
    asked = read_record(path, {"key": str, "inputs": {"versions": {...: int}}})
    assert asked["key"] == (read_done(path.parent) or {})["key"]


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_report_of_each_version_is_read(path: Path) -> None:
    record = read_report(path)
    cell = record["table"]["dmd"]["prompt_accuracy"]["all"]
    assert cell["by_seed"]["0"]["value"] == cell["value"]
    assert record["first_updates"]["0"]["dmd"]["dm_norm"] > 0
    (row, _) = between(record, record, [("dmd", "ca_only")])
    assert row.values[0] > row.values[1]
    assert "dmd" in between_markdown(record, record, ("a", "b"), [row])


def test_a_report_of_each_version_can_be_held_against_its_expectation() -> None:
    """The first one's values against those of its time, and the last one's."""
    pairs = {"a1b9bdb": "a1b9bdb", "f571b0c": "e9fd21b"}
    for report, expected in pairs.items():
        record = read_report(FIXTURES / f"reports/{report}.json")
        known = read_expected(FIXTURES / f"expected/{expected}.json")
        assert against_expected(record, known).status == "ok"


def test_what_a_version_did_not_tell_is_said() -> None:
    with pytest.raises(BenchError, match="was made before reports had spreads"):
        power_markdown(read_report(FIRST), "prompt_accuracy", 1)
    assert "could show" in power_markdown(read_report(LAST), "prompt_accuracy", 1)
    assert not any(edited(read_expected(path)) for path in EXPECTED)


def test_what_is_committed_here_is_read() -> None:
    for path in ROOT.glob("reports/*/report.json"):
        read_report(path)
    for path in ROOT.glob("reference_stats/*.expected.json"):
        read_expected(path)


@pytest.mark.parametrize(
    ("source", "read"),
    [
        (LAST, read_report),
        (EXPECTED[0], read_expected),
        (RUNS[-1] / "score/done.json", lambda path: read_done(path.parent)),
    ],
    ids=["report", "expected", "done"],
)
def test_a_newer_version_is_refused_in_one_sentence(
    source: Path, read: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / source.name
    write_json(path, {**json.loads(source.read_text()), "schema": 2, "more": "than is known"})
    with pytest.raises(BenchError) as raised:
        read(path)
    assert str(raised.value) == (
        f"{path}: schema 2; expected 1 or earlier. It was written by a newer ddmd_bench: update "
        "this one"
    )


def changes(value: Any, draws: random.Random) -> Iterator[tuple[list[Any], Any]]:
    """Ways to a part of a JSON value, with what stands there instead; None: nothing does."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        for other in (None, [], {}, "text", -1, 7.5, True, "removed"):
            yield [key], other
        if isinstance(value[key], dict | list):
            for way, other in changes(value[key], draws):
                yield [key, *way], other


def changed(record: dict[str, Any], way: list[Any], other: Any) -> dict[str, Any]:
    record = copy.deepcopy(record)
    part: Any = record
    for key in way[:-1]:
        part = part[key]
    if other == "removed":
        del part[way[-1]]
    else:
        part[way[-1]] = other
    return record


def use_report(path: Path) -> None:
    record = read_report(path)
    rows = between(record, record, [("dmd", "ca_only")])
    between_markdown(record, record, ("a", "b"), rows)
    power_markdown(record, "prompt_accuracy", 1)
    against_expected(record, read_expected(EXPECTED[-1]))


def use_expected(path: Path) -> None:
    against_expected(read_report(LAST), read_expected(path))


USES = [(path, use_report) for path in REPORTS] + [(path, use_expected) for path in EXPECTED]


@pytest.mark.parametrize(("source", "use"), USES, ids=lambda one: getattr(one, "stem", ""))
def test_no_part_of_a_record_can_be_another_thing(
    source: Path, use: Callable[[Path], None], tmp_path: Path
) -> None:
    """Any part left out, or of another kind: what compares still computes, or names the file."""
    draws, record = random.Random(0), json.loads(source.read_text())
    every = list(changes(record, draws))
    path, refused = tmp_path / "record.json", 0
    for way, other in draws.sample(every, 60):
        path.write_text(json.dumps(changed(record, way, other)))
        try:
            use(path)
        except BenchError:
            refused += 1
    assert refused > 10
