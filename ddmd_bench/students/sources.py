"""How the images of each kind of student come about: `SOURCES`, one function a kind.

Each returns an `ImageSource` that draws any list of images; an image's noise is its own, whatever
the student, so that all students start from the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend, twice_guided
from ddmd_bench.backends.schedulers import class_of, make_scheduler
from ddmd_bench.data.image_folders import read_image, read_listing
from ddmd_bench.data.images import ImageId, image_generator
from ddmd_bench.files.made import anew, require_made
from ddmd_bench.files.tensors import read_safetensors
from ddmd_bench.objective.process import guided
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.students.catalogue import PIPELINE, StudentWeights
from ddmd_bench.students.checkpoints import load_network
from ddmd_bench.students.drawing import DrawImages, conditioning, few_step_draw
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.pipelines import pipeline_draw
from ddmd_bench.students.seeded import SeededStudent, weights_file


class ImageSource(NamedTuple):
    """Draws images of a batch, and what one image costs."""

    draw: DrawImages
    num_inference_steps: int
    network_evaluations: int
    clipped: bool = False  # whether what left the range of an image was lost before we saw it
    sampled: str = ""  # how, for people; '' where nothing is sampled


def _ready(network: nn.Module, backend: Backend, device: str) -> nn.Module:
    """On the device, in the dtype that the suite samples in."""
    return network.to(device, getattr(torch, backend.dtype))


def trained_weights(student: SeededStudent) -> dict[str, Tensor]:
    """The tensors that the student's training left for it."""
    path = weights_file(student)
    require_made(path.parent, [path.name])
    return read_safetensors(path, anew(path.parent))


def _trained(student: SeededStudent, backend: Backend, device: str) -> ImageSource:
    assert student.settings is not None
    state, t_list = trained_weights(student), student.settings.t_list
    network = load_student(backend, student.settings, state, device)
    draw = few_step_draw(network, backend, t_list, student.seed, device)
    sampled = f"x0 and re-noising, t {', '.join(map(str, t_list))}, no guidance"
    sampled += ", best weights" if student.row.weights == "best" else ""
    return ImageSource(draw, len(t_list), len(t_list), sampled=sampled)


def _teacher(student: SeededStudent, backend: Backend, device: str) -> ImageSource:
    row = student.row
    num_steps, scale, options = row.num_inference_steps, row.guidance_scale, row.teacher_options()
    assert num_steps is not None
    assert scale is not None
    teacher = _ready(backend.load_teacher(), backend, device)

    def draw(images: Sequence[ImageId]) -> Tensor:
        generators, noise = own_noise(student.seed, images, backend.latent_shape)
        cond = conditioning(backend, [i.prompt.text for i in images], device)
        uncond = conditioning(backend, [""] * len(images), device)
        latents = backend.sample_teacher(
            teacher, num_steps, scale, cond, uncond, noise.to(device), generators, **options
        )
        return backend.decode(latents)

    sampled = ", ".join(
        [f"its own sampling, {num_steps} steps, guidance {scale:g}"]
        + [f"{option} {value}" for option, value in options.items()]
    )
    evaluations = backend.teacher_evaluations(num_steps, scale, **options)
    return ImageSource(draw, num_steps, evaluations, sampled=sampled)


def _loaded(student: SeededStudent, backend: Backend, device: str) -> ImageSource:
    row = student.loaded
    assert row is not None
    make = _of_pipeline if row.format == PIPELINE else _of_weights
    return make(row, student.seed, backend, device)


def _of_weights(row: StudentWeights, seed: int, backend: Backend, device: str) -> ImageSource:
    """A published network in the backend's own frame, under the scheduler that its row names."""
    assert backend.scheduler_config is not None
    sampling, scale = row.sampling, row.sampling.guidance_scale
    num_steps, config = sampling.num_inference_steps, backend.scheduler_config()
    network: Any = _ready(load_network(row, backend), backend, device)
    embedded = sampling.embedded_guidance_scale
    told = {} if embedded is None else {"embedded_guidance_scale": embedded}
    levels = sampling.timesteps, sampling.sigmas

    def draw(images: Sequence[ImageId]) -> Tensor:
        generators, noise = own_noise(seed, images, backend.latent_shape)
        texts = [i.prompt.text for i in images]
        cond, uncond = (
            conditioning(backend, prompts, device) for prompts in (texts, [""] * len(images))
        )
        # diffusers' schedulers keep their place: a new one for each batch.
        scheduler = make_scheduler(sampling.scheduler, config, num_steps, *levels)
        scheduler.timesteps = scheduler.timesteps.to(device)

        def predict(x: Tensor, timestep: Tensor, k: int) -> Tensor:
            predicted: Tensor = network.predict(x, timestep, cond, **told)
            if scale == 1:
                return predicted
            return guided(network.predict(x, timestep, uncond, **told), predicted, scale)

        return backend.decode(scheduler_sample(predict, scheduler, noise.to(device), generators))

    sampled = sampling.words(class_of(sampling.scheduler, config))
    return ImageSource(draw, num_steps, twice_guided(num_steps, scale), sampled=sampled)


def own_noise(
    seed: int, images: Sequence[ImageId], shape: tuple[int, int, int]
) -> tuple[list[torch.Generator], Tensor]:
    """Each image's generator and the initial noise [B, C, H, W] that it gave first."""
    generators = [image_generator(seed, image) for image in images]
    return generators, torch.stack([torch.randn(shape, generator=g) for g in generators])


def _of_pipeline(row: StudentWeights, seed: int, backend: Backend, device: str) -> ImageSource:
    """A whole pipeline, called as diffusers' users call it."""
    drawn = pipeline_draw(row, seed, getattr(torch, backend.dtype), device)
    sampling = row.sampling
    num_steps = sampling.num_inference_steps
    evaluations = twice_guided(num_steps, sampling.guidance_scale)
    sampled = sampling.words(drawn.scheduler)
    return ImageSource(drawn.draw, num_steps, evaluations, drawn.clipped, sampled)


def _images(student: SeededStudent, backend: Backend, device: str) -> ImageSource:
    folder = Path(student.row.images or "")
    files = read_listing(folder, student.prompts, student.images_per_prompt)

    def draw(images: Sequence[ImageId]) -> Tensor:
        pixels = [read_image(files[i.prompt.prompt_id, i.image_index]) for i in images]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1

    return ImageSource(draw, 0, 0, clipped=True)


def _real(student: SeededStudent, backend: Backend, device: str) -> ImageSource:
    assert backend.draw_real is not None
    draw_real, seed = backend.draw_real, student.seed

    def draw(images: Sequence[ImageId]) -> Tensor:
        return torch.stack([draw_real(i.prompt.text, image_generator(seed, i)) for i in images])

    return ImageSource(draw, 0, 0)


SOURCES: Mapping[str, Callable[[SeededStudent, Backend, str], ImageSource]] = {
    "train": _trained,
    "teacher": _teacher,
    "published": _loaded,
    "checkpoint": _loaded,
    "images": _images,
    "real": _real,
}
