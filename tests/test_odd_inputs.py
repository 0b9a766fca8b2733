"""What people feed `score` and `stats build`: each ends as it is meant, or in one line."""

from __future__ import annotations

import datetime
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data.image_folders import IMAGE_SUFFIXES, files_below, images_below, list_images
from ddmd_bench.data.image_sources import iter_encoded_images
from ddmd_bench.data.prompt_sources import load_prompts
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Undecodable, upright
from ddmd_bench.files.records import write_jsonl
from ddmd_bench.measuring.folder import read_folder
from ddmd_bench.suite.settings import DataSource

PLAIN = ("--metrics", "mean")  # no network


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of noise."""
    draw_into(tmp_path / "drawn", range(4))
    return Path("drawn")


def draw_into(folder: Path, seeds: Any) -> None:
    folder.mkdir(parents=True)
    for k, seed in enumerate(seeds):
        levels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{k}.png")


def run(*arguments: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def scored(*arguments: Any) -> tuple[dict[str, Any], str]:
    """The record and the words of a scoring."""
    result = run("score", *arguments, *PLAIN, "--output", "out")
    assert result.exit_code == 0, result.output
    return json.loads(Path("out/aggregates.json").read_text()), result.output


def refused(*arguments: Any) -> str:
    """The line that ends a command before any work."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return " ".join(result.output.split())


def named(folder: Path, names: list[str], **columns: list[Any]) -> Path:
    texts = [f"text {k}" for k in range(len(names))]
    rows = pd.DataFrame({"file_name": names, "prompt": texts, **columns})
    rows.to_csv("table.csv", index=False)
    return Path("table.csv")


# Which files


def test_two_folders_alike_in_names_sizes_and_times_are_two(tmp_path: Path) -> None:
    """B has its own values: answers are kept by content, and lie apart."""
    for name, seeds in {"modelA": range(4), "modelB": range(4, 8)}.items():
        draw_into(tmp_path / name / "images", seeds)
        for path in (tmp_path / name / "images").iterdir():
            path.write_bytes(path.read_bytes().ljust(400, b"\0"))
            os.utime(path, (1e9, 1e9))
    values = {}
    for output in ((), ("--output", "one")):  # apart by themselves, and in one place by wish
        for name in ("modelA", "modelB"):
            result = run("score", f"{name}/images", *PLAIN, *output)
            assert result.exit_code == 0, result.output
            place = Path("one") if output else Path("scores") / name / "images"
            table = pd.read_parquet(place / "per_image.parquet")
            levels = [np.asarray(Image.open(f"{name}/images/{k}.png")).mean() for k in range(4)]
            np.testing.assert_allclose(table["mean"], np.array(levels) / 127.5 - 1, atol=1e-6)
            values[name, output] = list(table["mean"])
    assert values["modelA", ()] != values["modelB", ()]


def test_a_folder_elsewhere_has_its_whole_path(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "here").mkdir()
    os.chdir(tmp_path / "here")
    assert run("score", tmp_path / folder, *PLAIN).exit_code == 0
    assert Path("scores", *(tmp_path / folder).parts[1:], "aggregates.json").is_file()


@pytest.mark.parametrize(
    "spelled", ["./{}", "{}", "more/../{}", ".\\{}", "{here}/drawn/{}", "./more/.././{}"]
)
def test_a_tables_names_are_normalised(folder: Path, tmp_path: Path, spelled: str) -> None:
    names = [spelled.format(f"{k}.png", here=tmp_path) for k in range(4)]
    record, output = scored(folder, "--prompts", named(folder, names))
    assert record["n"] == 4
    assert record["metrics"]["mean"]["all"]["n"] == 4
    assert "have no prompt" not in output
    rows = [{"file_name": name, "prompt": "x"} for name in names]
    write_jsonl(folder / "metadata.jsonl", rows)
    assert [one.file_name for one in list_images(folder)] == [f"{k}.png" for k in range(4)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0.png", "./0.png"], "0.png is named 2 times"),
        (["../0.png"], "row 0: ../0.png leads out of the folder"),
        (["more/../../x.png"], "leads out of the folder"),
        (["/elsewhere/0.png"], "leads out of the folder"),
        (["."], "leads out of the folder"),
        (["0\0.png"], r"row 0: '0\x00.png' is no file's name"),
        (["drawn/0.png", "drawn/1.png"], "none of its 2 images is there, e.g. drawn/drawn/0.png."),
    ],
)
def test_names_that_cannot_be_meant_are_refused(folder: Path, names: list[str], said: str) -> None:
    assert said in refused("score", folder, "--prompts", named(folder, names), *PLAIN)


