"""Real images' latents on disk, for a GAN: shards of one source and one VAE, with their captions.

How many images were asked for is not in a folder's name: more go on from what is there, fewer read
the first of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError
from ddmd_bench.files import ranks
from ddmd_bench.files.locks import locked_together
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
            if int(shard.stem) == len(self.captions):  # else one before it was lost
                self.shards.append(shard)
                self.firsts.append(len(self.captions))
                self.captions += record["captions"]
                self.means += record["means"]
                self.variances += record["variances"]
        for values in (self.captions, self.means, self.variances):
            del values[len(values) if num is None else num :]

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
    """Encode what the folder does not hold yet, a shard at a time; how many images that were.

    Ranks deal the shards among themselves, as one rank alone would make them.
    """
    import torch

    if not ranks.told(_missing(folder, images)):
        return 0
    with locked_together(folder):
        missing = ranks.told(_missing(folder, images))  # another may have encoded some meanwhile
        own = ranks.dealt(missing)
        encode = load_encoder() if own else None
        num = sum(map(len, missing))
        done = len(images) - num

        def latents_of(some: Sequence[tuple[str, Path]]) -> Tensor:
            assert encode is not None
            return encode(torch.stack([read(path) for _, path in some])).cpu()

        for rows in own:
            part = [images[k] for k in rows]
            latents = [made for _, made in at_once.batches(part, latents_of)]
            _write(folder, rows.start, [caption for caption, _ in part], torch.cat(latents))
            done += len(rows) * ranks.num()  # the others are as far, or nearly
            progress(min(done, len(images)), len(images))
    return num


def _missing(folder: Path, images: Sequence[tuple[str, Path]]) -> list[range]:
    """The shards that lack, as rows of the images."""
    there = {int(shard.stem): record["captions"] for shard, record in whole_shards(folder, FACTS)}
    missing = list[range]()
    for first in range(len(Latents(folder).captions), len(images), SHARD_SIZE):
        rows = range(first, min(first + SHARD_SIZE, len(images)))
        if there.get(first) != [images[k][0] for k in rows]:  # else one before it was lost
            missing.append(rows)
    return missing


def _write(folder: Path, first: int, captions: Sequence[str], latents: Tensor) -> None:
    """A shard of images, the first of them by its number among all."""
    if not latents.isfinite().all():
        raise BenchError("latents of real images are not finite. Set model.dtype to float32")
    alone = list(latents.double())  # the order of a sum depends on what is summed beside it
    record = {
        "captions": list(captions),
        "means": [float(latent.mean()) for latent in alone],
        "variances": [float(latent.var(correction=0)) for latent in alone],
    }
    write_shard(folder, f"{first:07d}", {"latents": latents.contiguous()}, record)
