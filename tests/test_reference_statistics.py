"""Reference statistics: built, gone on with, shown, named by a suite; misfits are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.errors import BenchError
from ddmd_bench.files.locks import locked
from ddmd_bench.files.records import file_sha256, write_json
from ddmd_bench.files.versions import VERSIONS
from ddmd_bench.measuring import feature_parts
from ddmd_bench.measuring.reference import (
    CARD,
    find_statistics,
    load_reference,
    read_card,
    statistics_inputs,
    statistics_problems,
)
from ddmd_bench.measuring.reference_build import build
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.planning.reference import REFERENCE
from ddmd_bench.reporting.runfiles import _reference as read_reference
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.weights import Weights
from ddmd_bench.stats.frechet import gaussian_of, symmetric_root
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import DataSource

NUM_IMAGES = 11


class Corner:
    """Features that are read off by eye: mean levels of each channel and the top left pixel's."""

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        return [{} for _ in prompts]

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        assert len(text) == len(inputs)
        return Scored({}, torch.cat([inputs.mean((2, 3)), inputs[:, :, 0, 0]], 1))


@pytest.fixture(autouse=True)
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scorer `corner` in the place of Inception's, whose weights are a file."""
    weights = tmp_path / "corner.pth"
    weights.write_bytes(b"weights")
    use_corner(weights, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return weights


def use_corner(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(load=lambda name, device, dtype: Corner())
    monkeypatch.setattr("ddmd_bench.scorers.interface.import_module", lambda name: module)
    kept = Weights("corner", ("corner.pth",), elsewhere=(str(weights.parent),))
    for name in ("inception", "inception_patch"):
        monkeypatch.setitem(SCORERS, name, replace(SCORERS[name], weights=(kept,), num_features=6))
    monkeypatch.setattr(feature_parts, "PART", 6)
    monkeypatch.setattr("ddmd_bench.measuring.features.CHUNK_SIZE", 3)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for k in range(NUM_IMAGES):
        levels = generator.integers(0, 256, (5 + k % 2, 7, 3)).astype(np.uint8)
        name = f"more/{k:02}.png" if k > 6 else f"{k:02}.png"
        Image.fromarray(levels).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def expected_features(folder: Path) -> np.ndarray:
    rows = []
    for path in sorted(folder.rglob("*.png")):
        levels = np.asarray(Image.open(path), np.float64)
        rows.append([*levels.mean((0, 1)), *levels[0, 0]])
    return np.array(rows)


def built(
    folder: Path | str, output: Path, scorers: Sequence[str] = ("inception",), **options: Any
) -> Path:
    return build(
        DataSource(source=str(folder)), output, scorers, options.get("num"), lambda k: None
    )


def test_features_and_their_gaussian_come_back(photographs: Path, tmp_path: Path) -> None:
    output = built(photographs, tmp_path / "kept", ["inception", "inception_patch"])
    features = expected_features(photographs)
    for extractor in ("inception", "inception_patch"):
        reference = load_reference(output, extractor)
        assert reference.features.dtype == np.float32
        np.testing.assert_allclose(reference.features, features, rtol=1e-6)
        expected = gaussian_of(reference.features)
        assert reference.fixed is not None
        np.testing.assert_allclose(reference.fixed.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(reference.fixed.cov, expected.cov, rtol=1e-9, atol=1e-9)
        factor = reference.fixed.factor
        np.testing.assert_array_equal(factor, np.tril(factor))
        np.testing.assert_allclose(factor @ factor.T, expected.cov, rtol=1e-9, atol=1e-6)
    card = read_card(output)
    assert card["n"] == NUM_IMAGES
    assert card["scorers"]["inception"]["protocol"].startswith("clean-fid")
    assert not any("date" in key or "time" in key for key in card)
    assert sorted(p.suffix for p in output.iterdir()) == [
        ".json",
        *[".npy"] * 2,
        *[".safetensors"] * 2,
    ]


def test_a_build_goes_on_where_it_was_stopped(photographs: Path, tmp_path: Path) -> None:
    whole = built(photographs, tmp_path / "whole")

    def stop(done: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    source, output = DataSource(source=str(photographs)), tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        build(source, output, ["inception"], None, stop)
    assert not (output / CARD).exists()
    seen: list[int] = []
    build(source, output, ["inception"], None, seen.append)
    assert seen == [9, 11]  # not the first six
    assert read_card(output) == read_card(whole)
    assert (output / "inception.npy").read_bytes() == (whole / "inception.npy").read_bytes()


class Killed(BaseException):
    """Ends a build as a signal does: nothing catches it."""


def kill_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """End once after so many steps; how often each image is seen from now on."""
    preprocess, replace_ = Corner.preprocess, Path.replace
    steps, seen = count(), Counter[bytes]()

    def step() -> None:
        if next(steps) == moment:
            raise Killed

    def seeing(self: Corner, image: Image.Image) -> Tensor:
        step()
        seen[image.tobytes()] += 1
        return preprocess(self, image)

    def renaming(self: Path, target: Path) -> Path:
        step()
        renamed = replace_(self, target)
        step()
        return renamed

    monkeypatch.setattr(Corner, "preprocess", seeing)
    monkeypatch.setattr(Path, "replace", renaming)
    return seen


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_a_build_may_be_killed_at_any_moment(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before an image is seen, before a file is renamed to its name, or once it is."""
    whole, output = built(photographs, tmp_path / "whole"), tmp_path / "killed"
    seen = kill_at(moment, monkeypatch)
    with suppress(Killed):
        built(photographs, output)
    if not (output / CARD).exists():
        built(photographs, output)
    assert contents(output) == contents(whole)
    assert max(seen.values()) <= 2
    assert seen.total() <= NUM_IMAGES + feature_parts.PART


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import test_reference_statistics as tests
from ddmd_bench.measuring import feature_parts, features
from ddmd_bench.scorers import SCORERS
from ddmd_bench.scorers.weights import Weights

def preprocess(self, image):
    seen.append(image)
    if len(seen) == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, image)

seen, whole = [], tests.Corner.preprocess
tests.Corner.preprocess = preprocess
with tests.pytest.MonkeyPatch.context() as patch:
    tests.use_corner(Path("corner.pth"), patch)
    tests.built("photographs", Path("killed"))
"""


@pytest.mark.long
def test_a_build_that_was_killed_goes_on(photographs: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    seen: list[int] = []
    source = DataSource(source="photographs")
    build(source, Path("killed"), ["inception"], None, seen.append)
    assert seen == [9, 11]
    assert contents(tmp_path / "killed") == contents(built("photographs", tmp_path / "whole"))


def test_another_number_goes_on_too(photographs: Path, tmp_path: Path) -> None:
    """More images, and fewer: bytes are those of a build of as many."""
    source = DataSource(source=str(photographs))
    for num, before in ((11, 9), (7, 11), (6, 11)):
        seen, output = list[int](), tmp_path / f"{before}-{num}"
        with pytest.raises(KeyboardInterrupt):
            build(source, output, ["inception"], before, partial(_stop_after, 9))
        build(source, output, ["inception"], num, seen.append)
        assert not seen or seen[0] > 6
        whole = built(photographs, tmp_path / f"whole-{before}-{num}", num=num)
        assert contents(output) == contents(whole)


def _stop_after(last: int, done: int) -> None:
    if done >= last:
        raise KeyboardInterrupt


def test_finished_statistics_take_more_images_and_other_scorers(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is not extracted again; bytes are those of one build."""
    output, both = tmp_path / "kept", ["inception", "inception_patch"]
    preprocess, seen = Corner.preprocess, list[int]()
    monkeypatch.setattr(
        Corner, "preprocess", lambda self, image: seen.append(0) or preprocess(self, image)
    )

    def added(scorers: Sequence[str], num: int | None) -> int:
        before = len(seen)
        built(photographs, output, scorers, num=num)
        return len(seen) - before

    assert added(["inception"], 7) == 7
    assert added(["inception"], 10) == 4  # those after the first part
    assert contents(output) == contents(built(photographs, tmp_path / "ten", num=10))
    assert added(["inception_patch"], None) == 10  # of the images that are there
    assert contents(output) == contents(built(photographs, tmp_path / "both", both, num=10))
    for num, source in ((10, photographs), (9, photographs), (11, tmp_path)):
        with pytest.raises(BenchError, match="there already, 10 images of"):
            built(source, output, num=num)
    (photographs / "00.png").rename(photographs / "99.png")
    with pytest.raises(BenchError, match=r"there already, of other images than .* has now"):
        built(photographs, output, num=11)


@pytest.mark.parametrize("moment", range(1, 30, 4))
def test_what_is_added_may_be_killed_at_any_moment(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The folder is what it was, or says that it is not whole, until it is what was asked for."""
    both = ["inception", "inception_patch"]
    whole, output = built(photographs, tmp_path / "whole", both), tmp_path / "killed"
    built(photographs, output, num=7)
    kill_at(moment, monkeypatch)
    with suppress(Killed):
        built(photographs, output, both, num=NUM_IMAGES)
    with suppress(BenchError):
        assert len(load_reference.__wrapped__(output, "inception").features) in (7, NUM_IMAGES)
    if read_card(output)["n"] == 7:
        built(photographs, output, both, num=NUM_IMAGES)
    assert contents(output) == contents(whole)


def test_a_source_that_changed_meanwhile_is_read_anew(photographs: Path, tmp_path: Path) -> None:
    source, output = DataSource(source=str(photographs)), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        build(source, output, ["inception"], None, partial(_stop_after, 9))
    (photographs / "00.png").rename(photographs / "99.png")
    build(source, output, ["inception"], None, lambda done: None)
    assert contents(output) == contents(built(photographs, tmp_path / "whole"))


def test_parts_of_files_that_were_replaced_are_made_again_and_no_others(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever sizes and times say: what counts is the bytes."""
    source, output = DataSource(source=str(photographs)), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        build(source, output, ["inception"], None, partial(_stop_after, 11))
    replaced = sorted(photographs.rglob("*.png"))[7]
    before, data = replaced.stat(), replaced.read_bytes()
    other = np.random.default_rng(1).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    Image.fromarray(other).save(replaced)
    assert abs(replaced.stat().st_size - len(data)) < 20
    replaced.write_bytes(replaced.read_bytes().ljust(len(data), b"\0")[: before.st_size + 20])
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen = list[str]()
    preprocess = Corner.preprocess
    monkeypatch.setattr(
        Corner, "preprocess", lambda self, image: seen.append("") or preprocess(self, image)
    )
    build(source, output, ["inception"], None, lambda done: None)
    assert len(seen) == NUM_IMAGES - 6  # the first part's six stay
    seen.clear()
    assert contents(output) == contents(built(photographs, tmp_path / "whole"))
    # One that leads all others moves them all.
    (photographs / "000.png").write_bytes(data)
    with pytest.raises(KeyboardInterrupt):
        build(source, tmp_path / "more", ["inception"], None, partial(_stop_after, 11))
    (photographs / "000.png").unlink()
    build(source, tmp_path / "more", ["inception"], None, lambda done: None)
    assert contents(tmp_path / "more") == contents(tmp_path / "whole")


def test_a_part_that_was_damaged_is_made_again(photographs: Path, tmp_path: Path) -> None:
    source, output = DataSource(source=str(photographs)), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        build(source, output, ["inception"], None, partial(_stop_after, 9))
    (part,) = (output / "unfinished").glob("*/*/*.npz")
    for damaged in (part.read_bytes()[:-30], part.read_bytes().replace(b"\x00\x00", b"\x01\x00")):
        part.write_bytes(damaged)
        assert not feature_parts._is_whole(part, 6)
    build(source, output, ["inception"], None, lambda done: None)
    assert contents(output) == contents(built(photographs, tmp_path / "whole"))


def test_a_second_build_in_a_folder_is_refused(photographs: Path, tmp_path: Path) -> None:
    with (
        locked(tmp_path / "kept" / "unfinished"),
        pytest.raises(BenchError, match=r"in use by process .* Wait until that has ended"),
    ):
        built(photographs, tmp_path / "kept")


def test_statistics_of_another_version_are_refused(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = built(photographs, tmp_path / "kept")
    card = read_card(output)
    del card["scorers"]["inception"]["versions"]
    write_json(output / CARD, card)
    assert not statistics_problems(str(output), ["fid"])  # without one it is the first
    monkeypatch.setitem(VERSIONS, "scorer inception", 2)
    (problem,) = statistics_problems(str(output), ["fid"])
    assert "inception.scorer inception: 1, expected 2. Use the same weights and version" in problem
    with pytest.raises(BenchError, match="scorer inception: 1, expected 2"):
        load_reference.__wrapped__(output, "inception")


def test_parts_of_another_build_are_not_taken(
    photographs: Path, tmp_path: Path, corner: Path
) -> None:
    def stop(done: int) -> None:
        if done > 8:
            raise KeyboardInterrupt

    source, output = DataSource(source=str(photographs)), tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        build(source, output, ["inception"], None, stop)
    corner.write_bytes(b"other weights")
    seen: list[int] = []
    build(source, output, ["inception"], None, seen.append)
    assert seen[0] == 3


def test_the_first_of_a_source(photographs: Path, tmp_path: Path) -> None:
    output = built(photographs, tmp_path / "few", num=5)
    found = load_reference(output, "inception").features
    np.testing.assert_allclose(found, expected_features(photographs)[:5], rtol=1e-6)
    with pytest.raises(BenchError, match="asked for 12 images, it has 11"):
        built(photographs, tmp_path / "many", num=12)


def test_no_more_files_are_hashed_than_are_asked_for(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, and told while it goes on; a larger number hashes what is new."""
    hashed, told = list[str](), list[tuple[int, int]]()

    def hashing(path: Path) -> str:
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr("ddmd_bench.measuring.reference_build.file_sha256", hashing)
    source, output = DataSource(source=str(photographs)), tmp_path / "few"
    for num, new in ((5, range(5)), (9, range(5, 9))):
        build(source, output, ["inception"], num, lambda k: None, lambda *now: told.append(now))
        assert [name for name in hashed if name.endswith(".png")] == [f"{k:02}.png" for k in new]
        assert told == [(k, num) for k in range(1, num + 1)]
        hashed.clear()
        told.clear()
    assert contents(output) == contents(built(photographs, tmp_path / "at_once", num=9))
    built(photographs, tmp_path / "all")
    assert [name for name in hashed if name.endswith(".png")] == ["09.png", "10.png"]


def test_a_table_of_images_is_a_source(photographs: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(photographs.rglob("*.png"))
    rows = [{"bytes": path.read_bytes(), "path": None} for path in files]
    table = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": rows}), table)
    output = built(table, tmp_path / "kept")
    np.testing.assert_allclose(
        load_reference(output, "inception").features, expected_features(photographs), rtol=1e-6
    )
    assert (
        read_card(output)["images_sha256"]
        == read_card(built(photographs, tmp_path / "b"))["images_sha256"]
    )


def test_the_images_of_a_published_list_are_a_source(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/coco").mkdir(parents=True)
    archive = tmp_path / "data/coco/coco10k.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("coco10k/all_prompts.pkl", b"")
        file.writestr("coco10k/other/image.png", b"")
        for path in photographs.rglob("*"):
            if path.is_file():
                file.write(path, f"coco10k/subset/{path.relative_to(photographs)}")
    row = replace(PROMPT_SOURCES["coco2014_10k"], repository=str(tmp_path))
    monkeypatch.setitem(PROMPT_SOURCES, "coco2014_10k", row)
    found = load_reference(built("coco2014_10k", tmp_path / "kept"), "inception")
    np.testing.assert_allclose(found.features, expected_features(photographs), rtol=1e-6)
    assert "stats build coco2014_10k reference" in statistics_problems("coco2014_10k", [])[0]
    archive.write_bytes(archive.read_bytes()[:900])
    with pytest.raises(BenchError, match="not a whole zip"):
        built("coco2014_10k", tmp_path / "cut")


def test_options_that_say_nothing_of_a_source_are_refused(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data/coco").mkdir(parents=True)
    (tmp_path / "data/coco/coco10k.zip").write_bytes(b"is not read")
    row = replace(PROMPT_SOURCES["coco2014_10k"], repository=str(tmp_path))
    monkeypatch.setitem(PROMPT_SOURCES, "coco2014_10k", row)
    for source, option in (
        (str(photographs), "column"),
        (str(photographs), "split"),
        ("coco2014_10k", "column"),
        ("coco2014_10k", "revision"),
    ):
        data = DataSource.model_validate({"source": source, option: "x"})
        with pytest.raises(BenchError, match=f"takes no {option}; leave it out"):
            build(data, tmp_path / "kept", ["inception"], None, lambda done: None)
    assert not (tmp_path / "kept" / CARD).exists()


def test_what_cannot_be_read_stops_the_build(photographs: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (photographs / "05.png").write_bytes((photographs / "05.png").read_bytes()[:60])
    with pytest.raises(BenchError, match=r"05\.png: cannot be decoded"):
        built(photographs, tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="holds neither images"):
        built(tmp_path / "empty", tmp_path / "kept")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "no.parquet")
    with pytest.raises(BenchError, match="need two images or more"):
        built(tmp_path / "no.parquet", tmp_path / "kept")


def test_a_file_counts_as_it_is_shown(photographs: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    levels = np.array([[0, 32_768, 65_535]], np.uint16)
    Image.fromarray(levels).save(photographs / "05.png", exif=exif)
    row = sorted(photographs.rglob("*.png")).index(photographs / "05.png")
    found = load_reference(built(photographs, tmp_path / "kept"), "inception").features[row]
    assert found.tolist() == pytest.approx([(0 + 128 + 255) / 3] * 3 + [255] * 3)


def test_another_extractor_and_changed_files_are_refused(
    photographs: Path, tmp_path: Path, corner: Path
) -> None:
    output = built(photographs, tmp_path / "reference_stats" / "photographs")
    assert find_statistics("photographs").resolve() == output.resolve()
    assert not statistics_problems("photographs", ["fid"])
    (problem,) = statistics_problems("photographs", ["patch_fid"])
    assert "has features of inception, not of inception_patch" in problem
    assert "--scorers inception --scorers inception_patch" in problem
    before = statistics_inputs("photographs", ["fid"])
    corner.write_bytes(b"other weights")
    (problem,) = statistics_problems("photographs", ["fid"])
    assert "corner.pth" in problem
    assert "build it again" in problem
    with pytest.raises(BenchError, match=r"corner\.pth"):
        load_reference.__wrapped__(output, "inception")
    corner.write_bytes(b"weights")
    array = np.load(output / "inception.npy")
    array[0, 0] += 1
    np.save(output / "inception.npy", array)
    with pytest.raises(BenchError, match=r"inception\.npy has sha256 .* card\.json says"):
        load_reference.__wrapped__(output, "inception")
    assert statistics_inputs("photographs", ["fid"]) == before  # what the card says of its files
    card = read_card(output)
    card["scorers"]["inception_patch"] = card["scorers"]["inception"]
    write_json(output / CARD, card)
    assert statistics_inputs("photographs", ["fid"]) == before  # as no metric reads the other
    write_json(output / CARD, with_other_files(card))
    assert statistics_inputs("photographs", ["fid"]) != before
    assert statistics_inputs("photographs", ["mean"]) == statistics_inputs(None, ["fid"]) == {}


def with_other_files(card: dict[str, Any]) -> dict[str, Any]:
    row = {**card["scorers"]["inception"], "files": {"inception.npy": "0" * 64}}
    return {**card, "scorers": {**card["scorers"], "inception": row}}


def in_the_first_form(output: Path) -> None:
    """Schema 1 had a symmetric root in place of the factor, and named no versions of scorers."""
    path = output / "inception.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if k != "factor"}
    save_file({**tensors, "root": symmetric_root(tensors["cov"])}, path)
    card = read_card(output)
    row = {k: v for k, v in card["scorers"]["inception"].items() if k != "versions"}
    row["files"] = {name: file_sha256(output / name) for name in row["files"]}
    write_json(output / CARD, {**card, "schema": 1, "scorers": {"inception": row}})


def test_statistics_of_the_first_form_are_read(photographs: Path, tmp_path: Path) -> None:
    output = built(photographs, tmp_path / "kept")
    now = load_reference(output, "inception")
    in_the_first_form(output)
    assert not statistics_problems(str(output), ["fid"])
    then = load_reference.__wrapped__(output, "inception")
    np.testing.assert_array_equal(then.features, now.features)
    for one, other in zip(then.fixed, now.fixed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-9)


def test_a_card_of_another_form_says_what_to_do(photographs: Path, tmp_path: Path) -> None:
    output = built(photographs, tmp_path / "kept")
    card = read_card(output)
    command = f"python -m ddmd_bench stats build IMAGES {output} --scorers inception"
    for change, said in {
        '{"schema": 4}': "schema 4; expected 3 or earlier. It was written by a newer ddmd_bench",
        '{"schema": 2}': "it has no 'n'; expected an object with n, source",
        '{"schema"': "cut, or no JSON",
        "[]": "it is a list, expected an object",
    }.items():
        (output / CARD).write_text(change)
        (problem,) = statistics_problems(str(output), ["fid"])
        assert f"{output / CARD}: {said}" in problem
        assert command in problem or "newer" in problem
    write_json(output / CARD, {**card, "scorers": {"inception": {"files": {}}}})
    with pytest.raises(BenchError, match=r"scorers\.inception has no 'weights'"):
        load_reference.__wrapped__(output, "inception")
    (row,) = card["scorers"].values()
    write_json(output / CARD, {**card, "scorers": {"inceptions": row}})
    with pytest.raises(BenchError, match=r"card\.json: .*inceptions"):
        load_reference.__wrapped__(output, "inceptions")


def test_missing_statistics_name_the_command() -> None:
    (problem,) = statistics_problems("coco", ["fid"])
    assert "no reference statistics 'coco'" in problem
    assert "python -m ddmd_bench stats build IMAGES reference_stats/coco" in problem


def test_the_commands(photographs: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    line = ["stats", "build", str(photographs), "reference_stats/mine", "--scorers", "inception"]
    done = runner.invoke(app, [*line, "--num", "9"])
    assert done.exit_code == 0, done.output
    shown = runner.invoke(app, ["stats", "show", "mine"])
    assert shown.exit_code == 0
    assert "files hashed: 9/9" in done.output
    assert "9 images of" in shown.output
    assert "inception: 6 features; clean-fid's resize" in shown.output
    again = runner.invoke(app, line)
    assert again.exit_code == 2
    assert "there already" in again.output
    strange = runner.invoke(app, [*line[:3], "x", "--scorers", "images"])
    assert strange.exit_code == 2
    assert "has no features" in strange.output


def test_a_suite_names_statistics(
    photographs: Path, tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    output = built(photographs, tmp_path / "kept")
    plain = make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")
    assert "statistics" not in str(plain.report_inputs)
    tiny["reference"]["statistics"] = str(output)
    tiny["metrics"].append("fid")
    name = write_suite(tiny)

    def planned() -> Plan:
        return make_plan(load_suite(name), tmp_path / "runs", tmp_path / "reports")

    before = planned()
    assert before.protocol["statistics"] == statistics_inputs(str(output), ["fid"])["statistics"]
    card = read_card(output)
    write_json(output / CARD, with_other_files(card))
    after = planned()
    assert before.fingerprint != after.fingerprint
    keys = {n: task.key for n, task in after.tasks.items()}
    changed = {n[0] for n, task in before.tasks.items() if keys[n] != task.key}
    assert changed == {"score"}
    write_json(output / CARD, card)
    tiny["metrics"].append("patch_fid")
    with pytest.raises(BenchError, match="has features of inception, not of inception_patch"):
        make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")
    assert read_reference(before, ["inception"])["inception"].fixed


def test_a_backend_without_real_images_needs_them() -> None:
    suite = load_suite("sdxl_smoke", ["metrics=[mean, patch_fid]"])
    problems = list(REFERENCE.problems(Asked.of(suite)))
    assert len(problems) == 1
    assert "patch_fid compares with real images" in problems[0]
    assert "stats build IMAGES reference_stats/sdxl_smoke --scorers inception_patch" in problems[0]
    suite = load_suite("sdxl_smoke", ["metrics=[mean, fid]", "reference.statistics=coco"])
    (problem,) = REFERENCE.problems(Asked.of(suite))
    assert "no reference statistics 'coco'" in problem
