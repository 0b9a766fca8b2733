"""Images that no metric should be asked about: black, of one colour, repeated."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddmd_bench.files.decoding import Undecodable, upright

NEARLY = 8  # of 255: so far the channels of an image of one colour may reach


class Defects(NamedTuple):
    """Names of a student's image files by what is wrong with them."""

    num: int
    found: dict[str, list[str]]


def defects_of(paths: Iterable[Path]) -> Defects:
    """Every image is decoded; `repeated` are files that are the same as one before them."""
    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, paths))
    found: dict[str, list[str]] = {"black": [], "of one colour": [], "broken": []}
    seen: Counter[str] = Counter()
    repeated = []
    for path, (kind, digest) in zip(paths, looks, strict=True):
        if kind:
            found[kind].append(path.name)
        elif seen[digest]:
            repeated.append(path.name)
        seen[digest] += 1
    return Defects(len(paths), {**found, "repeated": repeated})


def _look(path: Path) -> tuple[str, str]:
    try:
        image = upright(path).convert("RGB")
    except Undecodable:
        return "broken", ""
    pixels = np.asarray(image)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if pixels.max() <= NEARLY:
        return "black", digest
    return ("of one colour" if np.ptp(pixels, (0, 1)).max() <= NEARLY else ""), digest