def test_half_a_character_is_no_files_name(folder: Path) -> None:
    Path("table.jsonl").write_text('{"file_name": "\\ud800.png", "prompt": "x"}\n')
    said = refused("score", folder, "--prompts", "table.jsonl", *PLAIN)
    assert r"row 0: '\ud800.png' is no file's name" in said


def test_links_to_folders_are_followed_and_nothing_counts_twice(folder: Path) -> None:
    linked = Path("linked")
    (linked / "z").mkdir(parents=True)
    (folder / "0.png").rename(linked / "z" / "own.png")
    for name, target in {"a": "z", "b": f"../{folder}", "c": f"../{folder}", "d": ".."}.items():
        (linked / name).symlink_to(target)
    (folder / "back").symlink_to(f"../{linked}")
    found = [path.relative_to(linked).as_posix() for path in images_below(linked)]
    assert found == ["b/1.png", "b/2.png", "b/3.png", "z/own.png"]
    record, _ = scored(linked)
    assert (record["n"], record["equal_images"]) == (4, 0)


def test_one_list_of_suffixes_and_what_is_left_out_is_counted(folder: Path) -> None:
    image = Image.open(folder / "0.png").convert("RGB")
    for k, suffix in enumerate(sorted(IMAGE_SUFFIXES - {".png"})):
        kind = "JPEG" if suffix == ".jfif" else None
        image.rotate(90 * k).save(folder / f"more{suffix.upper()}", kind)
    for name in ("a.heic", "Thumbs.db", ".hidden.tga", "notes.txt"):
        (folder / name).write_bytes(b"none")
    record, output = scored(folder)
    assert record["n"] == record["metrics"]["mean"]["all"]["n"] == 3 + len(IMAGE_SUFFIXES)
    assert {".avif", ".jfif", ".ppm", ".gif"} < IMAGE_SUFFIXES
    assert record["no_images"] == 2
    said = f"2 files are no images by their names ({', '.join(sorted(IMAGE_SUFFIXES))}): "
    assert f"{said}Thumbs.db, a.heic" in output
    sources = [name for name, _ in iter_encoded_images(DataSource(source=str(folder)))]
    assert sources == [str(path) for path in images_below(folder)]
    built = run("stats", "build", folder, "built", "--scorers", "efficientnet")
    assert built.exit_code == 0, built.output
    assert f"built: {record['n']} images of drawn" in built.output
    assert f"{said}Thumbs.db, a.heic" in built.output


def test_a_name_that_is_not_utf_8_is_said_in_one_line(folder: Path) -> None:
    os.rename(folder / "0.png", os.fsencode(folder) + b"/caf\xe9.png")
    for command in (
        ("score", folder, *PLAIN),
        ("stats", "build", folder, "built", "--scorers", "efficientnet"),
    ):
        assert r"drawn/caf\udce9.png': the name of this image is not UTF-8" in refused(*command)
    os.rename(os.fsencode(folder) + b"/caf\xe9.png", os.fsencode(folder) + b"/caf\xe9.heic")
    assert r": caf\udce9.heic" in scored(folder)[1]
    # What only the folder is called stands in no table.
    os.rename(folder, b"dr\xe9")
    assert scored(os.fsdecode(b"dr\xe9"))[0]["n"] == 3
    assert "lone surrogate" in (
        refused("stats", "build", os.fsdecode(b"dr\xe9"), "built", "--scorers", "efficientnet")
    )


