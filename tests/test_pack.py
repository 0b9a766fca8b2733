"""A pack is a run: verified, reported and compared elsewhere, as the run is where it was made."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fake_run import DIM, make_run, make_suite
from PIL import Image
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from ddmd_bench.commands.cli import app
from ddmd_bench.files import archives
from ddmd_bench.files.records import file_sha256, read_json, write_json
from ddmd_bench.files.versions import scorer_versions
from ddmd_bench.measuring.reference import CARD, CARD_SCHEMA, GAUSSIAN, weights_of
from ddmd_bench.reporting.packs import opened_pack
from ddmd_bench.reporting.pictures import data_uri, small_picture
from ddmd_bench.stages.pack import pack
from ddmd_bench.stages.report import report
from ddmd_bench.stages.verify import verify
from ddmd_bench.stats.frechet import Gaussian
from ddmd_bench.stats.moments import factored
from ddmd_bench.suite.files import load_suite

KINDS = ("", "weights,images")


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


class Run:
    """A small run to its end, and its packs by what was left out."""

    def __init__(self, suite: Path, folder: Path) -> None:
        self.suite, self.folder = suite, folder

    def command(self, name: str, *more: str | Path) -> Result:
        where = ["--runs", self.folder / "runs", "--reports", self.folder / "reports"]
        return command(name, self.suite, *where, *more)

    def pack(self, to: Path, without: str = "") -> Path:
        result = self.command("pack", "--output", to, *(["--without", without] if without else []))
        assert result.exit_code == 0, result.output
        return to


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("run")
    students = {"dmd": {"method": "dmd"}, "ca_only": {"method": "ca_only"}}
    changes = {"students": students, "train": {**TINY["train"], "num_iterations": 2}}
    suite = folder / "tiny.yaml"
    suite.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    made = Run(suite, folder)
    result = made.command("run")
    assert result.exit_code == 0, result.output
    return made


@pytest.fixture(scope="module")
def packs(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Elsewhere: neither the run nor its suite's file lies there."""
    folder = tmp_path_factory.mktemp("packs")
    made = {kinds: run.pack(folder / f"{k}.tar", kinds) for k, kinds in enumerate(KINDS)}
    # Nothing that is read below may be the run's own.
    run.folder.rename(run.folder.with_name("gone"))
    run.folder = run.folder.with_name("gone")
    run.suite = run.folder / "tiny.yaml"
    return made


def members(pack: Path) -> dict[str, bytes]:
    with tarfile.open(pack) as tar:
        found = {}
        for info in tar:
            file = tar.extractfile(info)
            assert file is not None
            found[info.name] = file.read()
        return found


def packed_again(pack: Path, to: Path, changed: Callable[[dict[str, bytes]], Any]) -> Path:
    """The same archive with other files in it."""
    files = members(pack)
    changed(files)
    archives.write_archive(to, (archives.Member(name, data) for name, data in files.items()))
    return to


@pytest.mark.parametrize("kinds", KINDS)
def test_a_pack_is_verified_elsewhere(packs: dict[str, Path], kinds: str) -> None:
    result = command("verify", packs[kinds])
    assert result.exit_code == 0, result.output
    assert "the report follows from them" in result.stdout
    told = [line for line in result.stdout.splitlines() if "not packed" in line]
    assert len(told) == (2 * (kinds.count(",") + 1) if kinds else 0)  # a line for each student
    assert ("images not packed, files: 10" in result.stdout) == ("images" in kinds)
    assert "missing" not in result.stdout


@pytest.mark.parametrize("kinds", KINDS)
def test_the_report_of_a_pack_is_the_run_s(
    run: Run, packs: dict[str, Path], kinds: str, tmp_path: Path
) -> None:
    result = command("report", packs[kinds], "--reports", tmp_path)
    assert result.exit_code == 0, result.output

    def told(folder: Path) -> dict[str, bytes]:
        """Without the pictures, of which a pack has small ones, and where larger ones lie."""
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return {name: re.sub(rb'"data:[^"]*"', b"", data) for name, data in files.items()}

    assert told(tmp_path / "tiny") == told(run.folder / "reports/tiny")
    page = (tmp_path / "tiny" / "index.html").read_bytes()
    record = json.loads((tmp_path / "tiny" / "report.json").read_text())
    assert page.count(b"data:image/webp") == len(record["pictures"]["grid"]) > 0
    assert b"data:image/png" in page


