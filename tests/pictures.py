"""Pictures to score, and a scorer with seeded weights asked about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddmd_bench.scorers import ScorerModel


def picture(seed: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Noise of 11 x 9 px, enlarged; the alpha channel is noise as well."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise, "RGBA").resize(size, Image.Resampling.BILINEAR)
    return rgba.convert("RGB").quantize(16) if mode == "P" else rgba.convert(mode)


def scores(model: ScorerModel, images: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
    """The one column [n] of a scorer, in one batch."""
    inputs = torch.stack([model.preprocess(image) for image in images])
    (column,) = model.score_batch(inputs, model.encode_prompts(prompts)).columns.values()
    return column


def scores_alone(
    model: ScorerModel, images: Sequence[Image.Image], prompts: Sequence[str]
) -> list[float]:
    """The same, each image in a batch of its own."""
    pairs = zip(images, prompts, strict=True)
    return [scores(model, [image], [prompt]).item() for image, prompt in pairs]


def seeded_weights(
    shapes: Mapping[str, tuple[int, ...]], scale: Callable[[str], float]
) -> dict[str, Tensor]:
    """Random weights of a size by key; those of normalisations lie about 1."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        state[key] = torch.randn(shape, generator=generator) * scale(key)
        if "norm" in key.lower() and key.endswith("weight"):
            state[key] += 1
    return state


class Code:
    """What a pickle must not hold: something to call when it is read."""

    def __reduce__(self) -> Any:
        return print, ("code of the file was run",)