@pytest.mark.parametrize("output", ["taken", "taken/below"])
def test_an_output_that_is_a_file_is_refused_before_any_work(folder: Path, output: str) -> None:
    Path("taken").write_text("mine")
    said = f"{output}: taken is a file; name a folder"
    assert said in refused("score", folder, *PLAIN, "--output", output)
    assert said in refused("stats", "build", folder, output, "--scorers", "efficientnet")
    for option in ("--runs", "--reports"):
        assert f"{option} {said}" in refused("plan", "shapes", option, output)
    assert f"--output {said}" in refused("expect", "shapes", "--output", output)
    assert "--output drawn: is a folder; name a file" in (
        refused("compare", "a.json", "b.json", "--output", folder)
    )
    assert Path("taken").read_text() == "mine"


# What is printed


def test_names_in_brackets_and_colons_are_printed_as_they_stand(folder: Path) -> None:
    """To rich `[/b]` ends what never began, `[red]` is a colour and `:cat:` a picture."""
    odd = ["[red]0.png", "[/b]1.png", ":cat: 2.png"]
    for k, name in enumerate(odd):
        (folder / name.replace("/", "\\")).write_bytes((folder / f"{k}.png").read_bytes())
    table = named(folder, [odd[0], "[/i]gone.png", "3.png"], category=["[/b]", ":cat:", "[red]x"])
    result = run("score", folder, "--prompts", table, *PLAIN, "--output", "[/b]out")
    assert result.exit_code == 0, result.output
    for text in ("│ [/b] ", "│ :cat: ", "│ [red]x ", "are not there: [/i]gone.png"):
        assert text in result.output
    assert ":cat: 2.png" in result.output  # of those without a prompt
    assert "scores: [/b]out" in result.output
    assert "[/b]none: no such folder" in refused("score", "[/b]none", *PLAIN)
    assert "unknown suite '[red]x'" in refused("plan", "[red]x")


# What they say


def test_categories_that_are_numbers_are_texts_0_too(folder: Path) -> None:
    names = [f"{k}.png" for k in range(4)]
    rows = [{"file_name": n, "prompt": f"p{n}", "category": k % 2} for k, n in enumerate(names)]
    write_jsonl(Path("t.jsonl"), [*rows[:3], {**rows[3], "category": None}])
    pd.DataFrame(rows).to_csv("t.csv", index=False)
    pd.DataFrame(rows).to_parquet("t.parquet")
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        record, _ = scored(folder, "--prompts", name)
        other = ["images"] if name == "t.jsonl" else []
        assert list(record["metrics"]["mean"]) == ["all", "0", "1", *other], name
        listed = load_prompts(DataSource(source=name))
        assert listed.of_category("0").texts == ("p0.png", "p2.png")
    # Whole numbers that pandas made fractions, for want of one of them.
    pd.DataFrame(rows).assign(category=[0, 1, 0, np.nan]).to_parquet("t.parquet")
    found = {row["prompt_set"] for row in read_folder(folder, Path("t.parquet"), ["mean"]).rows}
    assert found == {"0.0", "1.0", "images"}


def test_years_and_dates_are_prompts_as_they_are_written(tmp_path: Path) -> None:
    day, moment = datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2, 3, 4)
    written: dict[str, tuple[str, ...]] = {}
    Path("t.jsonl").write_text('{"prompt": 1999}\n{"prompt": 1.50}\n{"prompt": "2024-01-02"}\n')
    Path("t.json").write_text('[1984, "1999", 1e3]')
    Path("t.csv").write_text("prompt\n1999\n2024-01-02\n1.50\n")
    written |= {"t.jsonl": ("1999", "1.50", "2024-01-02"), "t.json": ("1984", "1999", "1e3")}
    written["t.csv"] = ("1999", "2024-01-02", "1.50")
    pd.DataFrame({"prompt": [1999, 2000]}).to_parquet("years.parquet")
    pd.DataFrame({"prompt": [day]}).to_parquet("days.parquet")
    pd.DataFrame({"prompt": pd.to_datetime([day, moment])}).to_parquet("moments.parquet")
    written |= {"years.parquet": ("1999", "2000"), "days.parquet": ("2024-01-02",)}
    written["moments.parquet"] = ("2024-01-02", "2024-01-02 03:04:00")
    for name, texts in written.items():
        assert load_prompts(DataSource(source=name)).texts == texts, name
    Path("t.jsonl").write_text('{"prompt": true}\n')
    with pytest.raises(BenchError, match="row 0 holds True"):
        load_prompts(DataSource(source="t.jsonl"))


