"""A folder of images made elsewhere: each file stands for its prompt, or an error says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddmd_bench.data.image_folders import read_image, read_listing
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import write_jsonl

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
    ],
)
def test_a_spoilt_folder_says_what_is_wrong(folder: Path, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(folder)
    with pytest.raises(BenchError, match=message):
        read_listing(folder, PROMPTS, {"some": 2})
