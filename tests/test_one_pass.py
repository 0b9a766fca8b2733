"""The pass over images: decoding, batches, what is missing, what is kept."""

from __future__ import annotations

import errno
import io
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.files import decoding
from ddmd_bench.files.decoding import Undecodable, Unusable, decoded
from ddmd_bench.files.memory import FewerAtOnce
from ddmd_bench.measuring.aggregates import counted
from ddmd_bench.measuring.answers import joined, read_part, write_part
from ddmd_bench.measuring.measure import Images, KeptAnswers, measure
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.measuring.refusals import refuse_same_answers
from ddmd_bench.measuring.sheets import Answer, Item
from ddmd_bench.scorers import METRICS, SCORERS, Metric, Scored, Scorer, loaded


def picture(seed: int, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


# decoding


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1", "CMYK"])
def test_every_mode_is_decoded_to_eight_bits(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"a.{'tiff' if mode == 'CMYK' else 'png'}"
    original = picture(0, mode=mode)
    original.save(path)
    found = decoded(path)
    assert found.mode in {"L", "LA", "P", "RGB", "RGBA"}
    assert found.convert("RGB").tobytes() == original.convert("RGB").tobytes()


def test_an_image_is_turned_as_its_tag_says(tmp_path: Path) -> None:
    original = picture(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    original.rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    assert decoded(tmp_path / "a.png").tobytes() == original.tobytes()


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(levels * 257).save(tmp_path / "a.png")
    found = decoded(tmp_path / "a.png")
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), levels)


@pytest.mark.parametrize("broken", ["empty", "no image", "cut", "bytes", "absent"])
def test_what_is_no_whole_image_says_so(tmp_path: Path, broken: str) -> None:
    buffer = io.BytesIO()
    picture(2, (40, 40)).save(buffer, "PNG")
    whole = buffer.getvalue()
    path = tmp_path / "a.png"
    contents = {
        "empty": b"",
        "no image": b"no image",
        "cut": whole[: len(whole) // 2],
        "bytes": whole[:60] + b"x" * 9 + whole[69:],
    }
    if broken in contents:
        path.write_bytes(contents[broken])
    with pytest.raises(Undecodable, match=r"cannot be decoded|no such file"):
        decoded(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_a_constant_image_has_no_value(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (5, 5), (0, 0, 0)).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(Unusable, match=r"every pixel is \(0, 0, 0\)"):
        decoded(tmp_path / "a.png")


# the pass


class Means:
    """A scorer whose answer is known: mean level, length of the prompt, features of both."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.encoded: list[str] = []
        self.limit = math.inf  # more images than this do not fit into memory

    def load(self, name: str, device: str, dtype: torch.dtype) -> Means:
        return self

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        if image.width == 1:
            raise ValueError("too narrow")
        return torch.from_numpy(np.array(image.convert("L"))).float()

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        if any("?" in prompt for prompt in prompts):
            raise BenchError("no questions")
        self.encoded += prompts
        rows = [{"length": torch.tensor(float(len(p)))} for p in prompts]
        return [
            row | ({"truncated": torch.tensor(True)} if len(p) > 9 else {})
            for row, p in zip(rows, prompts, strict=True)
        ]

    def score_batch(
        self, inputs: torch.Tensor, text: Sequence[Mapping[str, torch.Tensor]]
    ) -> Scored:
        if len(inputs) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if (inputs == 13).any():
            raise ZeroDivisionError("thirteen")
        self.batches.append(len(inputs))
        mean = inputs.mean((1, 2))
        mean[(inputs == 17).any(2).any(1)] = math.nan
        length = torch.stack([row["length"] for row in text])
        return Scored({"level": mean, "length": length}, torch.stack([mean, length], 1))


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Means]:
    means = Means()
    monkeypatch.setitem(sys.modules, "tests_means", means)  # type: ignore[arg-type]
    row = Scorer("tests_means", ("level",), num_features=2, batch_size=4)
    monkeypatch.setitem(SCORERS, "means", row)
    metric = Metric("Level", "image", "higher", None, 1, "", 2, "Mean level.")
    monkeypatch.setitem(METRICS, "level", metric)
    loaded.cache_clear()
    yield means
    loaded.cache_clear()


def grey(level: int, size: tuple[int, int] = (4, 3)) -> Image.Image:
    """Every pixel but the first has the level."""
    image = Image.new("L", size, level)
    image.putpixel((0, 0), 0)
    return image


def items(*images: Image.Image | Exception, prompts: Sequence[str] = ()) -> list[Item]:
    def give(image: Image.Image | Exception) -> Callable[[], Image.Image]:
        def opened() -> Image.Image:
            if isinstance(image, Exception):
                raise image
            return image

        return opened

    texts = prompts or [f"p{k}" for k in range(len(images))]
    return [
        Item(f"{k}.png", prompt, give(image), prompt_id=prompt)
        for k, (image, prompt) in enumerate(zip(images, texts, strict=True))
    ]


def answer(one_pass: OnePass, chunk: Sequence[Item]) -> Answer:
    (found,) = one_pass.over([chunk])
    return found["means"]


def test_images_of_any_shape_keep_their_rows(scorer: Means) -> None:
    sizes = [(4, 3), (2, 6), (4, 3), (6, 2), (2, 6), (4, 3), (4, 3), (4, 3)]
    chunk = items(*(grey(12 * (k + 2), size) for k, size in enumerate(sizes)))
    found = answer(OnePass(["means"]), chunk)
    assert found.columns["level"] == pytest.approx([11 * (k + 2) for k in range(8)])
    assert sorted(scorer.batches) == [1, 1, 2, 4]  # no batch above the row's size
    assert not found.missing


def test_one_image_costs_no_other(scorer: Means) -> None:
    chunk = items(
        grey(20), Unusable("cut"), grey(13), grey(30), grey(17), grey(40, (1, 9)), grey(50)
    )
    found = answer(OnePass(["means"]), chunk)
    assert found.missing == {
        1: "cut",
        2: "ZeroDivisionError: thirteen",
        4: "not a finite number: features",
        5: "ValueError: too narrow",
    }
    assert np.isnan(found.columns["level"]).tolist() == [k in {1, 2, 4, 5} for k in range(7)]
    assert found.features is not None
    assert np.isfinite(found.features).all(1).tolist() == [k not in {1, 2, 4, 5} for k in range(7)]


def test_what_the_input_forbids_stops_the_pass(scorer: Means) -> None:
    with pytest.raises(BenchError, match="damaged"):
        answer(OnePass(["means"]), items(grey(20), BenchError("damaged")))


def test_the_batch_size_falls_where_memory_runs_out(scorer: Means) -> None:
    scorer.limit = 2
    one_pass = OnePass(["means"])
    chunk = items(*(grey(20 + k) for k in range(9)))
    with pytest.warns(FewerAtOnce, match="ran out with 4 images in scorer means .*; 2 at once"):
        first, second = (found["means"] for found in one_pass.over([chunk, chunk]))
    assert max(scorer.batches) == 2
    assert one_pass.at_once["means"].size == 2
    assert not first.missing
    assert (first.columns["level"] == second.columns["level"]).all()


def counting(opened: list[int], num: int) -> Iterator[list[Item]]:
    """Chunks of ten images that note when they are opened, and in which thread."""

    def opening(row: int) -> Image.Image:
        opened.append(threading.get_ident())
        return grey(20 + row % 200)

    for start in range(0, num, 10):
        yield [Item(f"{k}", "p", partial(opening, k)) for k in range(start, start + 10)]


def test_images_are_read_ahead_so_far_and_no_further(
    scorer: Means, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, ahead = list[int](), list[int]()
    score_batch = scorer.score_batch

    def noting(inputs: torch.Tensor, text: Any) -> Scored:
        ahead.append(len(opened) - sum(scorer.batches) - len(inputs))
        return score_batch(inputs, text)

    monkeypatch.setattr(scorer, "score_batch", noting)
    monkeypatch.setattr("ddmd_bench.measuring.one_pass.AHEAD", 30)
    found = list(OnePass(["means"]).over(counting(opened, 200)))
    assert [answers["means"].num_images for answers in found] == [10] * 20
    assert len(opened) == 200
    assert max(ahead) <= 30
    assert scorer.batches == [4, 4, 2] * 20  # the first while the chunk is being read


@pytest.mark.parametrize("threads", [1, 3])
def test_a_process_decodes_with_the_threads_that_it_computes_with(
    scorer: Means, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    opened = list[int]()
    list(OnePass(["means"]).over(counting(opened, 60)))
    assert 1 <= len(set(opened)) <= threads
    assert threading.get_ident() not in opened


def test_a_pass_that_is_left_reads_no_further(scorer: Means) -> None:
    opened = list[int]()
    answers = OnePass(["means"]).over(counting(opened, 5_000))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    before = len(opened)
    assert before < 5_000
    time.sleep(0.05)
    assert len(opened) == before


def test_answers_that_are_read_later_are_the_same(scorer: Means) -> None:
    one_pass = OnePass(["means"])
    chunks = [items(*(grey(20 + 7 * c + k) for k in range(7))) for c in range(3)]
    at_once = [found["means"] for found in one_pass.over(chunks)]
    one_pass.read_later = 1  # as on a GPU
    launched = list[int]()
    later = []
    for found in one_pass.over(chunks):
        later.append(found["means"])
        launched.append(sum(scorer.batches) - 21)
    assert launched == [14, 21, 21]
    for one, other in zip(at_once, later, strict=True):
        np.testing.assert_array_equal(one.columns["level"], other.columns["level"])
        np.testing.assert_array_equal(one.features, other.features)  # type: ignore[arg-type]


def test_prompts_are_encoded_once_and_counted_where_they_are_cut(
    scorer: Means, tmp_path: Path
) -> None:
    prompts = ["one", "a longer prompt", "one", "why?", "one"]
    chunk = items(*(grey(20 + k) for k in range(5)), prompts=prompts)
    found = answer(OnePass(["means"], encoded_prompts=lambda name: tmp_path / name), chunk)
    assert sorted(scorer.encoded) == ["a longer prompt", "one"]
    assert found.truncated == {1}
    assert found.missing == {3: "no questions"}
    again = answer(OnePass(["means"], encoded_prompts=lambda name: tmp_path / name), chunk[:3])
    assert len(scorer.encoded) == 2  # read from the disk
    assert again.columns["length"].tolist() == [3, 15, 3]
    assert again.truncated == {1}


# what is kept


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms())
def test_parts_join_to_the_whole(sizes: list[int], random: Any) -> None:
    parts, start = [], 0
    for size in sizes:
        part = Answer(size)
        for row in range(size):
            if random.random() < 0.3:
                part.missing[row] = f"row {start + row}"
            else:
                value = torch.tensor([float(start + row)])
                part.put([row], Scored({"x": value}, value[:, None]))
        start += size
        parts.append(part)
    whole = joined(parts)
    known = [k for k in range(start) if k not in whole.missing]
    assert whole.missing == {k: f"row {k}" for k in set(range(start)) - set(known)}
    if known:
        assert whole.columns["x"][known].tolist() == known
        assert whole.features is not None
        assert whole.features[known, 0].tolist() == known
        assert np.isnan(whole.columns["x"]).sum() == start - len(known)


def test_a_part_comes_back_as_it_was(tmp_path: Path) -> None:
    part = Answer(3, missing={1: 'cut: "é"'}, truncated={2})
    part.put([0, 2], Scored({"x": torch.tensor([0.1, 0.2])}, torch.eye(2)))
    write_part(tmp_path / "a" / "p.npz", part, "these images")
    found = read_part(tmp_path / "a" / "p.npz", "these images")
    assert found is not None
    assert (found.num_images, found.missing, found.truncated) == (3, part.missing, {2})
    np.testing.assert_array_equal(found.columns["x"], part.columns["x"])
    np.testing.assert_array_equal(found.features, part.features)  # type: ignore[arg-type]
    path = tmp_path / "a" / "p.npz"
    assert read_part(path, "others") is None
    path.write_bytes(path.read_bytes()[:-40])
    assert read_part(path, "these images") is None
    assert read_part(tmp_path / "none.npz", "these images") is None


def images_of(levels: Sequence[int], opened: list[int]) -> Images:
    def read(row: int) -> Image.Image:
        opened.append(row)
        return grey(levels[row])

    rows = [
        {"prompt_id": f"p/{k:04d}", "prompt_set": "p", "prompt": f"{k}", "image_index": 0,
         "out_of_range": None}
        for k in range(len(levels))
    ]  # fmt: skip
    return Images(rows, [f"{k}.png" for k in range(len(levels))], read)


def test_a_second_pass_opens_no_image(scorer: Means, tmp_path: Path) -> None:
    kept, opened = KeptAnswers(tmp_path / "answers", tmp_path / "texts"), list[int]()
    images = images_of(range(20, 120), opened)
    first = measure(images, ["level"], "s", kept=kept)
    assert sorted(opened) == list(range(100))
    again = measure(images, ["level"], "s", kept=kept)
    assert len(opened) == 100
    assert again.table.equals(first.table)
    # Another scorer sees the images once; what is known is not computed again.
    before = len(scorer.batches)
    measure(images, ["level", "std"], "s", kept=kept)
    assert len(opened) == 200
    assert len(scorer.batches) == before


def test_a_scorer_is_asked_about_its_own_prompts_alone(scorer: Means, tmp_path: Path) -> None:
    kept, opened = KeptAnswers(tmp_path / "answers", tmp_path / "texts"), list[int]()
    images = images_of(range(20, 30), opened)
    rows = [row | {"prompt_set": "p" if k < 6 else "q"} for k, row in enumerate(images.rows)]
    images = Images(rows, images.names, images.open)
    asked = {"p": ["level", "std"], "q": ["std"]}
    for _ in range(2):  # computed, then kept
        found = measure(images, ["level", "std"], "s", kept=kept, asked=asked)
        assert found.table["level"].notna().tolist() == [True] * 6 + [False] * 4
        assert found.table["std"].notna().all()
        assert found.answers["means"].not_asked == {6, 7, 8, 9}
        assert not found.answers["means"].missing
        assert counted("level", found.table, "all", asked).sum() == 6
        assert counted("level", found.table, "q", asked).sum() == 0
    assert sorted(scorer.encoded) == [str(k) for k in range(6)]
    # None of the images in a part is for a scorer.
    found = measure(images, ["level", "std"], "s", asked={"p": ["std"], "q": ["std"]})
    assert found.table["level"].isna().all()


def test_other_prompts_than_before_are_asked_about(scorer: Means, tmp_path: Path) -> None:
    """A metric that is named for more prompts, or for fewer, has the answers of a first pass."""
    kept, opened = KeptAnswers(tmp_path / "answers", tmp_path / "texts"), list[int]()
    images = images_of(range(20, 30), opened)
    rows = [row | {"prompt_set": "p" if k < 6 else "q"} for k, row in enumerate(images.rows)]
    images = Images(rows, images.names, images.open)
    for of_q in (["std"], ["level", "std"], ["std"]):
        asked = {"p": ["level", "std"], "q": of_q}
        found = measure(images, ["level", "std"], "s", kept=kept, asked=asked)
        alone = measure(images, ["level", "std"], "s", asked=asked)
        assert found.table.equals(alone.table)
        assert found.answers["means"].not_asked == alone.answers["means"].not_asked


@pytest.mark.parametrize("images_before", [0, 5, 40, 64, 99])
def test_a_pass_that_was_stopped_goes_on(
    scorer: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_before: int
) -> None:
    """At the part: what it left is what one pass leaves, and an image is seen twice at most."""
    monkeypatch.setattr("ddmd_bench.measuring.measure.PART_SIZE", 32)
    opened, scored = list[int](), list[int]()
    whole = KeptAnswers(tmp_path / "whole" / "answers", tmp_path / "whole" / "texts")
    kept = KeptAnswers(tmp_path / "answers", tmp_path / "texts")
    images = images_of(range(20, 120), opened)
    expected = measure(images, ["level"], "s", kept=whole)
    score_batch = scorer.score_batch

    def killed(inputs: torch.Tensor, text: Any) -> Scored:
        if len(scored) + len(inputs) > images_before:
            raise KeyboardInterrupt
        scored.extend([0] * len(inputs))
        return score_batch(inputs, text)

    monkeypatch.setattr(scorer, "score_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(images, ["level"], "s", kept=kept)
    monkeypatch.setattr(scorer, "score_batch", score_batch)
    opened.clear()
    found = measure(images, ["level"], "s", kept=kept)
    assert sorted(opened) == list(range(len(scored) // 32 * 32, 100))
    assert found.table.equals(expected.table)
    written = [
        {path.relative_to(of.answers): path.read_bytes() for path in of.answers.rglob("*.npz")}
        for of in (kept, whole)
    ]
    assert written[0] == written[1]
    assert len(written[0]) == 4


def test_a_scorer_that_fails_costs_no_other(scorer: Means, tmp_path: Path) -> None:
    kept, opened = KeptAnswers(tmp_path / "answers", tmp_path / "texts"), list[int]()
    images = images_of([13] * 3 + [14], opened)
    images = Images([row | {"prompt": "why?"} for row in images.rows], images.names, images.open)
    with pytest.raises(BenchError, match="none of 4 images has a value; the first: no questions"):
        measure(images, ["level", "std"], "s", kept=kept)
    opened.clear()
    measure(images, ["std"], "s", kept=kept)
    assert not opened


# images of one prompt


def of_prompts(*of: tuple[str, str], size: int = 8) -> Images:
    """An image of each prompt id and text."""
    rows = [
        {"prompt_id": prompt_id, "prompt_set": "p", "prompt": text, "image_index": k,
         "out_of_range": None}
        for k, (prompt_id, text) in enumerate(of)
    ]  # fmt: skip
    return Images(rows, [f"{k}.png" for k in range(len(of))], lambda k: picture(k, (size, size)))


@pytest.mark.parametrize("text", ["", "twice in the list"])
def test_images_of_two_prompts_with_one_text_are_not_compared(text: str) -> None:
    alone = measure(of_prompts(("a", text), ("b", text)), ["diversity"], "s")
    assert alone.table["diversity"].isna().all()
    pairs = [("a", text), ("a", text), ("b", text), ("b", text)]
    found = measure(of_prompts(*pairs), ["diversity"], "s").table["diversity"]
    apart = measure(of_prompts(*((p, p) for p, _ in pairs)), ["diversity"], "s").table["diversity"]
    assert found.nunique() == 2
    assert found.equals(apart)


@pytest.mark.parametrize(("num_prompts", "refused"), [(1, False), (2, True)])
def test_one_answer_for_all_images_of_one_prompt_is_as_it_should_be(
    num_prompts: int, refused: bool
) -> None:
    answer = Answer(4, {"lpips": np.full(4, 0.5)})
    prompts = [f"p{k % num_prompts}" for k in range(4)]
    with pytest.raises(BenchError, match="the same answer") if refused else nullcontext():
        refuse_same_answers("lpips_alex", "s", answer, prompts, lambda: ("0.png", "1.png"))


def test_a_prompt_that_a_scorer_throws_on_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, scorer: Means
) -> None:
    def score_prompt(inputs: torch.Tensor) -> dict[str, float]:
        if inputs.shape[1] < 8:
            raise RuntimeError("output size is too small")
        return {"apart": float(inputs.std())}

    monkeypatch.setattr(scorer, "score_prompt", score_prompt, raising=False)
    row = Scorer("tests_means", (), ("apart",), reads_prompts=False)
    monkeypatch.setitem(SCORERS, "means", row)
    small, large = [grey(k) for k in (20, 30)], [grey(k, (9, 9)) for k in (20, 30)]
    found = answer(OnePass(["means"]), items(*small, *large, prompts=["a", "a", "b", "b"]))
    assert found.missing == dict.fromkeys([0, 1], "RuntimeError: output size is too small")
    assert np.isfinite(found.columns["apart"]).tolist() == [False, False, True, True]


# what says nothing of an image


def test_a_file_that_the_machine_did_not_give_is_asked_for_again(
    scorer: Means, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(3):
        grey(20 + k).save(tmp_path / f"{k}.png")

    def give_none(path: Path) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def measured() -> Any:
        opened = of_prompts(*((f"p{k}", f"p{k}") for k in range(3)))
        images = replace(opened, open=lambda k: decoded(tmp_path / f"{k}.png"))
        kept = KeptAnswers(tmp_path / "answers", tmp_path / "texts")
        return measure(images, ["level"], "s", kept=kept).answers["means"].missing

    with monkeypatch.context() as patched:
        real = decoding.open_image
        patched.setattr(
            decoding, "open_image", lambda p: give_none(p) if p.name == "1.png" else real(p)
        )
        assert measured() == {1: f"cannot be read: {os.strerror(errno.EMFILE)}"}
    assert measured() == {}


def test_an_error_of_the_gpu_is_no_missing_value(
    monkeypatch: pytest.MonkeyPatch, scorer: Means
) -> None:
    def broken(*of: Any) -> Scored:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(scorer, "score_batch", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        answer(OnePass(["means"]), items(grey(20), grey(30)))
