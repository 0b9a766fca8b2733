"""The embedded world as a backend: no download, minutes on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.backends.shapes.networks import (
    EMBED_DIM,
    LATENT_SHAPE,
    MAX_WORDS,
    WordEncoder,
    make_unet,
    to_images,
    to_latents,
    tokenize,
)
from ddmd_bench.backends.shapes.scenes import (
    IMAGE_SIZE,
    draw_labels,
    held_out_labels,
    labels_of,
    prompt_of,
    render,
    seen_labels,
)
from ddmd_bench.backends.skeleton import Skeleton
from ddmd_bench.backends.unets import LORA_TARGETS, add_step_embedding, step_labels
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256
from ddmd_bench.files.tensors import read_safetensors
from ddmd_bench.objective.process import flow_level, velocity_weight, x0_from_velocity
from ddmd_bench.objective.sampler import ode_sample
from ddmd_bench.objective.terms import Cond

WEIGHTS = Path(__file__).parent / "weights"
TEACHER = WEIGHTS / "teacher.safetensors"
# Mean and variance of the latents of 20,000 training scenes, averaged (seed 0).
REAL_MOMENTS = (-0.101, 0.079)


class ShapesDenoiser(nn.Module):
    """A UNet that predicts velocity, called as `denoise(x_t, t, cond) -> x0`."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x_t [B, 12, 16, 16], t [B] in [0, 1] -> x0 [B, 12, 16, 16]."""
        x_t = x_t.contiguous(memory_format=torch.channels_last)
        # The network was trained on 1000 * t, the range of diffusers' timesteps.
        step = step_labels(self.unet, len(t), cond, t.device)
        velocity = self.unet(x_t, 1000 * t, cond["prompt_embeds"], class_labels=step)
        return x0_from_velocity(velocity.sample, x_t, flow_level(t))


def _teacher_file() -> Path:
    if not TEACHER.is_file():
        raise BenchError(
            f"{TEACHER}: the embedded teacher's weights are missing. Reinstall the package, or "
            "make them with `python -m ddmd_bench.recipes.shapes teacher` (about an hour)"
        )
    return TEACHER


@cache
def _teacher_sha256() -> str:
    return file_sha256(_teacher_file())


@cache
def _teacher_state() -> dict[str, Tensor]:
    return {key: value.float() for key, value in read_safetensors(_teacher_file()).items()}


def _part(prefix: str) -> dict[str, Tensor]:
    state = _teacher_state()
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def load_teacher() -> nn.Module:
    """The frozen teacher, stored in float16, run in float32."""
    unet = make_unet()
    unet.load_state_dict(_part("unet."))
    unet.to(memory_format=torch.channels_last)
    return ShapesDenoiser(unet).requires_grad_(False).eval()


@cache
def _skeleton() -> Skeleton:
    with torch.device("meta"):
        denoiser = ShapesDenoiser(make_unet())
        return Skeleton(denoiser, {"prompt_embeds": torch.empty(1, MAX_WORDS, EMBED_DIM)}, None)


def _sample_teacher(
    teacher: nn.Module,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    generators: list[torch.Generator] | None = None,
    **options: Any,
) -> Tensor:
    assert not options, "plan refuses what teacher_options does not name"
    return ode_sample(teacher, num_inference_steps, guidance_scale, cond, uncond, noise, flow_level)


def _unet_of(denoiser: nn.Module) -> Any:
    assert isinstance(denoiser, ShapesDenoiser)
    return denoiser.unet


@cache
def _word_encoder() -> WordEncoder:
    encoder = WordEncoder()
    encoder.load_state_dict(_part("text."))
    return encoder.requires_grad_(False).eval()


def encode_prompts(prompts: Sequence[str]) -> Cond:
    """Prompts -> {"prompt_embeds": [B, L, 64]}; '' is the unconditional prompt."""
    word_ids = torch.tensor([tokenize(prompt) for prompt in prompts])
    return {"prompt_embeds": _word_encoder()(word_ids)}


def _draw_prompt(generator: torch.Generator) -> str:
    return prompt_of(draw_labels(1, generator)[0])


def _draw_real(prompt: str, generator: torch.Generator) -> Tensor:
    labels = labels_of(prompt)
    if labels is None:
        raise BenchError(f"{prompt!r} is not a prompt of the shapes world: no scene to draw")
    return render(torch.tensor([labels]), generator)[0]


def _draw_real_latents(generators: Sequence[torch.Generator]) -> tuple[list[str], Tensor]:
    labels = torch.cat([draw_labels(1, generator) for generator in generators])
    return [prompt_of(row) for row in labels], to_latents(render(labels, generators))


def _check_prompt(prompt: str) -> None:
    tokenize(prompt)


def make_backend() -> Backend:
    """The row behind `backend: shapes`."""
    return Backend(
        resolution=IMAGE_SIZE,
        latent_shape=LATENT_SHAPE,
        weights=lambda: {"teacher": _teacher_sha256()},
        prompt_sets={
            "shapes/seen": lambda: [prompt_of(row) for row in seen_labels()],
            "shapes/held_out": lambda: [prompt_of(row) for row in held_out_labels()],
        },
        check_prompt=_check_prompt,
        draw_prompt=_draw_prompt,
        level=flow_level,
        denoising_weight=velocity_weight,
        load_teacher=load_teacher,
        skeleton=_skeleton,
        sample_teacher=_sample_teacher,
        add_step_embedding=lambda denoiser, num: add_step_embedding(_unet_of(denoiser), num),
        bottleneck=lambda denoiser: _unet_of(denoiser).mid_block,
        lora_targets=LORA_TARGETS,
        encode_prompts=encode_prompts,
        images_at_once=64,
        decode=to_images,
        draw_real=_draw_real,
        draw_real_latents=_draw_real_latents,
        real_moments=REAL_MOMENTS,
    )
