"""Training data are checked before a run, drawn once, in order, and go on where they stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_sdxl
from PIL import Image
from test_real_models import photos
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data import headers
from ddmd_bench.data import training as training_data
from ddmd_bench.data.training import TrainingData, data_identity, read_square
from ddmd_bench.data.training_checks import data_problems
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import write_jsonl
from ddmd_bench.planning.encoding import enlarged_lines
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import TrainData


def data(tmp_path: Path, num: int = 5) -> TrainData:
    captions = tmp_path / "captions.txt"
    captions.write_text("".join(f"caption {k}\n" for k in range(9)))
    folder = tmp_path / "photos"
    if not folder.exists():
        photos(folder, [f"photo {k}" for k in range(6)], "caption")
    images = {"source": str(folder), "num_images": num}
    return TrainData.model_validate(
        {"prompts": {"source": str(captions), "num_prompts": num}, "images": images}
    )


def test_an_interrupted_draw_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TrainingData(data(tmp_path), 32, tmp_path / "kept")

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.collect_captions(stop)
    listing = made.folder("prompts") / "captions.jsonl"
    with listing.open("a") as file:
        file.write('{"position": 3, "te')  # what a kill may leave
    skips: list[int] = []
    stream = training_data.iter_captions
    monkeypatch.setattr(
        training_data, "iter_captions", lambda part, skip: skips.append(skip) or stream(part, skip)
    )
    assert made.collect_captions() == [f"caption {k}" for k in range(5)]
    assert made.collect_captions() == [f"caption {k}" for k in range(5)]
    assert skips == [3]


DRAWING = """
import sys
from pathlib import Path
from ddmd_bench.data.training import TrainingData
from ddmd_bench.suite.settings import TrainData

