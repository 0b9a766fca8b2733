"""Real images' latents on disk, for a GAN: shards of one source and one VAE, with their captions.

How many images were asked for is not in a folder's name: more go on from what is there, fewer read
the first of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.locks import locked
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.files.shards import open_shard, whole_shards, write_shard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FACTS = {"captions": [str], "means": [float], "variances": [float]}  # of a shard's images
SHARD_SIZE = 64  # images at most; 17 MB of SDXL's latents at 1024 pixels
Encode = Callable[["Tensor"], "Tensor"]


class Latents:
    """The first `num` latents [n, C, h, w] of a folder with their captions, or all."""

    def __init__(self, folder: Path, num: int | None = None) -> None:
        self.folder = folder
        self.captions: list[str] = []
        self.means: list[float] = []  # of each image, and so its variance
        self.variances: list[float] = []
        self.shards: list[Path] = []
        self.firsts: list[int] = []  # each shard's first image
        for shard, record in whole_shards(folder, FACTS):
            self._note(shard, record)
        for values in (self.captions, self.means, self.variances):
            del values[len(values) if num is None else num :]

    def _note(self, shard: Path, record: Mapping[str, Any]) -> None:
        if int(shard.stem) != len(self.captions):
            return  # one before it was lost
        self.shards.append(shard)
        self.firsts.append(len(self.captions))
        self.captions += record["captions"]
        self.means += record["means"]
        self.variances += record["variances"]

    def add(self, captions: Sequence[str], latents: Tensor) -> None:
        """One more shard."""
        if not latents.isfinite().all():
            raise BenchError("latents of real images are not finite. Set model.dtype to float32")
        alone = list(latents.double())  # the order of a sum depends on what is summed beside it
        record = {
            "captions": list(captions),
            "means": [float(latent.mean()) for latent in alone],
            "variances": [float(latent.var(correction=0)) for latent in alone],
        }
        shard = write_shard(
            self.folder, f"{len(self.captions):07d}", {"latents": latents.contiguous()}, record
        )
        self._note(shard, record)

    def moments(self) -> tuple[float, float]:
        """Mean of the images' means and of their variances: the targets of Eq. 7."""
        if not self.captions:
            raise BenchError(
                f"{self.folder}: no latents of real images. Delete the run's encode folder and run "
                "again"
            )
        # Exact sums: the same however the images were divided into shards.
        mean, variance = (math.fsum(v) / len(v) for v in (self.means, self.variances))
        return mean, variance

    def draw(self, generators: Sequence[torch.Generator]) -> tuple[list[str], Tensor]:
        """Captions and latents [B, C, h, w], one image of each generator, with replacement."""
        import torch

        num = len(self.captions)
        chosen = [int(torch.randint(num, (), generator=generator)) for generator in generators]
        rows = []
        for k in chosen:
            place = bisect_right(self.firsts, k) - 1
            with open_shard(self.shards[place]) as file:
                rows.append(file.get_slice("latents")[k - self.firsts[place]])
        return [self.captions[k] for k in chosen], torch.stack(rows)


def encode_missing(
    folder: Path,
    images: Sequence[tuple[str, Path]],
    read: Callable[[Path], Tensor],
    load_encoder: Callable[[], Encode],
    at_once: AtOnce,
    progress: Callable[[int, int], None],
) -> int:
    """Encode what the folder does not hold yet, a shard at a time; how many images that were."""
    import torch

    if len(Latents(folder).captions) >= len(images):
        return 0
    with locked(folder):
        store = Latents(folder)  # another may have encoded them meanwhile
        left = images[len(store.captions) :]
        if not left:
            return 0
        encode = load_encoder()

        def latents_of(some: Sequence[tuple[str, Path]]) -> Tensor:
            return encode(torch.stack([read(path) for _, path in some])).cpu()

        for first in range(0, len(left), SHARD_SIZE):
            part = left[first : first + SHARD_SIZE]
            latents = [made for _, made in at_once.batches(part, latents_of)]
            store.add([caption for caption, _ in part], torch.cat(latents))
            progress(len(store.captions), len(images))
    return len(left)
