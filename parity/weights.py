"""Seeded weights: each tensor is a function of its key and shape alone.

So whoever knows a checkpoint's keys and shapes can make the same checkpoint, without the package
that it is for. All arithmetic is exact in float32: every machine makes the same bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

SEED = 0
Shapes = Mapping[str, tuple[int, ...]]


def seeded(key: str, shape: tuple[int, ...]) -> Tensor:
    """Uniform around 0 with variance 1 / fan-in; around 1 for the scale of a norm; or positions.

    Biases and other vectors have a standard deviation of 0.1: large enough to matter in a score.
    """
    if key.endswith("position_ids"):  # a buffer: what BERT counts its tokens with, [1, n]
        return torch.arange(math.prod(shape)).reshape(shape)
    seed = hashlib.sha256(f"{SEED}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1)
    # 24 random bits: a float32 holds them exactly.
    values = torch.empty(shape).random_(0, 1 << 24, generator=generator)
    values = values.mul_(2.0**-23).sub_(1)  # in [-1, 1), standard deviation 1 / sqrt(3)
    if len(shape) < 2:
        values.mul_(math.sqrt(3) / 10)
        return values.add_(1) if key.endswith("weight") else values
    return values.mul_(math.sqrt(3 / math.prod(shape[1:])))


def checkpoint(shapes: Shapes) -> dict[str, Tensor]:
    """All tensors, in float32."""
    return {key: seeded(key, tuple(shape)) for key, shape in shapes.items()}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """What `checkpoint` needs to know of a state dict."""
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def shapes_sha256(shapes: Shapes) -> str:
    """Of the sorted keys with their shapes: the same where two checkpoints are of one layout."""
    lines = (f"{key} {list(shape)}\n" for key, shape in sorted(shapes.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


Row = tuple[str, list[int], list[int]]  # key with * for the layer's number, shape, the numbers


def fold(shapes: Shapes) -> list[Row]:
    """Layers that differ in their number alone, as one row: a list short enough to be kept."""
    rows: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for key, shape in sorted(shapes.items()):
        parts = key.split(".")
        numbers = [k for k, part in enumerate(parts) if part.isdigit()][:1]
        found = [int(parts[k]) for k in numbers]
        for k in numbers:
            parts[k] = "*"
        rows.setdefault((".".join(parts), tuple(shape)), []).extend(found)
    return [(key, list(shape), sorted(numbers)) for (key, shape), numbers in rows.items()]


def unfold(rows: Iterable[Row]) -> dict[str, tuple[int, ...]]:
    """The shapes that were folded, sorted by key."""
    return dict(
        sorted(
            (key.replace("*", str(number), 1), tuple(shape))
            for key, shape, numbers in rows
            for number in (numbers or [0])
        )
    )
