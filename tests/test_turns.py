"""Scorers that do not fit into memory side by side, in a memory that is made here."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
import torch
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.files.memory import FewerAtOnce
from ddmd_bench.measuring.features import whole_features
from ddmd_bench.measuring.measure import Images, KeptAnswers, measure
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.measuring.turns import let_go, turns
from ddmd_bench.scorers import METRICS, SCORERS, Metric, Scored, Scorer, loaded

SIZES = {"small": 3, "middle": 5, "large": 8}
NUM_IMAGES = 150


class Model:
    """Says the mean level times its size, and counts what it is asked."""

    def __init__(self, name: str, memory: Memory) -> None:
        self.name, self.memory = name, memory

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image)).double()

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        self.memory.work(self.name, 1)
        self.memory.encoded[self.name] += len(prompts)
        return [{"length": torch.tensor(float(len(prompt)))} for prompt in prompts]

    def score_batch(
        self, inputs: torch.Tensor, text: Sequence[Mapping[str, torch.Tensor]]
    ) -> Scored:
        self.memory.work(self.name, len(inputs))
        self.memory.scored[self.name] += len(inputs)
        level = SIZES[self.name] * inputs.mean((1, 2))
        length = torch.stack([row["length"] for row in text])
        return Scored({self.name: level, f"{self.name}_length": length}, level[:, None])


@dataclass
class Memory:
    """A device with room for models of so much size together."""

    room: int = 100
    error: Callable[[], Exception] = torch.OutOfMemoryError  # a new one holds no old frames
    each: dict[str, int] = field(default_factory=dict)  # what one image takes while it is scored
    after: int = 0  # images that scorers have answered to before any takes that
    models: WeakSet[Model] = field(default_factory=WeakSet)
    loads: list[str] = field(default_factory=list)
    scored: Counter[str] = field(default_factory=Counter)
    encoded: Counter[str] = field(default_factory=Counter)

    def taken(self) -> int:
        return sum(SIZES[one.name] for one in self.models)

    def work(self, name: str, num: int) -> None:
        begun = self.scored.total() >= self.after
        if begun and self.taken() + num * self.each.get(name, 0) > self.room:
            raise self.error()

    def load(self, name: str, device: str, dtype: torch.dtype) -> Model:
        model = Model(name, self)  # begun, and in the frame that the error keeps
        self.models.add(model)
        if self.taken() > self.room:
            raise self.error()
        self.loads.append(name)
        return model


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    made = Memory()
    monkeypatch.setitem(sys.modules, "tests_memory", made)  # type: ignore[arg-type]
    for name in SIZES:
        monkeypatch.setitem(SCORERS, name, Scorer("tests_memory", (name,), num_features=1))
        metric = Metric(name, "image", "higher", None, 1, "", 2, "Mean level.")
        monkeypatch.setitem(METRICS, name, metric)
    let_go()
    yield made
    let_go()


def images(opened: list[int]) -> Images:
    def read(row: int) -> Image.Image:
        opened.append(row)
        image = Image.new("L", (4, 3), row)
        image.putpixel((0, 0), 255)
        return image

    rows = [
        {"prompt_id": f"p/{k // 2:04d}", "prompt_set": "p", "prompt": f"{k // 2}",
         "image_index": k % 2, "out_of_range": None}
        for k in range(NUM_IMAGES)
    ]  # fmt: skip
    return Images(rows, [f"{k}.png" for k in range(NUM_IMAGES)], read)


def out_of_memory_on_a_cpu() -> Exception:
    return RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")


def read_as_a_broken_file() -> Exception:
    error = BenchError("a.pt: not a file of weights")
    error.__cause__ = out_of_memory_on_a_cpu()
    return error


@pytest.mark.parametrize(
    ("room", "num_turns"), [(16, 1), (13, 2), (8, 2)], ids=lambda value: str(value)
)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError, out_of_memory_on_a_cpu, read_as_a_broken_file]
)
def test_turns_say_what_one_pass_says(
    memory: Memory, tmp_path: Path, room: int, num_turns: int, error: Callable[[], Exception]
) -> None:
    # Columns come in the order of SCORERS, whatever is asked for first.
    metrics = ["large", "std", "small", "middle"]
    together = measure(images([]), metrics, "s")
    let_go()
    memory.room, memory.error = room, error
    memory.scored.clear()
    memory.encoded.clear()
    opened, told = list[int](), list[int]()
    kept = KeptAnswers(tmp_path / "answers", tmp_path / "texts")
    found = measure(
        images(opened), metrics, "s", kept=kept, progress=lambda done, total: told.append(done)
    )
    assert list(found.table) == list(together.table)
    assert found.table.equals(together.table)
    assert list(found.answers) == list(together.answers) == ["images", *SIZES]
    for name, features in together.features.items():
        np.testing.assert_array_equal(found.features[name], features)
    assert memory.scored == dict.fromkeys(SIZES, NUM_IMAGES)
    assert memory.encoded == dict.fromkeys(SIZES, NUM_IMAGES // 2)
    assert Counter(opened) == dict.fromkeys(range(NUM_IMAGES), num_turns)
    assert told == sorted(told)
    assert told[0] > 0
    assert told[-1] == NUM_IMAGES
    # What is kept is read, whichever turn has said it.
    again = measure(images(opened), metrics, "s", kept=kept)
    assert again.table.equals(found.table)
    assert len(opened) == num_turns * NUM_IMAGES


def test_as_many_turns_as_scorers_if_need_be(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SIZES:
        monkeypatch.setitem(SIZES, name, 8)
    memory.room = 8
    found = [list(one_pass.models) for one_pass in turns(list(SIZES))]
    assert found == [["small"], ["middle"], ["large"]]
    assert memory.loads == ["small", "middle", "large"]


def test_a_scorer_that_fits_nowhere_says_what_to_do(memory: Memory, tmp_path: Path) -> None:
    memory.room = 7
    kept = KeptAnswers(tmp_path / "answers", tmp_path / "texts")
    expected = (
        r"scorer large alone, in float32, does not fit into the memory of this machine\. .*"
        r"bfloat16, .* or leave out its metrics \(large\)"
    )
    with pytest.raises(BenchError, match=expected):
        measure(images([]), ["small", "large"], "s", kept=kept)
    assert memory.scored == {"small": NUM_IMAGES}
    # What the other has said is kept.
    measure(images([]), ["small"], "s", kept=kept)
    assert memory.scored == {"small": NUM_IMAGES}


@pytest.mark.long
@pytest.mark.parametrize("after", [0, 1, 100, 250, 400])
def test_a_scorer_without_room_beside_others_has_a_turn_of_its_own(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Whenever it runs out: among prompts, early or late in the images, in any part of them."""
    monkeypatch.setattr("ddmd_bench.measuring.measure.PART_SIZE", 64)
    together = measure(images([]), [*SIZES], "s")
    let_go()
    memory.scored.clear()
    memory.encoded.clear()
    memory.loads.clear()
    # Loaded, all three fit; at work, `middle` has room for two images where it is alone.
    memory.room, memory.each, memory.after = 17, {"middle": 6}, after
    told, kept = list[int](), KeptAnswers(tmp_path / "answers", tmp_path / "texts")
    with pytest.warns(FewerAtOnce, match="images in scorer middle"):
        found = measure(
            images([]), [*SIZES], "s", kept=kept, progress=lambda done, _: told.append(done)
        )
    assert memory.loads == ["small", "middle", "large", "middle"]
    assert found.table.equals(together.table)
    for name, features in together.features.items():
        np.testing.assert_array_equal(found.features[name], features)
    assert not any(answer.missing for answer in found.answers.values())
    assert (memory.scored["small"], memory.scored["large"]) == (NUM_IMAGES, NUM_IMAGES)
    assert told == sorted(told)
    assert told[-1] == NUM_IMAGES
    again = measure(images([]), [*SIZES], "s", kept=kept)
    assert again.table.equals(found.table)
    assert memory.scored["small"] == NUM_IMAGES


