"""Captions and images to train on: in the file's order, from any position, nothing lost unsaid."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from ddmd_bench.data.images import quantised
from ddmd_bench.data.streams import iter_captions, iter_images
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import write_jsonl
from ddmd_bench.suite.settings import DataSource, TrainImages

CAPTIONS = [f"caption {k}" if k % 5 else "" for k in range(37)]
ORIENTATION = 0x0112  # the EXIF tag

# Captions

WRITERS: dict[str, Callable[[Path], Any]] = {
    "captions.txt": lambda path: path.write_text("\n".join(CAPTIONS) + "\n"),
    "captions.csv": lambda path: pd.DataFrame({"caption": CAPTIONS}).to_csv(path, index=False),
    "captions.jsonl": lambda path: pd.DataFrame({"caption": CAPTIONS}).to_json(
        path, orient="records", lines=True
    ),
    "captions.parquet": lambda path: pd.DataFrame({"caption": CAPTIONS}).to_parquet(
        path, row_group_size=7
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


def _all(stream: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what was left out, which a test reads
        return list(stream)


@pytest.mark.parametrize("name", WRITERS)
def test_captions_come_in_order_with_their_positions(files: Path, name: str) -> None:
    stream = iter_captions(DataSource(source=str(files / name)))
    assert _all(stream) == [(k, text) for k, text in enumerate(CAPTIONS) if text]
    assert stream.skipped == [(k, "no caption") for k in range(0, 37, 5)]


@settings(max_examples=25, deadline=None)
@given(name=st.sampled_from(sorted(WRITERS)), skip=st.integers(0, len(CAPTIONS) + 2))
def test_captions_resumed_are_the_tail_of_one_pass(files: Path, name: str, skip: int) -> None:
    data = DataSource(source=str(files / name))
    whole, tail = iter_captions(data), iter_captions(data, skip=skip)
    assert _all(tail) == [item for item in _all(whole) if item[0] >= skip]
    assert tail.skipped == [item for item in whole.skipped if item[0] >= skip]


def test_what_was_left_out_is_said_at_the_end(files: Path) -> None:
    stream = iter_captions(DataSource(source=str(files / "captions.txt")), skip=1)
    with pytest.warns(UserWarning, match=r"7 left out, at positions 5 \(no caption\).* and 2 more"):
        assert len(list(stream)) == 29
    early = iter_captions(DataSource(source=str(files / "captions.txt")))
    items = iter(early)
    assert next(items) == (1, "caption 1")
    assert "1 left out, at positions 0 (no caption)" in early.left_out()


# Images


def _gradient(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Smooth, and different in every direction."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)).convert(mode)


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


IMAGES: dict[str, Callable[[Path], None]] = {
    "wide.png": lambda path: _gradient(70, 40).save(path),
    "tall.jpg": lambda path: _gradient(33, 90).save(path, quality=95),
    "square.webp": lambda path: _gradient(50, 50).save(path, lossless=True),
    "small.png": lambda path: _gradient(9, 7).save(path),
    "grey.png": lambda path: _gradient(41, 60, "L").save(path),
    # Dithered, not smooth: square, so that no crop is at half a pixel.
    "palette.png": lambda path: _gradient(60, 60, "P").save(path),
    "cmyk.jpg": lambda path: _gradient(60, 41, "CMYK").save(path, quality=95),
    **{
        f"turned{k}.jpg": lambda path, k=k: _gradient(64, 40).save(
            path, quality=95, exif=_turned(k)
        )
        for k in range(1, 9)
    },
}


def write_folder(folder: Path, metadata: str = "metadata.jsonl") -> Path:
    """Images in no order of their names, with captions, as `datasets` names the parts."""
    rows = []
    for name, save in reversed(IMAGES.items()):
        save(folder / name)
        rows.append({"file_name": name, "caption": f"of {name}"})
    _write_metadata(folder / metadata, rows)
    return folder


def _write_metadata(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        write_jsonl(path, rows)


@pytest.mark.parametrize("metadata", ["metadata.jsonl", "metadata.csv"])
def test_images_have_the_geometry_that_pillow_gives(tmp_path: Path, metadata: str) -> None:
    folder = write_folder(tmp_path, metadata)
    names = list(reversed(IMAGES))
    seen = list(iter_images(TrainImages(source=str(folder), num_images=1), resolution=32))
    assert [(k, caption) for k, caption, _ in seen] == [
        (k, f"of {name}") for k, name in enumerate(names)
    ]
    for name, (_, _, image) in zip(names, seen, strict=True):
        assert image.shape == (3, 32, 32)
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        upright = ImageOps.exif_transpose(Image.open(folder / name)).convert("RGB")
        expected = ImageOps.fit(upright, (32, 32), Image.Resampling.LANCZOS)
        difference = quantised(image).int() - torch.from_numpy(np.array(expected)).permute(2, 0, 1)
        # Pillow's crop may lie at half a pixel, ours lies on one.
        assert difference.abs().max() <= 12, name
        assert difference.abs().float().mean() <= 3, name


# The orientation that undoes each one: the quarter turns undo each other.
_UNDOES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def test_a_turned_image_is_the_upright_one(tmp_path: Path) -> None:
    rows = []
    for k, undoes in _UNDOES.items():
        upright = _gradient(64, 40)
        upright.getexif()[ORIENTATION] = undoes
        ImageOps.exif_transpose(upright).save(tmp_path / f"{k}.png", exif=_turned(k))
        rows.append({"file_name": f"{k}.png", "caption": str(k)})
    _write_metadata(tmp_path / "metadata.jsonl", rows)
    images = [image for _, _, image in iter_images(DataSource(source=str(tmp_path)), 24)]
    assert len(images) == 8
    assert all(torch.equal(image, images[0]) for image in images)


def test_antialias_and_range(tmp_path: Path) -> None:
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::2] = 255  # finer than the result can show: grey, not stripes
    Image.fromarray(lines).save(tmp_path / "lines.png")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "white.png")
    Image.new("RGB", (40, 40), "black").save(tmp_path / "black.png")
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 40, 20))
    clear.save(tmp_path / "clear.png")
    names = ["lines.png", "white.png", "black.png", "clear.png"]
    _write_metadata(tmp_path / "metadata.jsonl", [{"file_name": n, "text": n} for n in names])
    grey, white, black, clear_image = (
        image for _, _, image in iter_images(DataSource(source=str(tmp_path)), 16)
    )
    assert grey.abs().max() < 0.02
    assert white.eq(1).all()
    assert black.eq(-1).all()
    assert clear_image[:, 0, 0].tolist() == [-1, -1, 1]
    assert clear_image[:, -1, -1].tolist() == [1, 1, 1]  # transparent: white, not hidden red


def _same(ours: list[tuple[int, str, Tensor]], theirs: list[tuple[int, str, Tensor]]) -> bool:
    return [o[:2] for o in ours] == [t[:2] for t in theirs] and all(
        torch.equal(o[2], t[2]) for o, t in zip(ours, theirs, strict=True)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"))


@settings(max_examples=6, deadline=None)
@given(skip=st.integers(0, len(IMAGES) + 1))
def test_images_resumed_are_the_tail_of_one_pass(folder: Path, skip: int) -> None:
    data = DataSource(source=str(folder))
    whole = list(iter_images(data, 16))
    assert _same(list(iter_images(data, 16, skip=skip)), [i for i in whole if i[0] >= skip])


def test_parquet_of_images_is_as_the_folder(folder: Path, tmp_path: Path) -> None:
    names = list(reversed(IMAGES))
    bytes_of = [(folder / name).read_bytes() for name in names]
    captions = [f"of {name}" for name in names]
    expected = list(iter_images(DataSource(source=str(folder)), 16))
    forms = {
        "plain.parquet": bytes_of,
        "with_paths.parquet": [{"bytes": b, "path": None} for b in bytes_of],
    }
    for name, column in forms.items():
        pd.DataFrame({"image": column, "caption": captions}).to_parquet(tmp_path / name)
        assert _same(list(iter_images(DataSource(source=str(tmp_path / name)), 16)), expected)
    parts = tmp_path / "parts"
    parts.mkdir()
    for k, part in enumerate((slice(0, 4), slice(4, None))):
        table = pd.DataFrame({"image": bytes_of[part], "caption": captions[part]})
        table.to_parquet(parts / f"{k:05d}.parquet")
    assert _same(list(iter_images(DataSource(source=str(parts)), 16)), expected)


def test_bad_images_are_left_out_and_named(tmp_path: Path) -> None:
    _gradient(30, 20).save(tmp_path / "good.png")
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no image")
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 100
    Image.fromarray(deep).save(tmp_path / "deep.png")
    rows = [
        ("good.png", "first"),
        ("text.png", "b"),
        ("cut.png", "c"),
        ("good.png", ""),
        ("gone.png", "d"),
        ("deep.png", "e"),
        ("good.png", "last"),
    ]
    metadata = [{"file_name": name, "caption": caption} for name, caption in rows]
    _write_metadata(tmp_path / "metadata.jsonl", metadata)
    stream = iter_images(DataSource(source=str(tmp_path)), 16)
    with pytest.warns(UserWarning, match=r"5 left out, at positions 1 \(UnidentifiedImageError"):
        seen = list(stream)
    assert [(k, caption) for k, caption, _ in seen] == [(0, "first"), (6, "last")]
    assert [k for k, _ in stream.skipped] == [1, 2, 3, 4, 5]
    reasons = [reason for _, reason in stream.skipped]
    assert "truncated" in reasons[1]
    assert reasons[2] == "no caption"
    assert "No such file" in reasons[3]
    assert "I;16 has more than 8 bits" in reasons[4]


# What is refused


def test_what_cannot_be_streamed_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("n,caption\n1,a\n")
    pd.DataFrame({"a": [b"x"], "b": [b"y"], "caption": ["c"]}).to_parquet(tmp_path / "t.parquet")
    (tmp_path / "escape").mkdir()
    outside = [{"file_name": "../../secret.png", "caption": "c"}]
    _write_metadata(tmp_path / "escape/metadata.jsonl", outside)

    def refused(read: Callable[..., Any], *rest: int, **given: str) -> str:
        with pytest.raises(BenchError) as caught:
            list(read(DataSource(**given), *rest))
        return str(caught.value)

    csv, parquet = str(tmp_path / "t.csv"), str(tmp_path / "t.parquet")
    assert "no such file or folder" in refused(iter_captions, source=str(tmp_path / "gone.txt"))
    assert "neither a local file" in refused(iter_captions, source="nothing")
    assert "needs the column of its text" in refused(iter_captions, source="some/captions")
    assert "no column 'x'; it has: n, caption" in refused(iter_captions, source=csv, column="x")
    assert "cannot begin at position -1" in refused(iter_captions, -1, source=csv)
    assert "takes no split" in refused(iter_captions, source=csv, split="train")
    assert "expected images with one of metadata.jsonl" in refused(
        iter_images, 16, source=str(tmp_path / "empty")
    )
    assert "expected a folder of images" in refused(iter_images, 16, source=csv)
    assert re.search(
        "one column of images.*a, b, caption", refused(iter_images, 16, source=parquet)
    )
    assert "no column 'x'; it has: " in refused(iter_images, 16, source=str(folder), column="x")
    assert "leads out of the folder" in refused(iter_images, 16, source=str(tmp_path / "escape"))