data = TrainData.model_validate({"prompts": {"source": sys.argv[1], "num_prompts": 30}})
print(len(TrainingData(data, 32, Path(sys.argv[2])).collect_captions()))
"""


def test_two_draws_at_once_leave_what_one_would(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("".join(f"a cat number {k}\n" for k in range(40)))
    command = [sys.executable, "-c", DRAWING, str(tmp_path / "captions.txt"), str(tmp_path / "d")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in both] == ["30\n"] * 3
    (listing,) = (tmp_path / "d").glob("*/captions.jsonl")
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    assert [row["position"] for row in rows] == list(range(30))


def test_more_items_go_on_and_fewer_read_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, root, skips = data(tmp_path), tmp_path / "kept", []
    for name in ("iter_captions", "iter_images"):
        stream = getattr(training_data, name)

        def noted(*asked: Any, stream: Any = stream) -> Any:
            skips.append(asked[-1])
            return stream(*asked)

        monkeypatch.setattr(training_data, name, noted)

    def collected(num: int) -> tuple[int, int]:
        made = TrainingData(data(tmp_path, num), 32, root)
        captions, images = made.collect_captions(), made.collect_images()
        assert captions == [f"caption {k}" for k in range(num)]
        assert [caption for caption, _ in images] == [f"photo {k}" for k in range(num)]
        return len(captions), len(images)

    assert [collected(num) for num in (3, 6, 2)] == [(3, 3), (6, 6), (2, 2)]
    assert skips == [0, 0, 3, 3]  # captions and images of the first, and what the second lacks
    assert len(list(root.iterdir())) == 2
    # How many a training reads is in its key all the same.
    assert data_identity(data(tmp_path, 6), 32) != data_identity(given, 32)


def test_images_are_kept_square(tmp_path: Path) -> None:
    made = TrainingData(data(tmp_path), 32, tmp_path / "kept")
    images = made.collect_images()
    assert [caption for caption, _ in images] == [f"photo {k}" for k in range(5)]
    pixels = read_square(images[0][1])
    assert pixels.shape == (3, 32, 32)
    assert -1 <= pixels.min() < 0 < pixels.max() <= 1


def test_too_few_items_are_said(tmp_path: Path) -> None:
    made = TrainingData(data(tmp_path, num=20), 32, tmp_path / "kept")
    with pytest.raises(BenchError, match=r"captions\.txt has 9 of the 20"):
        made.collect_captions()


def test_other_bytes_are_other_data(tmp_path: Path) -> None:
    given = data(tmp_path)
    one = data_identity(given, 32)
    assert data_identity(given, 64)["images"] != one["images"]
    (tmp_path / "captions.txt").write_text("something else\n" * 9)
    other = data_identity(given, 32)
    assert other["prompts"] != one["prompts"]
    assert other["images"] == one["images"]


def test_the_hub_needs_a_commit() -> None:
    hub = TrainData.model_validate(
        {"prompts": {"source": "owner/name", "column": "text", "num_prompts": 5}}
    )
    with pytest.raises(BenchError, match="a full commit hash"):
        data_identity(hub, 32)


# Folders by their own names


NAMES = (
    *("COCO_val2014_000000000042.jpg", "test shot.jpg", "train/0.png", "test/0.png", "[a]*?.png"),
    *("validation.webp", "d\u00e9j\u00e0 vu, \u201cquoted\u201d.png", "a::b.PNG", "no-suffix"),
)
Write = Callable[[Path, list[dict[str, str]]], Any]


def colour(k: int) -> tuple[int, int, int]:
    return (20 * k, 255 - 20 * k, 7)


def named_folder(folder: Path) -> list[dict[str, str]]:
    """Images of one colour each with awkward names, and what lies beside them."""
    rows = []
    for k, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        kind = (folder / name).suffix.lower().strip(".") or "png"
        image = Image.new("RGB", (40, 40), colour(k))
        image.save(folder / name, format={"jpg": "jpeg"}.get(kind, kind), quality=100)
        rows.append({"file_name": name, "caption": f" caption {k}\u2028of it "})
    for hidden in (".DS_Store", "._test shot.jpg", ".thumbnails/0.png"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(b"of another program")
    (folder / "README.md").write_text("notes")
    return rows


def of_images(source: Path, num: int) -> TrainData:
    return TrainData.model_validate({"images": {"source": str(source), "num_images": num}})


def sidecars(folder: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        path = (folder / row["file_name"]).with_suffix(".txt")
        path.write_text(row["caption"], encoding="utf-8")


METADATA: dict[str, Write] = {
    "metadata.jsonl": lambda folder, rows: write_jsonl(folder / "metadata.jsonl", rows),
    "raw lines": lambda folder, rows: (folder / "metadata.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows), encoding="utf-8"
    ),
    "metadata.csv": lambda folder, rows: pd.DataFrame(rows).to_csv(
        folder / "metadata.csv", index=False, encoding="utf-8-sig"
    ),
    "metadata.parquet": lambda folder, rows: pd.DataFrame(rows).to_parquet(
        folder / "metadata.parquet"
    ),
    "text files": sidecars,
}


@pytest.mark.parametrize("kind", METADATA)
def test_no_name_of_a_file_means_anything(tmp_path: Path, kind: str) -> None:
    rows = named_folder(tmp_path / "test")
    if kind == "text files":  # an image without a known suffix is one only where a row says so
        rows = sorted((r for r in rows if r["file_name"] != "no-suffix"), key=_by_path)
    METADATA[kind](tmp_path / "test", rows)
    made = TrainingData(of_images(tmp_path / "test", len(rows)), 16, tmp_path / "kept")
    assert list(data_problems(made.data)) == []
    images = made.collect_images()
    assert [caption for caption, _ in images] == [row["caption"].strip() for row in rows]
    for row, (_, path) in zip(rows, images, strict=True):
        expected = np.array(colour(NAMES.index(row["file_name"])))
        found = (read_square(path).mean((1, 2)) + 1) * 127.5
        assert np.abs(found.numpy() - expected).max() < 6, row["file_name"]


def _by_path(row: dict[str, str]) -> Path:
    return Path(row["file_name"])


def cut(path: Path, share: float = 0.7) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def rewritten(folder: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = [
        json.loads(line) for line in (folder / "metadata.jsonl").read_text().split("\n") if line
    ]
    change(rows)
    write_jsonl(folder / "metadata.jsonl", rows)


def deep(path: Path) -> None:
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100).save(path)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda f: f.rename(f.with_name("other")), "no such file or folder"),
    "no metadata": (lambda f: (f / "metadata.jsonl").unlink(), "expected images with one of"),
    "metadata below": (
        lambda f: (
            (f / "train").mkdir(),
            (f / "metadata.jsonl").rename(f / "train/metadata.jsonl"),
        ),
        r"Did you mean .*/train, which has metadata.jsonl\?",
    ),
    "two metadata": (
        lambda f: (f / "metadata.csv").touch(),
        "metadata.jsonl and metadata.csv; which",
    ),
    "a file that is not there": (
        lambda f: (f / "2.png").unlink(),
        "1 of 6 images cannot be read: .*2.png: there is no such file",
    ),
    "no image": (lambda f: (f / "2.png").write_text("text"), "2.png: it has no format of images"),
    "a PNG cut off": (lambda f: cut(f / "2.png"), "2.png: cannot be decoded: image file is trunc"),
    "a JPEG cut off": (
        lambda f: (
            Image.open(f / "0.png").save(f / "0.jpg"),
            cut(f / "0.jpg"),
            rewritten(f, lambda rows: rows[0].update(file_name="0.jpg")),
        ),
        "0.jpg: cannot be decoded: image file is truncated",
    ),
    "16 bits": (
        lambda f: deep(f / "3.png"),
        "1 images have more than 8 bits a channel, e.g. .*3.p",
    ),
    "too few captions": (
        lambda f: rewritten(f, lambda rows: rows[4].update(caption=" \u2028")),
        "photos has 5 of the 6 that are asked for, with a caption",
    ),
    "a caption that is no text": (
        lambda f: rewritten(f, lambda rows: rows[4].update(caption=[4])),
        "column 'caption' is not text: row 4 holds",
    ),
    "no caption column": (
        lambda f: rewritten(f, lambda rows: [row.pop("caption") for row in rows]),
        "no column prompt, caption, text; it has: file_name",
    ),
    "a file elsewhere": (
        lambda f: rewritten(f, lambda rows: rows[1].update(file_name="../captions.txt")),
        r"row 1: \.\./captions.txt leads out of the folder",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_folder_is_refused_in_the_plan(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str], case: str
) -> None:
    given = data(tmp_path, num=6)
    spoil, expected = SPOILT[case]
    spoil(tmp_path / "photos")
    suite = load_suite(write_suite({**tiny, "train_data": given.model_dump(exclude_none=True)}))
    with pytest.raises(BenchError, match=r"train_data\.images: .*" + expected) as caught:
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    assert "train_data.prompts" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({"source": "gone.txt"}, "no such file or folder"),
        ({"source": "captions.txt"}, "captions.txt has 9 of the 20 that are asked for"),
        ({"source": "captions.txt", "column": "caption"}, "no column 'caption'; it has: text"),
        ({"source": "photos"}, "expected a file that ends in"),
        ({"source": "nothing"}, "neither a local file or folder"),
        ({"source": "geneval", "num_prompts": 554}, "geneval has 553 of the 554"),
        ({"source": "owner/name"}, "a dataset of the Hub needs the column of its text"),
        ({"source": "owner/name", "column": "text"}, "a full commit hash"),
    ],
)
def test_captions_are_checked_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompts: dict[str, Any], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data(tmp_path)
    given = TrainData.model_validate({"prompts": {"num_prompts": 20, **prompts}})
    [problem] = data_problems(given)
    assert problem.startswith("train_data.prompts: ")
    assert expected in problem


def test_parquet_is_checked_as_far_as_captions_and_the_first_image(tmp_path: Path) -> None:
    path = photos(tmp_path / "photos", ["a"], "caption") / "0.png"
    rows = {"image": [path.read_bytes()] * 3, "caption": ["a", " ", "b"]}
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    assert list(data_problems(of_images(tmp_path / "p.parquet", 2))) == []
    [problem] = data_problems(of_images(tmp_path / "p.parquet", 3))
    assert "p.parquet has 2 of the 3 that are asked for" in problem
    # A path is no content: the file behind it could change and no key with it.
    pd.DataFrame({**rows, "image": [{"bytes": None, "path": str(path)}] * 3}).to_parquet(
        tmp_path / "p.parquet"
    )
    [problem] = data_problems(of_images(tmp_path / "p.parquet", 2))
    assert "its first row holds no image" in problem


def of_sizes(folder: Path, sizes: list[tuple[int, int]]) -> dict[str, Any]:
    """A suite's part: captions, and images of these sizes, all but the last of which are used."""
    photos(folder / "photos", [f"photo {k}" for k in range(len(sizes))], "caption")
    for k, size in enumerate(sizes):
        Image.new("RGB", size, "red").save(folder / "photos" / f"{k}.png")
    return data(folder, num=len(sizes) - 1).model_dump(exclude_none=True)


