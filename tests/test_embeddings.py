"""Embeddings and latents on disk: what is written once is read back, or what is spoilt is named."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddmd_bench.data.latents import SHARD_SIZE, Latents, encode_missing
from ddmd_bench.errors import BenchError
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.memory import AtOnce

CALLS: list[list[str]] = []


def encode(prompts: Sequence[str]) -> list[dict[str, Tensor]]:
    """A row of as many tokens as letters, so that lengths differ."""
    CALLS.append(list(prompts))
    return [{"a": torch.full((len(p), 2), float(len(p))), "b": torch.ones(1)} for p in prompts]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    CALLS.clear()
    made = Store(tmp_path / "store")
    made.add(["one", "three", ""], encode, batch_size=2)
    made.add(["seven.b"], encode, batch_size=2)
    return made


def test_rows_come_in_the_order_asked_for(store: Store) -> None:
    prompts = ["seven.b", "one", "seven.b", ""]
    for opened in (store, Store(store.folder)):
        rows = opened.rows(prompts)
        assert [len(row["a"]) for row in rows] == [7, 3, 7, 0]
        assert all(row.keys() == {"a", "b"} for row in rows)


def test_only_what_is_missing_is_encoded(store: Store) -> None:
    assert CALLS == [["one", "three"], [""], ["seven.b"]]
    assert Store(store.folder).missing(["one", "new", "new", ""]) == ["new"]


def test_a_shard_without_its_record_does_not_count(store: Store) -> None:
    """An interruption between the two writes loses the shard, and nothing else."""
    for record in store.folder.glob("*.json"):
        if "seven.b" in record.read_text():
            record.unlink()
    assert Store(store.folder).missing(["one", "seven.b"]) == ["seven.b"]


def test_a_cut_shard_is_named(store: Store) -> None:
    shard = store.places["one"][0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BenchError, match=r"expected \d+ bytes, found \d+ bytes"):
        Store(store.folder)


def test_a_changed_byte_is_found(store: Store) -> None:
    store.verify()
    shard = store.places["one"][0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BenchError, match="its sha256 is"):
        Store(store.folder).verify()


def test_a_prompt_that_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(BenchError, match=r"1 prompts have no embedding, e\.g\. 'two'"):
        store.rows(["one", "two"])


def test_an_embedding_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="a of prompt 'x' is not finite"):
        Store(tmp_path).add(["x"], lambda p: [{"a": torch.tensor([torch.nan])}], 1)
    assert not list(tmp_path.iterdir())


IMAGES = [(f"caption {k}", Path(str(k))) for k in range(SHARD_SIZE + 6)]


def read(path: Path) -> Tensor:
    return torch.full((3, 4, 4), float(str(path)))


def to_latents(images: Tensor) -> Tensor:
    return images[:, :1] + torch.linspace(-1, 1, 16).view(1, 1, 4, 4)


def encode_images(
    folder: Path,
    images: list[tuple[str, Path]],
    encode: Callable[[Tensor], Tensor],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    return encode_missing(folder, images, read, lambda: encode, AtOnce(10, "images"), progress)


def test_latents_go_on_where_they_stopped(tmp_path: Path) -> None:
    def interrupted(images: Tensor) -> Tensor:
        if images[0, 0, 0, 0] >= SHARD_SIZE:
            raise KeyboardInterrupt
        return to_latents(images)

    with pytest.raises(KeyboardInterrupt):
        encode_images(tmp_path, IMAGES, interrupted)
    seen: list[int] = []
    encode_images(tmp_path, IMAGES, to_latents, lambda d, t: seen.append(d))
    assert seen == [len(IMAGES)]
    captions, latents = Latents(tmp_path).draw([torch.Generator().manual_seed(0)] * 40)
    for caption, latent in zip(captions, latents, strict=True):
        torch.testing.assert_close(latent, to_latents(read(Path(caption.split()[1]))[None])[0])


def test_moments_are_the_mean_of_each_image_s(tmp_path: Path) -> None:
    """Eq. 7's targets: image k has mean k, and all have the variance of the ramp."""
    encode_images(tmp_path, IMAGES, to_latents)
    mean, variance = Latents(tmp_path).moments()
    assert mean == pytest.approx((len(IMAGES) - 1) / 2)
    assert variance == pytest.approx(float(torch.linspace(-1, 1, 16).var(correction=0)))


def test_more_images_go_on_and_fewer_read_the_first(tmp_path: Path) -> None:
    """From within a shard; images, moments and draws are those of one pass over as many."""
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert [encode_images(parts, IMAGES[:n], to_latents) for n in (5, 70, 70, 3)] == [5, 65, 0, 0]
    assert encode_images(whole, IMAGES, to_latents) == len(IMAGES)
    for num in (5, len(IMAGES)):
        found, expected = Latents(parts, num), Latents(whole, num)
        assert found.captions == expected.captions == [caption for caption, _ in IMAGES[:num]]
        assert found.moments() == expected.moments()
        draws = [of.draw([torch.Generator().manual_seed(1)] * 9) for of in (found, expected)]
        assert draws[0][0] == draws[1][0]
        assert torch.equal(draws[0][1], draws[1][1])


def test_a_lost_shard_is_encoded_again(tmp_path: Path) -> None:
    encode_images(tmp_path, IMAGES, to_latents)
    min(tmp_path.glob("*.safetensors")).unlink()
    assert Latents(tmp_path).captions == []
    assert encode_images(tmp_path, IMAGES, to_latents) == SHARD_SIZE  # what came after it stays
    assert len(Latents(tmp_path).captions) == len(IMAGES)


WRITING = """
import json, sys, time
from pathlib import Path
import torch
from ddmd_bench.data.latents import encode_missing
from ddmd_bench.files.embeddings import Store
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.stages.encode import _encode_prompts

class Encoders:
    def load_prompt_encoder(self, device):
        return encode

def encode(prompts):
    time.sleep(0.1)
    return [{"length": torch.tensor([float(len(prompt))])} for prompt in prompts]

def to_latents(images):
    time.sleep(0.1)
    return images

def quiet(*_):
    pass

folder, prompts = Path(sys.argv[1]), [f"prompt {k}" for k in range(70)]
images = [(prompt, Path(str(k))) for k, prompt in enumerate(prompts)]
read = lambda path: torch.full((1, 2, 2), float(path.name))
print(_encode_prompts(Store(folder / "prompts"), prompts, Encoders(), quiet))
print(encode_missing(
    folder / "images", images, read, lambda: to_latents, AtOnce(32, "images"), quiet
))
"""


@pytest.mark.long
def test_two_processes_at_once_leave_what_one_would(tmp_path: Path) -> None:
    one, both = tmp_path / "one", tmp_path / "both"
    command = [sys.executable, "-c", WRITING]
    running = [
        subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True)
        for folder in (one, both, both)
    ]
    said = [process.communicate()[0].split() for process in running]
    assert said[0] == ["70", "70"]
    assert [sorted(numbers) for numbers in zip(*said[1:], strict=True)] == [["0", "70"]] * 2
    assert contents(both) == contents(one)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
