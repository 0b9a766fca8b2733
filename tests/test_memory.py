"""Where memory runs out, less is worked on at once: each item once, in order, or a sentence."""

from __future__ import annotations

import gc
import platform
import resource
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_sd15
import torch
from tiny_sdxl import RESOLUTION

from ddmd_bench.backends.pipelines import (
    DECODED_PIXELS,
    bound_decoder,
    decode,
    decoded_at_once,
    vae_on,
)
from ddmd_bench.backends.repository import parts_of
from ddmd_bench.data.images import image_ids
from ddmd_bench.data.latents import Latents, encode_missing
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError, said_by
from ddmd_bench.files import memory
from ddmd_bench.files.device import is_out_of_memory
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.memory import AtOnce, FewerAtOnce, refusing_out_of_memory
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.stages import encode as encode_stage
from ddmd_bench.stages.train import train
from ddmd_bench.students.drawing import iter_drawn
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import Model
from ddmd_bench.training.course import CHECKPOINT
from ddmd_bench.training.update import Training

pytestmark = pytest.mark.filterwarnings("ignore::ddmd_bench.files.memory.FewerAtOnce")


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_every_item_is_worked_on_once_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "return_memory", lambda: None)  # a tenth of a second each time
    for num, size, fits in product([0, 1, 2, 7, 8, 33], [1, 2, 5, 8, 64], range(1, 10)):
        check_batches(num, size, fits)


def check_batches(num: int, size: int, fits: int) -> None:
    at_once, items, tried = AtOnce(size, "items"), list(range(num)), list[int]()

    def work(batch: Sequence[int]) -> list[int]:
        tried.append(len(batch))
        return [10 * one for one in batch] if len(batch) <= fits else out_of_memory()

    found = list(at_once.batches(items, work))
    assert [one for batch, _ in found for one in batch] == items
    assert [one for _, made in found for one in made] == [10 * one for one in items]
    assert all(0 < len(batch) <= min(size, fits) for batch, _ in found)
    # A size that was too much is never tried again, and none is halved without need.
    assert len({n for n in tried if n > fits}) == sum(n > fits for n in tried)
    assert at_once.size == size or 2 * at_once.size > fits
    before = at_once.size
    assert [len(batch) for batch, _ in at_once.batches(items[: before + 1], work)][:1] == (
        [min(before, num)] if num else []
    )


def test_one_item_that_does_not_fit_and_any_other_error_are_raised() -> None:
    tried: list[int] = []

    def work(batch: Sequence[int]) -> None:
        tried.append(len(batch))
        out_of_memory()

    with pytest.raises(torch.OutOfMemoryError):
        list(AtOnce(8, "items").batches(range(8), work))
    assert tried == [8, 4, 2, 1]
    with pytest.raises(ZeroDivisionError):
        list(AtOnce(8, "items").batches(range(8), lambda batch: 1 / 0))


def test_the_next_try_has_the_memory_of_the_last() -> None:
    held: list[weakref.ref[Any]] = []

    def work(batch: Sequence[int]) -> None:
        assert [one() for one in held] == [None] * len(held)
        filled = torch.nn.Linear(2, 2)
        held.append(weakref.ref(filled))
        if len(batch) > 2:
            error = torch.OutOfMemoryError("CUDA out of memory")
            raise error  # a cycle: frame, error, traceback, frame

    gc.disable()
    try:
        assert [len(batch) for batch, _ in AtOnce(8, "items").batches(range(4), work)] == [2, 2]
    finally:
        gc.enable()


