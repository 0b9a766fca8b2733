"""Training data are drawn once, in their order, and go on where they stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_real_models import photos

from ddmd_bench.data import training as training_data
from ddmd_bench.data.training import TrainingData, data_identity, read_square
from ddmd_bench.errors import BenchError
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
