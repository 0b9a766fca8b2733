"""What lies on disk is what was made: a file that was changed since never becomes a number."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import Unreadable
from ddmd_bench.files.made import Changed, made_by, require_made
from ddmd_bench.files.records import read_done, read_json, read_record, write_json
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.suite.files import load_suite


class Finished:
    """A small run to its end, in a folder of its own."""

    def __init__(self, suite: str, folder: Path) -> None:
        self.suite, self.folder = suite, folder

    def command(self, name: str) -> Result:
        where = ["--runs", str(self.folder / "runs"), "--reports", str(self.folder / "reports")]
        return CliRunner().invoke(app, [name, self.suite, *where])

    @property
    def plan(self) -> Plan:
        return make_plan(load_suite(self.suite, []), self.folder / "runs", self.folder / "reports")

    def of(self, stage: str, student: str) -> Path:
        return self.plan.task(stage, student, 0).folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    import yaml

    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("made")
    students = {"dmd": {"method": "dmd"}, "ca_only": {"method": "ca_only"}}
    changes = {"students": students, "train": {**TINY["train"], "num_iterations": 2}}
    suite = folder / "tiny.yaml"
    suite.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    run = Finished(str(suite), folder)
    result = run.command("run")
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def finished(made: Finished, tmp_path: Path) -> Finished:
    shutil.copytree(made.folder, tmp_path, dirs_exist_ok=True)
    return Finished(made.suite, tmp_path)


def refused(result: Result, path: Path) -> bool:
    told = result.stderr
    again = re.search(r"python -m ddmd_bench run \S+/tiny\.yaml`", told)  # as it was typed
    return result.exit_code == 3 and str(path) in told and again is not None


def swap(first: Path, second: Path) -> None:
    between = first.with_name("between")
    first.rename(between)
    second.rename(first)
    between.rename(second)


def test_every_file_that_is_read_is_listed(made: Finished) -> None:
    for task in made.plan.tasks.values():
        listed = made_by(task.folder)
        there = {str(p.relative_to(task.folder)) for p in task.folder.rglob("*") if p.is_file()}
        assert there - listed.keys() <= {"done.json", "asked.json"}, task
        require_made(task.folder)


def test_a_copied_run_is_the_same_run(finished: Finished) -> None:
    result = finished.command("run")
    assert result.exit_code == 0, result.output


def test_swapped_images_are_never_scored(finished: Finished) -> None:
    images = [finished.of("generate", name) / "images" for name in ("dmd", "ca_only")]
    shutil.rmtree(finished.folder / "runs/tiny/score")
    swap(*images)
    assert refused(finished.command("run"), images[0])


def test_a_flipped_bit_of_the_weights_draws_no_image(finished: Finished) -> None:
    weights = finished.of("train", "dmd") / "student.safetensors"
    times = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a tool may set it back
    shutil.rmtree(finished.of("generate", "dmd"))
    assert refused(finished.command("generate"), weights)


def test_an_edited_value_reaches_no_report(finished: Finished) -> None:
    path = finished.of("score", "dmd") / "aggregates.json"
    aggregates = read_json(path)
    aggregates["std"]["all"]["value"] = 0.123456
    write_json(path, aggregates)
    assert refused(finished.command("run"), path)
    result = finished.command("report")
    assert (result.exit_code, str(path) in result.output) == (3, True)
    record = read_json(finished.folder / "reports/tiny/report.json")
    assert str(path) in record["students"]["dmd"]["missing"]
    assert "0.123456" not in (finished.folder / "reports/tiny/report.json").read_text()


def test_a_record_of_an_earlier_version_stays_valid(finished: Finished) -> None:
    for task in finished.plan.tasks.values():
        record = read_done(task.folder) or {}
        record.pop("files", None)
        write_json(task.folder / "done.json", record)
    assert finished.command("run").exit_code == 0


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_the_list_of_images_is_one_that_sha256sum_checks(made: Finished) -> None:
    command = ["sha256sum", "-c", "--quiet", "images.sha256"]
    assert subprocess.run(command, cwd=made.of("generate", "dmd")).returncode == 0


def test_a_changed_list_is_seen(finished: Finished) -> None:
    folder = finished.of("generate", "dmd")
    (folder / "images.sha256").write_text("")
    with pytest.raises(Changed, match=r"images\.sha256"):
        made_by(folder)


def test_a_whole_run_is_verified(finished: Finished) -> None:
    result = finished.command("verify")
    assert result.exit_code == 0, result.output
    assert "the report follows from them" in result.stdout


def test_verify_names_each_changed_file(finished: Finished) -> None:
    picture = finished.of("generate", "dmd") / "images/00001.png"
    scores = finished.of("score", "ca_only") / "per_image.parquet"
    shutil.copyfile(picture.with_name("00002.png"), picture)
    scores.write_bytes(scores.read_bytes()[:-9])
    result = finished.command("verify")
    assert result.exit_code == 1
    assert str(picture) in result.stdout
    assert str(scores) in result.stdout


def test_verify_sees_a_report_that_does_not_follow(finished: Finished) -> None:
    path = finished.folder / "reports/tiny/report.json"
    record = read_json(path)
    record["table"]["dmd"]["std"]["all"]["value"] = 0.123456
    write_json(path, record)
    result = finished.command("verify")
    assert result.exit_code == 1
    assert "report.table.dmd.std.all.value: 0.123456, expected" in result.stdout
    path.write_text("{")
    assert finished.command("verify").exit_code == 1


def test_cut_records_are_errors_with_what_to_do(finished: Finished, tmp_path: Path) -> None:
    report = finished.folder / "reports/tiny/report.json"
    report.write_text(report.read_text()[:200])
    result = CliRunner().invoke(app, ["compare", str(report), str(report)])
    assert result.exit_code == 2
    assert f"{report}: cut, or no JSON" in result.stderr
    assert finished.command("run").exit_code == 0  # which makes it again
    assert read_json(report)["table"]
    expected = tmp_path / "expected.json"
    write_json(expected, {"schema": 1})
    with pytest.raises(Unreadable, match="expected an object with schema, protocol"):
        read_record(expected, {"schema": int, "protocol": {}})
    done = finished.of("train", "dmd") / "done.json"
    done.write_text(done.read_text()[:30])
    result = finished.command("run")
    assert result.exit_code == 2
    assert "done.json: cut, or no JSON" in result.stderr
