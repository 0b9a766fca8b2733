"""Embeddings and latents on disk: what is written once is read back, or what is spoilt is named."""

from __future__ import annotations

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
    captions, latents = Latents(tmp_path).draw(40, torch.Generator().manual_seed(0))
    for caption, latent in zip(captions, latents, strict=True):
        torch.testing.assert_close(latent, to_latents(read(Path(caption.split()[1]))[None])[0])


def test_moments_are_the_mean_of_each_image_s(tmp_path: Path) -> None:
    """Eq. 7's targets: image k has mean k, and all have the variance of the ramp."""
    encode_images(tmp_path, IMAGES, to_latents)
    mean, variance = Latents(tmp_path).moments()
    assert mean == pytest.approx((len(IMAGES) - 1) / 2)
    assert variance == pytest.approx(float(torch.linspace(-1, 1, 16).var(correction=0)))
