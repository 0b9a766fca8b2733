"""Features of many real images, in parts that are whole or absent: what was stopped goes on there.

    parts = extract(folder, ["inception"], images, None, "cuda", print)
    features = np.concatenate([*of_parts(parts, "inception")])

A part is a file of features and of the images' sha256, whoever made it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.files.arrays import read_npz, write_npz
from ddmd_bench.measuring.features import whole_features
from ddmd_bench.measuring.sheets import Item

# Images that are done again at most, and that are in memory at once. Whole chunks of a pass, so
# that no batch, and with it no rounding, depends on where the parts begin.
PART = 1_024
SHA256 = "sha256"

RealImage = tuple[Item, str]  # an image and the sha256 of what it is made of


def extract(
    folder: Path,
    extractors: Sequence[str],
    images: Callable[[int], Iterator[RealImage]],
    num: int | None,
    device: str,
    progress: Callable[[int], None],
) -> list[Path]:
    """The parts, in order, of the first `num` images or of all; those in the folder stay.

    `images` gives images from a position on. The folder's name holds all that determines them and
    their features, and one process at a time writes there.
    """
    parts = list(_whole_parts(folder, extractors, num))
    done = len(parts) * PART if num is None else min(len(parts) * PART, num)
    left = islice(images(done), None if num is None else num - done)
    while some := list(islice(left, PART)):
        features = whole_features(
            extractors,
            [item for item, _ in some],
            device,
            partial(_tell, progress, done),
        )
        parts.append(folder / _name(len(parts)))
        write_npz(parts[-1], {**features, SHA256: np.array([sha256 for _, sha256 in some])})
        done += len(some)
    return parts


def of_parts(parts: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    """The rows of each part: an extractor's features [k, d], or the images' sha256 [k]."""
    for path in parts:
        part = read_npz(path)
        assert part is not None, f"{path} was whole"
        yield part[name]


def images_sha256(parts: Sequence[Path]) -> str:
    """sha256 of the images' own, in order."""
    digests = [digest for part in of_parts(parts, SHA256) for digest in part]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _tell(progress: Callable[[int], None], before: int, extracted: int) -> None:
    progress(before + extracted)


def _name(number: int) -> str:
    return f"{number:06}.npz"


def _whole_parts(folder: Path, extractors: Sequence[str], num: int | None) -> Iterator[Path]:
    """From the first on, those that are as long as they will be.

    The last one of another number of images ends elsewhere, and is made again.
    """
    for number in count():
        size = PART if num is None else min(PART, num - number * PART)
        part = read_npz(path := folder / _name(number)) if size > 0 else None
        if part is None or any(len(part.get(n, ())) != size for n in (*extractors, SHA256)):
            return
        yield path