def test_a_scorer_without_room_for_one_image_says_what_to_do(
    memory: Memory, tmp_path: Path
) -> None:
    memory.room, memory.each = 17, {"middle": 13}
    kept = KeptAnswers(tmp_path / "answers", tmp_path / "texts")
    with pytest.raises(BenchError, match="scorer middle alone, in float32, does not fit into"):
        measure(images([]), [*SIZES], "s", kept=kept)
    assert memory.scored == {"small": NUM_IMAGES, "large": NUM_IMAGES}
    measure(images([]), ["small", "large"], "s", kept=kept)  # what they have said is kept
    assert memory.scored == {"small": NUM_IMAGES, "large": NUM_IMAGES}


def test_features_of_a_scorer_without_room_come_last(memory: Memory) -> None:
    of_files = images([])
    items = [Item.in_memory(name, "", of_files.open(k)) for k, name in enumerate(of_files.names)]
    together = whole_features(list(SIZES), items)
    loaded.cache_clear()
    memory.room, memory.each = 17, {"small": 14}
    with pytest.warns(FewerAtOnce, match="images in scorer small"):
        found = whole_features(list(SIZES), items)
    assert list(found) == list(SIZES)
    for name, features in together.items():
        np.testing.assert_array_equal(found[name], features)


def test_scorers_of_an_earlier_pass_make_room(memory: Memory) -> None:
    memory.room = 8
    measure(images([]), ["large"], "s")
    opened = list[int]()
    measure(images(opened), ["small", "middle"], "s")
    assert Counter(opened) == dict.fromkeys(range(NUM_IMAGES), 1)  # side by side
    measure(images([]), ["small"], "another student")
    assert memory.loads == ["large", "small", "middle"]


def test_what_is_no_lack_of_memory_is_no_turn(memory: Memory) -> None:
    memory.room, memory.error = 5, partial(ValueError, "another file")
    with pytest.raises(ValueError, match="another file"):
        list(turns(list(SIZES)))


def test_features_come_in_turns_too(memory: Memory) -> None:
    of_files = images([])
    items = [Item.in_memory(name, "", of_files.open(k)) for k, name in enumerate(of_files.names)]
    together = whole_features(list(SIZES), items)
    loaded.cache_clear()
    memory.room = 8
    found = whole_features(list(SIZES), items)
    assert list(found) == list(SIZES)
    for name, features in together.items():
        np.testing.assert_array_equal(found[name], features)
