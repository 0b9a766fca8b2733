"""Features of many real images, in parts that are whole or absent: what was stopped goes on there.

    parts = extract(folder, ["inception"], images, None, "cuda", print)
    features = np.concatenate(list(rows_of(parts["inception"], FEATURES)))

A part is a file of one extractor's features and of the images' sha256, whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.files import ranks
from ddmd_bench.files.arrays import read_npz, whole_npz, write_npz
from ddmd_bench.files.locks import locked_together
from ddmd_bench.measuring.features import whole_features
from ddmd_bench.measuring.measure import scorer_key
from ddmd_bench.measuring.sheets import Item

# Images that are done again at most, and that are in memory at once. Whole chunks of a pass, so
# that no batch, and with it no rounding, depends on where the parts begin.
PART = 1_024
FEATURES, SHA256 = "features", "sha256"

RealImage = tuple[Item, str]  # an image and the sha256 of what it is made of


class Source:
    """Images in their order, read once as long as nothing is left out."""

    def __init__(
        self, images: Callable[[int], Iterator[RealImage]], sha256: Sequence[str] | None = None
    ) -> None:
        """`images` gives those from a position on; `sha256` of all, where that is known before."""
        self.images, self.position, self.sha256 = images, -1, sha256
        self.stream: Iterator[RealImage] = iter(())

    def take(self, first: int, size: int) -> list[RealImage]:
        """So many from a position on, or what there is."""
        if self.position != first:
            self.stream = self.images(first)
        found = list(islice(self.stream, size))
        self.position = first + len(found)
        return found


def extract(
    folder: Path,
    extractors: Sequence[str],
    source: Source,
    num: int | None,
    device: str,
    progress: Callable[[int], None],
) -> dict[str, list[Path]]:
    """Each extractor's parts of the first `num` images, or of all; what is whole stays.

    The folder's name, or the source's sha256, holds what determines the images and their order, and
    one process at a time writes there. The last part of another number ends elsewhere, and is made
    again.
    """
    parts: dict[str, list[Path]] = {name: [] for name in extractors}
    for number in count() if num is None else _numbers(num):
        size = _size(number, num)
        made = _extract_part(folder, extractors, source, number, size, device, progress)
        if made:
            for name in extractors:
                parts[name].append(_path(folder, name, number))
        if made < size:
            break
    return parts


def extract_own(
    folder: Path,
    extractors: Sequence[str],
    source: Source,
    num: int,
    device: str,
    progress: Callable[[int], None],
) -> None:
    """This rank's parts of the first `num` images: when all have theirs, `extract` finds all."""
    with locked_together(folder):
        for number in ranks.dealt(_numbers(num)):
            size = _size(number, num)
            _extract_part(folder, extractors, source, number, size, device, progress)


def _numbers(num_images: int) -> range:
    """Of the parts that hold so many images."""
    return range(-(-num_images // PART))


def _size(number: int, num_images: int | None) -> int:
    """How many images a part has of so many, or of any number."""
    return PART if num_images is None else min(PART, num_images - number * PART)


def _extract_part(
    folder: Path,
    extractors: Sequence[str],
    source: Source,
    number: int,
    size: int,
    device: str,
    progress: Callable[[int], None],
) -> int:
    """One part with each extractor's features; how many images of `size` there are."""
    first = number * PART
    paths = {name: _path(folder, name, number) for name in extractors}
    known = None if source.sha256 is None else source.sha256[first : first + size]
    lacking = [name for name in extractors if not _is_whole(paths[name], size, known)]
    if not lacking:
        return size
    images = source.take(first, size)
    if images:
        told = partial(_tell, progress, first)
        features = whole_features(lacking, [item for item, _ in images], device, told)
        for name in lacking:
            _write(paths[name], features[name], [sha256 for _, sha256 in images])
    return len(images)


def keep(
    folder: Path, extractor: str, features: NDArray[np.float32], sha256: Sequence[str]
) -> None:
    """Make parts of features [n, d] that are known."""
    for number, first in enumerate(range(0, len(features), PART)):
        rows = slice(first, first + PART)
        _write(_path(folder, extractor, number), features[rows], sha256[rows])


def _path(folder: Path, extractor: str, number: int) -> Path:
    """In a folder for each extractor as its weights and code are."""
    return folder / f"{extractor}-{scorer_key(extractor)}" / f"{number:06}.npz"


def _write(path: Path, features: NDArray[np.float32], sha256: Sequence[str]) -> None:
    write_npz(path, {FEATURES: features, SHA256: np.array(sha256)})


def rows_of(parts: Sequence[Path], name: str) -> Iterator[NDArray[Any]]:
    """The rows of each part: `FEATURES` [k, d], or the images' `SHA256` [k]."""
    for path in parts:
        yield read_npz(path)[name]


def _is_whole(path: Path, size: int, sha256: Sequence[str] | None = None) -> bool:
    """Whether a part is of so many images, and of these where it is known which."""
    part = whole_npz(path) or {}
    shapes = [part[name].shape for name in (FEATURES, SHA256) if name in part]
    if [len(shape) for shape in shapes] != [2, 1] or {n for n, *_ in shapes} != {size}:
        return False
    return sha256 is None or part[SHA256].tolist() == list(sha256)


def _tell(progress: Callable[[int], None], before: int, extracted: int) -> None:
    progress(before + extracted)