def test_a_small_picture_is_shown_as_its_image_is(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "large.png")
    Image.fromarray(levels[:50, :96]).save(tmp_path / "small.png")
    for name in ("large.png", "small.png"):
        kept = tmp_path / f"kept-{name}"
        kept.write_bytes(small_picture(tmp_path / name)[1])
        assert data_uri(kept) == data_uri(tmp_path / name)
    assert kept.read_bytes() == (tmp_path / "small.png").read_bytes()


def test_what_is_left_out_is_not_in_the_archive(packs: dict[str, Path]) -> None:
    whole, less = ({n for n in members(p) if n.startswith("runs/")} for p in packs.values())
    assert whole > less
    assert {Path(name).suffix for name in whole - less} == {".safetensors", ".png"}
    assert not {".safetensors", ".png"} & {Path(name).suffix for name in less}


def test_packing_twice_gives_the_same_bytes(
    run: Run, packs: dict[str, Path], tmp_path: Path
) -> None:
    for path in run.folder.rglob("*"):
        os.utime(path, (1, 1))  # nor does a time or an owner go in
    assert run.pack(tmp_path / "again.tar").read_bytes() == packs[""].read_bytes()


def test_a_run_that_is_not_as_made_is_not_packed(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "copy")
    copy = Run(run.suite, tmp_path / "copy")
    picture = next(iter((tmp_path / "copy/runs").rglob("00001.png")))
    shutil.copyfile(picture.with_name("00002.png"), picture)
    result = copy.command("pack", "--output", tmp_path / "a.tar")
    assert result.exit_code == 1
    assert str(picture) in result.stdout
    assert "not packed" in result.stdout
    assert not list(tmp_path.glob("*.tar"))


def test_changed_files_are_named(packs: dict[str, Path], tmp_path: Path) -> None:
    ends = ("00001.png", "student.safetensors", "aggregates.json", "report.json", "table.csv")
    names = [next(n for n in members(packs[""]) if n.endswith(end)) for end in ends]

    def change(files: dict[str, bytes]) -> None:
        for name in names:
            files[name] = files[name].replace(b"0", b"1")

    result = command("verify", packed_again(packs[""], tmp_path / "a.tar", change))
    assert result.exit_code == 1, result.output
    for name in names:
        assert f"{name} is another file than was packed" in result.stdout