def test_it_is_told_once_for_each_halving() -> None:
    def work(batch: Sequence[int]) -> None:
        if len(batch) > 2:
            out_of_memory()

    with pytest.warns(FewerAtOnce) as told:
        list(AtOnce(8, "images").batches(range(20), work))
    assert [str(one.message) for one in told] == [
        "memory ran out with 8 images at once; 4 at once from here on",
        "memory ran out with 4 images at once; 2 at once from here on",
    ]


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (np.linalg.LinAlgError("can't allocate memory"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("x"), False),
    ],
)
def test_what_is_a_lack_of_memory(error: Exception, lacks: bool) -> None:
    assert is_out_of_memory(error) is lacks
    wrapped = BenchError("cannot be read")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped) is lacks
    expected = BenchError if lacks else type(error)
    with pytest.raises(expected) as raised, refusing_out_of_memory(lambda: "take less"):
        raise error
    assert not lacks or str(raised.value) == "take less"
    assert not lacks or not is_out_of_memory(raised.value)  # no smaller batch would help


def test_what_an_error_says_is_one_line() -> None:
    assert said_by(BenchError("a\n  b " + "c" * 999)) == "a b " + "c" * 999
    assert said_by(ValueError("a\n  b " + "c" * 999)) == "ValueError: a b " + "c" * 296 + " ..."
    assert said_by(ValueError()) == "ValueError: no message"


# What draws, decodes and encodes

PROMPTS = tuple(Prompt(f"p/{k}", "p", f"prompt {k}") for k in range(5))


def test_images_do_not_depend_on_where_memory_ran_out() -> None:
    def draw(images: Sequence[Any]) -> torch.Tensor:
        if len(images) > 2:
            out_of_memory()
        levels = [int(image.prompt.prompt_id[-1]) + 10 * image.image_index for image in images]
        return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 2, 2) / 127.5 - 1

    at_once = AtOnce(4, "images")
    drawn = list(iter_drawn(draw, image_ids(PROMPTS, {"p": 2}), at_once))
    assert [len(batch.rows) for batch in drawn] == [2] * 5
    assert at_once.size == 2
    levels = torch.cat([batch.levels for batch in drawn])[:, 0, 0, 0]
    assert levels.tolist() == [0, 10, 1, 11, 2, 12, 3, 13, 4, 14]
    with pytest.raises(BenchError, match="a single image does not fit into the memory of this"):
        list(iter_drawn(out_of_memory, image_ids(PROMPTS, {"p": 2}), at_once))


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tiny_sd15.write_repository(tmp_path_factory.mktemp("sd15"))
    model = Model(repository=str(folder), resolution=RESOLUTION, images_at_once=4)
    return parts_of(model, "unet", ("text_encoder",), ("tokenizer",))