@pytest.mark.parametrize("indent", [None, 1])
def test_metadata_that_are_one_array_are_read(folder: Path, indent: int | None) -> None:
    rows = [{"file_name": f"{k}.png", "prompt": f"text {k}"} for k in range(4)]
    (folder / "metadata.jsonl").write_text(json.dumps(rows, indent=indent))
    found = read_folder(folder, None, ["mean"])
    assert [row["prompt"] for row in found.rows] == [row["prompt"] for row in rows]
    for spoilt in ("[1, [2]]", "null", "[", "{}"):
        (folder / "metadata.jsonl").write_text(spoilt)
        assert "metadata.jsonl" in refused("score", folder, *PLAIN)


@pytest.mark.parametrize("header", ["prompt", "prompt,", "prompt,,"])
def test_commas_without_quotes_are_an_error_with_the_line(header: str) -> None:
    Path("t.csv").write_text(f"{header}\na dog\na cat, sitting\n")
    with pytest.raises(BenchError, match=r"line 3 has 2 values, its header names 1\. Put quotes"):
        load_prompts(DataSource(source="t.csv"))


IN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.long
def test_a_locale_that_is_not_utf_8_changes_no_text(folder: Path) -> None:
    """The prompts, their groups and what is printed of them, all beyond ASCII."""
    texts = ["café\u2028x", "赤い猫", "a\x0cb", "c\x85d"]
    rows = pd.DataFrame({"file_name": [f"{k}.png" for k in range(4)], "prompt": texts})
    rows.assign(category=["é", "é", "猫", "猫"]).to_csv("t.csv", index=False, encoding="utf-8-sig")
    command = [sys.executable, "-m", "ddmd_bench", "score", str(folder), "--prompts", "t.csv"]
    root = str(Path(__file__).parents[1])
    ended = subprocess.run(
        [*command, *PLAIN, "--output", "in_c"], env={**os.environ, **IN_C, "PYTHONPATH": root},
        capture_output=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert rb"\u732b" in ended.stdout
    record, _ = scored(folder, "--prompts", "t.csv")
    in_c = json.loads(Path("in_c/aggregates.json").read_text(encoding="utf-8"))
    assert in_c["metrics"] == record["metrics"]
    assert list(in_c["metrics"]["mean"]) == ["all", "é", "猫"]


# Which pixels


def written(levels: np.ndarray, form: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, form, **options)
    file.seek(0)
    return file


def grey_files() -> Iterator[tuple[str, io.BytesIO]]:
    deep = np.array([[0, 257 * 7, 65535]], np.uint16)
    for form in ("TIFF", "PNG", "PPM"):
        yield form, written(deep, form)
    yield "PPM of 12 bits", io.BytesIO(b"P5 3 1 4095\n" + np.array([0, 112, 4095], ">u2").tobytes())


def test_sixteen_bits_are_scaled_in_every_format() -> None:
    for form, file in grey_files():
        assert np.asarray(upright(file)).tolist() == [[0, 7, 255]], form


@pytest.mark.parametrize(
    ("file", "said"),
    [
        # A 32-bit file of small numbers would be black as one of 16 bits.
        (written(np.array([[0, 200]], np.int32), "TIFF"), "32-bit or signed integers of an"),
        (written(np.array([[0, 2**31 - 1]], np.int32), "TIFF"), "32-bit or signed integers"),
        (written(np.array([[0, 0.5]], np.float32), "TIFF"), "floating-point numbers of an unknown"),
        (written(np.array([[0, 9]], np.uint16), "TIFF", tiffinfo={262: 0}), "0 is white in it"),
    ],
)  # fmt: skip
def test_grey_levels_of_no_known_range_are_refused(file: io.BytesIO, said: str) -> None:
    with pytest.raises(Undecodable, match=said):
        upright(file)


def test_a_folder_that_links_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a").symlink_to(".")
    (tmp_path / "a" / "x.png").write_bytes(b"")
    assert files_below(tmp_path / "a", [".png"]) == [tmp_path / "a" / "x.png"]
