"""Draw every image of a student: the same prompts with the same noise for all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.images import ImageId, image_generator, image_ids, image_noises, save_png
from ddmd_bench.provenance import provenance
from ddmd_bench.records import mark_done, write_jsonl
from ddmd_bench.sampling import Draw, conditioning, few_step_draw, iter_drawn
from ddmd_bench.training.networks import load_student
from ddmd_bench.world import open_backend

if TYPE_CHECKING:
    from ddmd_bench.plan import Plan, Task


class Sampler(NamedTuple):
    """Draws images of a batch, and what one image costs."""

    draw: Draw
    num_inference_steps: int
    network_evaluations: int


def _trained(plan: Plan, task: Task, backend: Backend, device: str) -> Sampler:
    from safetensors.torch import load_file

    trained = plan.task("train", task.student, task.seed)
    if not trained.complete():
        raise BenchError(f"{task.label} is not trained yet. Run the train stage first")
    settings = plan.suite.train_settings(task.student)
    state = load_file(trained.folder / "student.safetensors")
    student, t_list = load_student(backend, settings, state, device), settings.t_list
    draw = few_step_draw(student, backend, t_list, task.seed, device)
    return Sampler(draw, len(t_list), len(t_list))


def _teacher(plan: Plan, task: Task, backend: Backend, device: str) -> Sampler:
    row = plan.suite.students[task.student]
    num_steps, scale = row.num_inference_steps, row.guidance_scale
    assert num_steps is not None
    assert scale is not None
    options = row.teacher_options()
    teacher = backend.load_teacher().to(device)

    def draw(images: Sequence[ImageId]) -> Tensor:
        (noise,) = image_noises(task.seed, images, 1, backend.latent_shape)
        cond = conditioning(backend, [i.prompt.text for i in images], device)
        uncond = conditioning(backend, [""] * len(images), device)
        latents = backend.sample_teacher(
            teacher, num_steps, scale, cond, uncond, noise.to(device), **options
        )
        return backend.decode(latents)

    return Sampler(draw, num_steps, num_steps * (1 if scale == 1 else 2))


def _real(plan: Plan, task: Task, backend: Backend, device: str) -> Sampler:
    assert backend.draw_real is not None
    draw_real, seed = backend.draw_real, task.seed

    def draw(images: Sequence[ImageId]) -> Tensor:
        return torch.stack([draw_real(i.prompt.text, image_generator(seed, i)) for i in images])

    return Sampler(draw, 0, 0)


SOURCES: dict[str, Callable[[Plan, Task, Backend, str], Sampler]] = {
    "train": _trained,
    "teacher": _teacher,
    "real": _real,
}


@torch.no_grad()
def generate(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write a student's images as PNG beside `metadata.jsonl` (an imagefolder of `datasets`)."""
    backend = open_backend(plan)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sampler = SOURCES[plan.suite.students[task.student].source](plan, task, backend, device)
    shutil.rmtree(task.folder, ignore_errors=True)  # a half-finished stage is redone, not patched
    folder = task.folder / "images"
    folder.mkdir(parents=True)
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    for drawn in iter_drawn(sampler.draw, images, task.label, backend.images_at_once):
        seconds += drawn.seconds
        for row, values in zip(drawn.rows, drawn.pixels, strict=True):
            file_name = f"{len(rows):05d}.png"
            save_png(folder / file_name, values)
            rows.append({"file_name": file_name, **row})
        progress(len(rows), len(images))
    write_jsonl(folder / "metadata.jsonl", rows)
    record = {
        "key": task.key,
        "n": len(rows),
        "num_inference_steps": sampler.num_inference_steps,
        "network_evaluations": sampler.network_evaluations,
        "seconds": seconds,
        "images_per_s": len(rows) / seconds,
        "provenance": provenance(),
    }
    mark_done(task.folder, record)
