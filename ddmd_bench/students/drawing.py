"""Drawing images: a few-step network's for any list of images, and the real ones of the reference.

The generate stage and the evaluation of a student in training share it, so that both draw the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.data.images import ImageId, image_generator, image_noises, quantised
from ddmd_bench.errors import BenchError
from ddmd_bench.files.device import memory_shown
from ddmd_bench.files.memory import AtOnce, refusing_out_of_memory
from ddmd_bench.objective.sampler import few_step_sample
from ddmd_bench.objective.terms import Cond, Denoise

DrawReal = Callable[[str, torch.Generator], Tensor]  # a prompt's image [3, H, W] in [-1, 1]
DrawImages = Callable[[Sequence[ImageId]], Tensor]  # -> images [B, 3, H, W], [-1, 1] and beyond


class DrawnImages(NamedTuple):
    """A batch of images as the network made them, in 8 bits."""

    rows: list[dict[str, Any]]  # prompt, index and share of values out of range of each image
    levels: Tensor  # uint8 [B, 3, H, W] on the CPU
    seconds: float


def conditioning(backend: Backend, prompts: Sequence[str], device: str) -> Cond:
    """The prompts' conditioning on the device."""
    return {k: v.to(device) for k, v in backend.encode_prompts(prompts).items()}


def few_step_draw(
    student: Denoise, backend: Backend, t_list: Sequence[float], seed: int, device: str
) -> DrawImages:
    """How a few-step student draws images, with the noises that belong to each image."""

    def draw(images: Sequence[ImageId]) -> Tensor:
        noises = image_noises(seed, images, len(t_list), backend.latent_shape)
        noises = [noise.to(device) for noise in noises]
        cond = conditioning(backend, [i.prompt.text for i in images], device)
        return backend.decode(few_step_sample(student, t_list, cond, noises, backend.level))

    return draw


def iter_drawn(
    draw: DrawImages, images: Sequence[ImageId], at_once: AtOnce
) -> Iterator[DrawnImages]:
    """Draw the images in batches, smaller ones where memory runs out: the same but for rounding.

    Values that are not finite, and an image that does not fit into memory alone, are errors.
    """

    def timed(batch: Sequence[ImageId]) -> tuple[Tensor, list[float], float]:
        start = time.perf_counter()
        levels, beyond = _in_8_bits(draw(batch))
        return levels, beyond, time.perf_counter() - start

    with refusing_out_of_memory(_too_large):
        for batch, (levels, beyond, seconds) in at_once.batches(images, timed):
            rows = [_row(image, share) for image, share in zip(batch, beyond, strict=True)]
            yield DrawnImages(rows, levels, seconds)


def _in_8_bits(pixels: Tensor) -> tuple[Tensor, list[float]]:
    """Levels on the CPU, and each image's share of values outside [-1, 1].

    Both are made on the device: a quarter of the bytes leave it, once.
    """
    pixels = pixels.float()
    finite = pixels.isfinite().all()
    beyond = (pixels.abs() > 1).flatten(1).sum(1)
    levels = quantised(pixels).cpu()
    if not finite:
        raise BenchError("its images hold values that are not finite")
    return levels, [num / pixels[0].numel() for num in beyond.tolist()]


def _too_large() -> str:
    return (
        f"drawing a single image does not fit into the memory of {memory_shown()}. End what else "
        "fills it, take fewer --workers, set model.dtype to bfloat16, or lower the resolution"
    )


def _row(image: ImageId, out_of_range: float) -> dict[str, Any]:
    return {
        "prompt_id": image.prompt.prompt_id,
        "prompt_set": image.prompt.prompt_set,
        "prompt": image.prompt.text,
        "image_index": image.image_index,
        # Of the values as they were drawn: a file holds clipped ones only.
        "out_of_range": out_of_range,
    }


def draw_reference(draw_real: DrawReal, image: ImageId) -> Tensor:
    """A real image that distributions compare with, uint8 [3, H, W], the same for every seed."""
    # 'reference' stands in for the suite's seed: never the scenes of the `real` row.
    drawn = draw_real(image.prompt.text, image_generator("reference", image))
    # Quantised, so that both sides of a distance went through 8 bits.
    return quantised(drawn)
