"""Real images' latents on disk, for a GAN: shards of one encode stage, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.files.records import read_json, write_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARD_SIZE = 64  # images; 17 MB of SDXL's latents at 1024 pixels


class Latents:
    """Latents [n, C, h, w] with n captions, in the order of their source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.captions: list[str] = []
        self.sums: list[tuple[float, float]] = []  # of each image's mean, and of its variance
        for k in range(len(list(folder.glob("*.json")))):
            record = read_json(self._shard(k).with_suffix(".json"))
            if not self._shard(k).is_file():
                raise BenchError(f"{self._shard(k)} is missing. Delete {folder} and run again")
            self.captions += record["captions"]
            self.sums.append((record["sum_of_means"], record["sum_of_variances"]))

    def _shard(self, k: int) -> Path:
        return self.folder / f"{k:05d}.safetensors"

    def add(self, captions: Sequence[str], latents: Tensor) -> None:
        """One more shard; all but the last hold `SHARD_SIZE` images."""
        from safetensors.torch import save_file

        if not latents.isfinite().all():
            raise BenchError("latents of real images are not finite. Set model.dtype to float32")
        self.folder.mkdir(parents=True, exist_ok=True)
        shard = self._shard(len(self.sums))
        save_file({"latents": latents.contiguous()}, shard)
        values = latents.double().flatten(1)
        sums = float(values.mean(1).sum()), float(values.var(1, correction=0).sum())
        record = {"captions": list(captions), "sum_of_means": sums[0], "sum_of_variances": sums[1]}
        write_json(shard.with_suffix(".json"), record)  # last: it marks the shard as whole
        self.captions += captions
        self.sums.append(sums)

    def moments(self) -> tuple[float, float]:
        """Mean of the images' means and of their variances: the targets of Eq. 7."""
        totals = [sum(one[side] for one in self.sums) for side in (0, 1)]
        return totals[0] / len(self.captions), totals[1] / len(self.captions)

    def draw(self, generators: Sequence[torch.Generator]) -> tuple[list[str], Tensor]:
        """Captions and latents [B, C, h, w], one image of each generator, with replacement."""
        import torch
        from safetensors import safe_open

        num = len(self.captions)
        chosen = [int(torch.randint(num, (), generator=generator)) for generator in generators]
        rows = []
        for k in chosen:
            with safe_open(self._shard(k // SHARD_SIZE), framework="pt") as file:
                rows.append(file.get_slice("latents")[k % SHARD_SIZE])
        return [self.captions[k] for k in chosen], torch.stack(rows)


def encode_missing(
    store: Latents,
    images: Sequence[tuple[str, Path]],
    read: Callable[[Path], Tensor],
    encode: Callable[[Tensor], Tensor],
    at_once: AtOnce,
    progress: Callable[[int, int], None],
) -> None:
    """Encode what the store does not hold yet, a shard at a time."""
    import torch

    def latents_of(some: Sequence[tuple[str, Path]]) -> Tensor:
        return encode(torch.stack([read(path) for _, path in some])).cpu()

    for first in range(len(store.captions), len(images), SHARD_SIZE):
        part = images[first : first + SHARD_SIZE]
        latents = [made for _, made in at_once.batches(part, latents_of)]
        store.add([caption for caption, _ in part], torch.cat(latents))
        progress(first + len(part), len(images))
