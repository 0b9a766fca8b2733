"""A folder of images made elsewhere: each file stands for its prompt, or an error says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ddmd_bench.data.image_folders import IMAGE_SUFFIXES, files_below, read_image, read_listing
from ddmd_bench.data.prompt_sources import load_prompts
from ddmd_bench.data.prompts import Prompt, choose
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_jsonl, write_jsonl
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import DataSource

PROMPTS = [Prompt("some/0000", "some", "a red cat"), Prompt("some/0001", "some", "two dogs")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for k, prompt in enumerate(["two dogs", "a red cat", "a red cat", "two dogs", "a red cat"]):
        Image.new("RGB", (6, 4), (k, 0, 0)).save(tmp_path / f"{k}.png")
        rows.append({"file_name": f"{k}.png", "prompt": prompt})
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    return tmp_path


def test_the_k_th_line_of_a_prompt_is_its_k_th_image(folder: Path) -> None:
    files = read_listing(folder, PROMPTS, {"some": 2})
    names = {key: path.name for key, path in files.items()}
    assert names == {
        ("some/0000", 0): "1.png",
        ("some/0000", 1): "2.png",
        ("some/0001", 0): "0.png",
        ("some/0001", 1): "3.png",
    }
    assert read_image(files["some/0000", 1])[0, 0].tolist() == [2, 0, 0]


def test_an_image_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :3] = 255
    image = Image.fromarray(pixels)
    tag = Image.Exif()
    tag[0x0112] = 6  # turn it by 90 degrees to the right
    image.save(tmp_path / "turned.png", exif=tag)
    found = read_image(tmp_path / "turned.png")
    assert found.shape == (6, 4, 3)
    assert found[:3].min() == 255
    assert found[3:].max() == 0


def test_a_prompt_that_lacks_images_is_named(folder: Path) -> None:
    with pytest.raises(BenchError, match=r"1 of 2 prompts lack images, e\.g\. 'two dogs' has 2 of"):
        read_listing(folder, PROMPTS, {"some": 3})


def test_images_of_two_sizes_are_refused(folder: Path) -> None:
    Image.new("RGB", (5, 4)).save(folder / "3.png")
    with pytest.raises(BenchError, match="has 5 x 4 pixels: expected one size"):
        read_listing(folder, PROMPTS, {"some": 2})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "2.png").unlink(), "2.png: there is no such file"),
        (lambda f: (f / "2.png").write_text("no image"), "2.png: it has no format of images"),
        (lambda f: (f / "metadata.jsonl").unlink(), "expected images with one of metadata"),
        (lambda f: (f / "metadata.jsonl").write_text("{"), "line 1 is not JSON"),
        (
            lambda f: (f / "metadata.jsonl").write_text("{}"),
            "row 0 has no file_name; it has: nothing",
        ),
        (
            lambda f: write_jsonl(
                f / "metadata.jsonl",
                [{"file_name": "0.png", "prompt": p.text} for p in PROMPTS for _ in range(2)],
            ),
            "0.png stands for two images",
        ),
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(folder: Path, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(BenchError, match=message):
        read_listing(folder, PROMPTS, {"some": 2})


TEXTS = ["  a red cat ", "b\u2028c", "\u00a0d\u0085e", "1", "NA", "\ufeffmark", "same", "same "]


@pytest.mark.parametrize("metadata", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_a_suites_prompts_find_their_images_whatever_surrounds_them(
    tmp_path: Path, metadata: str
) -> None:
    rows = []
    for k, text in enumerate(TEXTS):
        Image.new("RGB", (6, 4), (k, 0, 0)).save(tmp_path / f"test {k}.png")
        rows.append({"file_name": f"test {k}.png", "prompt": text})
    if metadata == "metadata.jsonl":
        raw = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / metadata).write_text(raw, encoding="utf-8")
    elif metadata == "metadata.csv":
        pd.DataFrame(rows).to_csv(tmp_path / metadata, index=False)
    else:
        pd.DataFrame(rows).to_parquet(tmp_path / metadata)
    (tmp_path / "suite.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    listed = load_prompts(DataSource(source=str(tmp_path / "suite.txt")))
    assert listed.positions == tuple(range(7))
    prompts = choose("some", listed.texts, 7, listed.positions)
    files = read_listing(tmp_path, prompts, {"some": 1})
    for prompt in prompts:
        assert files[prompt.prompt_id, 0].name == f"test {int(prompt.prompt_id[-4:])}.png"


def test_the_same_text_twice_has_images_of_its_own(folder: Path) -> None:
    again = [*PROMPTS, Prompt("some/0007", "some", "two dogs")]
    files = read_listing(folder, again, {"some": 1})
    assert (files["some/0001", 0].name, files["some/0007", 0].name) == ("0.png", "3.png")
    with pytest.raises(BenchError, match=r"1 of 2 prompts .* 'two dogs' has 2 of 4"):
        read_listing(folder, again, {"some": 2})


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_quarter_turn_changes_the_size_that_a_folder_has(folder: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (6, 4)).save(folder / "3.png", exif=tag)
    with pytest.raises(BenchError, match="has 4 x 6 pixels: expected one size"):
        read_listing(folder, PROMPTS, {"some": 2})


def test_hidden_files_are_no_images(folder: Path) -> None:
    (folder / ".thumbs").mkdir()
    for name in ("._0.png", ".thumbs/1.png"):
        (folder / name).write_bytes(b"no image")
    names = [path.name for path in files_below(folder, IMAGE_SUFFIXES)]
    assert names == [f"{k}.png" for k in range(5)]


def test_a_students_folder_is_keyed_by_what_is_read_of_it(
    folder: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    texts = {"a red cat": "a red star", "two dogs": "a blue ring"}  # of the world's own words
    (folder / "p.txt").write_text("\n".join(texts.values()))
    rows = read_jsonl(folder / "metadata.jsonl")
    write_jsonl(
        folder / "metadata.jsonl", [{**row, "prompt": texts[row["prompt"]]} for row in rows]
    )
    tiny["prompts"] = {"own": {"source": str(folder / "p.txt"), "num_prompts": 2}}
    tiny["students"] = {
        "made": {"source": "images", "images": str(folder)},
        "real": {"source": "real"},
    }
    tiny |= {"baseline": "made", "metrics": ["mean"]}

    def key() -> str:
        plan = make_plan(load_suite(write_suite(tiny)), folder / "runs", folder / "reports")
        return plan.task("generate", "made", plan.suite.seeds[0]).key

    first = key()
    (folder / "note.txt").write_text("beside the images")
    Image.new("RGB", (9, 9)).save(folder / "4.png")  # a third of a prompt that has one image
    assert key() == first
    Image.new("RGB", (6, 4), "red").save(folder / "1.png")
    assert key() != first