def test_no_report_is_made_of_changed_files(packs: dict[str, Path], tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        name = next(n for n in files if n.endswith("aggregates.json"))
        files[name] = files[name].replace(b"value", b"valve")

    pack = packed_again(packs[""], tmp_path / "a.tar", change)
    result = command("report", pack, "--reports", tmp_path / "reports")
    assert result.exit_code == 2
    assert "aggregates.json is another file than was packed" in result.stderr
    assert not (tmp_path / "reports").exists()


def test_files_that_no_list_has_or_that_are_lost(packs: dict[str, Path], tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["runs/tiny/generate/more.txt"] = b"more"
        del files[next(n for n in files if n.endswith("00001.png"))]

    result = command("verify", packed_again(packs[""], tmp_path / "a.tar", change))
    assert result.exit_code == 1
    assert "more.txt is in no list" in result.stdout
    assert "00001.png is missing" in result.stdout


def test_a_newer_schema_is_refused_in_a_sentence(packs: dict[str, Path], tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["pack.json"] = files["pack.json"].replace(b'"schema": 1', b'"schema": 9', 1)

    result = command("verify", packed_again(packs[""], tmp_path / "a.tar", change))
    assert result.exit_code == 2
    assert "has schema 9, this version reads 1" in result.stderr


def test_a_full_disk_leaves_nothing(
    run: Run, packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.tar"
    old.write_bytes(b"another")
    write = archives._Passing.write

    def full(self: archives._Passing, data: bytes) -> int:
        if self.tell() > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(archives._Passing, "write", full)
    result = run.command("pack", "--output", old)
    assert result.exit_code == 2
    assert "the disk is full" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old.tar"]
    assert old.read_bytes() == b"another"


def test_room_is_asked_for_before(
    run: Run, packs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    packing = run.command("pack", "--output", tmp_path / "a.tar")
    for result in (packing, command("verify", packs[""])):
        assert result.exit_code == 2
        assert "no room on the disk" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_pack_is_a_baseline(run: Run, packs: dict[str, Path]) -> None:
    asked = ["--json", "--student", "ca_only", "--against", "ca_only"]
    of_pack = run.command("check", "--baseline", packs["weights,images"], *asked)
    of_run = run.command("check", "--baseline", run.folder / "reports/tiny", *asked)
    assert of_pack.exit_code == of_run.exit_code
    values = [
        [held for held in json.loads(result.stdout)["held"] if held["part"] != "pictures"]
        for result in (of_pack, of_run)
    ]
    assert values[0] == values[1] != []


def test_statistics_and_tasks_without_lists_are_packed(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(200, DIM)).astype(np.float32)
    kept = tmp_path / "kept"
    kept.mkdir()
    np.save(kept / "attributes.npy", features)
    mean, cov = features.mean(0).astype(np.float64), np.cov(features.T.astype(np.float64))
    gaussian = factored(Gaussian(mean, cov))
    save_file(dict(zip(GAUSSIAN, map(np.ascontiguousarray, gaussian), strict=True)),
              kept / "attributes.safetensors")  # fmt: skip
    files = {path.name: file_sha256(path) for path in kept.iterdir()}
    row = {"files": files, "weights": weights_of("attributes"), "num_features": DIM, "protocol": "",
           "versions": scorer_versions(["attributes"])}  # fmt: skip
    facts = {"n": len(features), "source": {"source": "images"}, "subset": ""}
    facts["images_sha256"] = "0" * 64
    write_json(kept / CARD, {"schema": CARD_SCHEMA, **facts, "scorers": {"attributes": row}})
    students = {"dmd": {"method": "dmd"}, "ca_only": {"method": "ca_only"}}
    suite = make_suite([], students=students, reference={"statistics": str(kept)})
    plan = make_run(tmp_path / "run", suite)
    record = report(plan)
    assert record["table"]["dmd"]["frechet_attributes"]["all"]["value"] is not None
    pack(plan, tmp_path / "a.tar", [], lambda num_files, num_bytes: None)
    for folder in ("run", "kept"):
        shutil.rmtree(tmp_path / folder)
    with opened_pack(tmp_path / "a.tar") as packed:
        found = verify(packed)
    assert found.wrong == []
    assert sum("lists no files" in line for line in found.unknown) == len(plan.tasks)


def test_every_suite_that_is_carried_is_read_again(tmp_path: Path) -> None:
    for path in (Path(__file__).parents[1] / "suites").glob("*.yaml"):
        suite = load_suite(str(path), ["seeds=[3,1]"])
        text = yaml.safe_dump(suite.model_dump(mode="json", exclude_unset=True), sort_keys=False)
        again = tmp_path / path.name
        again.write_text(text)
        assert load_suite(str(again)) == suite
        assert load_suite(str(again)).model_dump(mode="json") == suite.model_dump(mode="json")


def test_wrong_use_is_said(run: Run, packs: dict[str, Path]) -> None:
    for words, told in (
        (["pack", run.suite, "--without", "image"], "Did you mean 'images'"),
        (["pack", run.suite, "--output", "a.zip"], "expected FILE.tar"),
        (["pack", packs[""]], "packed already"),
        (["verify", packs[""], "--set", "seeds=[1]"], "holds the settings of its own run"),
        (["verify", "nowhere.tar"], "nowhere.tar: cannot be opened"),
    ):
        result = command(*words)
        assert result.exit_code == 2
        assert told in result.stderr


def test_an_unpacked_pack_is_a_run(run: Run, packs: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(packs[""]) as tar:
        tar.extractall(tmp_path, filter="data")
    where = ["--runs", tmp_path / "runs", "--reports", tmp_path / "reports"]
    result = command("verify", tmp_path / "suite.yaml", *where)
    assert result.exit_code == 0, result.output
    assert read_json(tmp_path / "pack.json")["without"] == []


def test_a_page_that_was_edited_is_seen(run: Run, packs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "copy")
    copy = Run(run.suite, tmp_path / "copy")
    for name in ("index.html", "table.tex"):
        page = tmp_path / "copy/reports/tiny" / name
        text = page.read_text()
        page.write_text(text.replace("prompt", "prompf", 1))
        result = copy.command("verify")
        assert result.exit_code == 1
        assert f"{page}: does not follow from the run's files" in result.stdout
        page.write_text(text)