SIZES = [(64, 64), (63, 200), (200, 10), (64, 90), (5, 5)]
ENLARGED = "2 of 4 images of {} are smaller than 64 pixels a side and are enlarged"


def test_images_that_are_enlarged_are_counted(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    tiny |= {"backend": "sdxl", "model": {"repository": "owner/sdxl", "resolution": 64}}
    tiny["train_data"] = of_sizes(tmp_path, SIZES)

    def lines() -> list[str]:
        return list(enlarged_lines(Asked.of(load_suite(write_suite(tiny)))))

    assert lines() == ["train_data.images: " + ENLARGED.format(tmp_path / "photos")]
    tiny["model"]["resolution"] = 8
    tiny["train_data"]["images"]["num_images"] = 2
    assert lines() == []
    (tmp_path / "photos" / "0.png").unlink()  # which the plan refuses
    assert lines() == []


@pytest.mark.long
def test_plan_and_run_say_which_images_are_enlarged(
    tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]
) -> None:
    repository = tiny_sdxl.write_repository(tmp_path / "repository")
    tiny |= {
        "backend": "sdxl",
        "model": {"repository": str(repository), "resolution": 64},
        "prompts": {"some": {"source": str(tmp_path / "captions.txt"), "num_prompts": 2}},
        "train_data": of_sizes(tmp_path, SIZES),
        "students": {"one": {"method": "dmd"}},
        "baseline": "one",
        "metrics": ["std"],
        "claims": [],
    }
    expected = ENLARGED.format(tmp_path / "photos")
    for command in ("plan", "encode"):
        given = [command, write_suite(tiny), "--runs", str(tmp_path / "runs")]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 0, result.output
        assert expected in " ".join(result.output.split())


def test_images_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    looks: list[Path] = []
    look = headers._look
    monkeypatch.setattr(headers, "_look", lambda path: (looks.append(path), look(path))[1])
    given = data(tmp_path, num=6)
    assert list(data_problems(given)) == []
    assert len(looks) == 6
    identity = data_identity(given, 32)
    (tmp_path / "photos" / "note.txt").write_text("not read")
    assert data_identity(given, 32) == identity
    assert len(looks) == 6
    Image.new("RGB", (9, 9)).save(tmp_path / "photos" / "3.png")
    assert data_identity(given, 32)["images"] != identity["images"]
    assert len(looks) == 7


def test_a_caption_is_part_of_the_data_and_a_name_is_not(tmp_path: Path) -> None:
    given = data(tmp_path, num=6)
    one = data_identity(given, 32)["images"]
    (tmp_path / "photos" / "0.png").rename(tmp_path / "photos" / "renamed.png")
    rewritten(tmp_path / "photos", lambda rows: rows[0].update(file_name="renamed.png"))
    assert data_identity(given, 32)["images"] == one
    rewritten(tmp_path / "photos", lambda rows: rows[0].update(caption="another"))
    assert data_identity(given, 32)["images"] != one
