"""Whole pipelines of diffusers as students: how their images are drawn."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddmd_bench.backends.pipelines import bound_decoder
from ddmd_bench.backends.schedulers import new_scheduler, quiet, with_generators
from ddmd_bench.data.images import ImageId, image_generator
from ddmd_bench.errors import BenchError
from ddmd_bench.students.catalogue import StudentWeights
from ddmd_bench.students.checkpoints import load_whole_pipeline, lora_paths
from ddmd_bench.students.drawing import DrawImages
from ddmd_bench.students.pipeline_calls import call_options, read_files
from ddmd_bench.students.pipeline_loras import fuse_into_pipeline


class PipelineDraw(NamedTuple):
    """Draws images of a batch; whether they come clipped; the class that samples."""

    draw: DrawImages
    clipped: bool
    scheduler: str


def pipeline_draw(row: StudentWeights, seed: int, dtype: torch.dtype, device: str) -> PipelineDraw:
    """How a whole pipeline draws images.

    Each image's generator gives its initial noise, and then all that its scheduler draws.
    """
    files, sampling = read_files(row), row.sampling
    assert files is not None, "downloads are here before anything is drawn"
    options = call_options(row, files)
    pipeline = load_whole_pipeline(row, dtype)
    fuse_into_pipeline(pipeline, lora_paths(row))
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    assert row.resolution is not None, "the plan gives it"
    bound_decoder(pipeline, row.resolution)
    scheduler = pipeline.scheduler
    if sampling.scheduler != "own":
        # With what the pipeline itself sets in its own; the class is no part of that.
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        scheduler = new_scheduler(sampling.scheduler, config)
    clipped = not _unclipped(pipeline)
    guided = options.get("true_cfg_scale", 1) != 1

    def draw(images: Sequence[ImageId]) -> Tensor:
        generators = [image_generator(seed, image) for image in images]
        # A scheduler keeps its place: a new one for each batch.
        pipeline.scheduler = with_generators(copy.deepcopy(scheduler), generators)
        # Pipelines with true_cfg_scale are guided only where a negative prompt is given.
        uncond = {"negative_prompt": [""] * len(images)} if guided else {}
        prompts = [image.prompt.text for image in images]
        with quiet(scheduler):
            result = pipeline(prompt=prompts, generator=generators, **options, **uncond)
        pixels: Tensor = result.images.float()
        if pixels.shape[-2:] != (row.resolution, row.resolution):
            raise BenchError(
                f"{row.title}: asked for {row.resolution} x {row.resolution} pixels, its pipeline "
                f"draws {pixels.shape[-2]} x {pixels.shape[-1]}; set resolution to what it can draw"
            )
        return pixels * 2 - 1 if clipped else pixels

    return PipelineDraw(draw, clipped, type(scheduler).__name__)


def _unclipped(pipeline: Any) -> bool:
    """Let images through as the VAE gives them, in [-1, 1] and beyond, where diffusers clips them.

    So they are rounded to 8 bits as those of all students are, and what was clipped is counted.
    """
    processor: Any = getattr(pipeline, "image_processor", None)
    if not hasattr(processor, "denormalize"):
        return False
    processor.denormalize = lambda images: images
    return True
