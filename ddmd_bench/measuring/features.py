"""Features alone, of images none of which may lack them: what real images are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.measuring.one_pass import CHUNK_SIZE, OnePass
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.measuring.turns import turns

if TYPE_CHECKING:
    from PIL.Image import Image


def features_of(
    pictures: Sequence[Image], prompts: Sequence[str], extractors: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Features [n, d] of images in memory by extractor, none of them missing."""
    items = [
        Item.in_memory(f"image {k} of prompt {prompt!r}", prompt, picture)
        for k, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True))
    ]
    return whole_features(extractors, items)


def whole_features(
    extractors: Sequence[str],
    items: Sequence[Item],
    device: str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, NDArray[np.float32]]:
    """Features [n, d] by extractor; an image without any is an error that names it."""
    found: dict[str, NDArray[np.float32]] = {}
    for one_pass in turns(extractors, device):
        found |= _features(one_pass, items, progress)
    return {name: found[name] for name in extractors}


def _features(
    one_pass: OnePass, items: Sequence[Item], progress: Callable[[int], None]
) -> dict[str, NDArray[np.float32]]:
    chunks = [items[k : k + CHUNK_SIZE] for k in range(0, len(items), CHUNK_SIZE)]
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in one_pass.models}
    done = 0
    for chunk, answers in zip(chunks, one_pass.over(chunks), strict=True):
        for name, answer in answers.items():
            if answer.missing:
                row, reason = next(iter(answer.missing.items()))
                raise BenchError(f"{chunk[row].name}: {reason} (scorer {name})")
            assert answer.features is not None, f"{name} extracts features"
            found[name].append(answer.features)
        done += len(chunk)
        progress(done)
    whole = {name: parts for name, parts in found.items() if name not in one_pass.set_aside}
    return {name: np.concatenate(parts) for name, parts in whole.items()}