def test_a_decoder_takes_fewer_images_and_never_tiles(
    sd15: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, generator = vae_on(sd15, "cpu"), torch.Generator().manual_seed(0)
    latents = torch.randn(5, 4, 8, 8, generator=generator)
    whole = decode(sd15, AtOnce(8, "images"), latents)
    decoder, sizes = vae.decode, list[int]()

    def narrow(scaled: torch.Tensor, **options: Any) -> Any:
        sizes.append(len(scaled))
        return decoder(scaled, **options) if len(scaled) <= 2 else out_of_memory()

    monkeypatch.setattr(vae, "decode", narrow)
    at_once = AtOnce(8, "images")
    torch.testing.assert_close(decode(sd15, at_once, latents), whole, rtol=1e-5, atol=1e-5)
    assert sizes == [5, 3, 2, 2, 1]
    monkeypatch.setattr(vae, "decode", out_of_memory)
    sentence = "decoding a single image does not fit into the memory of this machine"
    with pytest.raises(BenchError, match=sentence):
        decode(sd15, at_once, latents)


@pytest.mark.parametrize(("resolution", "size"), [(64, 256), (512, 4), (1024, 1), (2048, 1)])
def test_a_decoder_s_memory_is_bounded_by_pixels(resolution: int, size: int) -> None:
    assert decoded_at_once(resolution).size == size
    assert resolution > 1024 or size * resolution**2 <= DECODED_PIXELS


def test_prompts_and_real_images_are_encoded_in_smaller_batches(tmp_path: Path) -> None:
    def encode(prompts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
        if len(prompts) > 5:
            out_of_memory()
        return [{"length": torch.tensor([float(len(prompt))])} for prompt in prompts]

    class Loaded:
        def load_prompt_encoder(self, device: str) -> Any:
            return encode

    store, prompts = Store(tmp_path / "store"), ["x" * k for k in range(40)]
    given: Any = Loaded()
    assert encode_stage._encode_prompts(store, prompts, given, lambda *_: None) == 40
    again = Store(tmp_path / "store").rows(prompts)
    assert [float(row["length"]) for row in again] == list(range(40))

    def read(path: Path) -> torch.Tensor:
        return torch.full((1, 2, 2), float(path.name))

    def to_latents(images: torch.Tensor) -> torch.Tensor:
        return images if len(images) <= 3 else out_of_memory()

    images = [(f"caption {k}", Path(str(k))) for k in range(70)]
    at_once, folder = AtOnce(16, "images"), tmp_path / "latents"
    assert encode_missing(folder, images, read, lambda: to_latents, at_once, lambda *_: None) == 70
    captions, drawn = Latents(folder).draw([torch.Generator().manual_seed(0)] * 50)
    assert [f"caption {int(value)}" for value in drawn[:, 0, 0, 0]] == captions


def test_a_training_that_does_not_fit_says_what_takes_less(
    tmp_path: Path,
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def started(*overrides: str) -> Any:
        suite = load_suite(write_suite(tiny), ["train.num_iterations=4", *overrides])
        plan = make_plan(suite, tmp_path / "runs", tmp_path / "reports")
        return plan, plan.task("train", "ca_only", 0), lambda *_: None

    update = Training.update

    def full(self: Training, iteration: int) -> dict[str, float]:
        return update(self, iteration) if iteration < 4 else out_of_memory()

    monkeypatch.setattr(Training, "update", full)
    given = started()
    checkpoint = given[1].folder / CHECKPOINT
    with pytest.raises(BenchError) as error:
        train(*given)
    assert str(error.value) == (
        f"training does not fit into the memory of this machine (its checkpoint is kept: "
        f"{checkpoint}). End what else fills it and run again to go on, take fewer --workers, or "
        "set train.gradient_checkpointing: true, train.precision: bfloat16, train.optimizer: "
        "adamw_8bit, train.lora_rank (64)"
    )
    monkeypatch.setattr(Training, "update", update)
    going_on: list[int] = []
    train(*given[:2], lambda done, _: going_on.append(done))
    assert going_on == [3, 4]
    # Networks that do not fit at all; only what is not set already is named.
    monkeypatch.setattr(Training, "__init__", out_of_memory)
    with pytest.raises(BenchError, match=r"\(no checkpoint yet\).* or set train\.gradient_ch"):
        train(*started("train.batch_size=4", "train.precision=bfloat16"))


def test_a_backend_bounds_its_decoder_by_its_own_resolution(sd15: Any) -> None:
    from ddmd_bench.backends import BACKENDS

    model = Model(repository=str(sd15.main.repository), resolution=512)
    backend = BACKENDS["sd15"](model)
    assert backend.decode.args[1].size == 4  # type: ignore[attr-defined]
    # One object for a task: what was learnt of the memory is kept while it draws.
    assert replace(backend, images_at_once=1).decode is backend.decode


def test_a_whole_pipeline_s_decoder_is_bounded_alike(sd15: Any) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(sd15.vae_folder())
    for resolution, sliced in ((64, False), (512, False), (1024, True)):
        bound_decoder(SimpleNamespace(vae=vae), resolution)
        assert vae.use_slicing is sliced
    bound_decoder(SimpleNamespace(), 1024)  # one that decodes otherwise


FAULTS = """
import resource
import torch
from ddmd_bench.files.memory import keep_freed_memory

layer, images = torch.nn.ReLU(), torch.zeros(4, 96, 112, 112)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        layer(layer(images))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

left_alone = faults()
keep_freed_memory()
faults()
print(left_alone, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another's")
def test_the_memory_of_a_layer_goes_to_the_next_without_a_page_fault() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    left_alone, kept = map(int, printed.stdout.split())
    assert left_alone > 4 * 96 * 112 * 112 * 4 // resource.getpagesize()  # all images, once
    assert kept < 100
