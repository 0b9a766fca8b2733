"""SDXL and Stable Diffusion 1.5 as backends: diffusers' UNet, eps prediction, the DDPM schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend, PipelineForm
from ddmd_bench.backends.encoded import draw_prompts, encode_prompts, encoders_of, refuse_empty
from ddmd_bench.backends.pipelines import (
    PromptEncoder,
    decode,
    decoded_at_once,
    load_network,
    load_pipeline,
)
from ddmd_bench.backends.repository import Parts, parts_of, with_defaults
from ddmd_bench.backends.skeleton import Skeleton, on_meta
from ddmd_bench.backends.stable_diffusion.encoders import (
    collate,
    collate_with_size,
    sd15_prompt_encoder,
    sdxl_prompt_encoder,
)
from ddmd_bench.backends.stable_diffusion.formats import load_unet
from ddmd_bench.backends.stable_diffusion.networks import EpsDenoiser
from ddmd_bench.backends.unets import LORA_TARGETS, add_step_embedding
from ddmd_bench.objective.process import (
    NoiseLevel,
    ddpm_index,
    ddpm_level,
    eps_weight,
    flow_level,
    guided,
)
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.objective.terms import Cond
from ddmd_bench.suite.settings import Model


@dataclass(frozen=True)
class Family:
    """What SDXL and SD 1.5 differ in, and where their weights are published."""

    pipeline: str  # its class in diffusers
    model: Model  # the defaults
    load_prompt_encoder: Callable[[Parts, str], PromptEncoder]
    encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    has_size: bool  # whether the UNet reads the image's size
    unet: Mapping[str, Any]  # of the published unet/config.json what is not diffusers' default
    cond: Mapping[str, tuple[int, ...]]  # shapes of one prompt's conditioning


SDXL = Family(
    "StableDiffusionXLPipeline",
    Model(
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        # SDXL's own VAE overflows in float16.
        vae="madebyollin/sdxl-vae-fp16-fix",
        vae_revision="207b116dae70ace3637169f1ddd2434b91b3a8cd",
        resolution=1024,
        images_at_once=8,
    ),
    sdxl_prompt_encoder,
    ("text_encoder", "text_encoder_2"),
    ("tokenizer", "tokenizer_2"),
    has_size=True,
    unet={
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": (5, 10, 20),
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": (1, 2, 10),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "use_linear_projection": True,
    },
    cond={"prompt_embeds": (77, 2048), "text_embeds": (1280,), "time_ids": (6,)},
)
SD15 = Family(
    "StableDiffusionPipeline",
    Model(
        repository="stable-diffusion-v1-5/stable-diffusion-v1-5",
        resolution=512,
        images_at_once=16,
    ),
    sd15_prompt_encoder,
    ("text_encoder",),
    ("tokenizer",),
    has_size=False,
    unet={"attention_head_dim": 8, "cross_attention_dim": 768},
    cond={"prompt_embeds": (77, 768)},
)
# What the published VAEs of both have.
VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
}


def make_backend(model: Model, family: Family) -> Backend:
    """The row behind `backend: sdxl` and `backend: sd15`; loads no weights."""
    model = with_defaults(model, family.model)
    assert model.resolution is not None
    assert model.images_at_once is not None
    parts = parts_of(model, "unet", family.encoders, family.tokenizers)
    level = _lazy_level(parts)

    def load_teacher() -> nn.Module:
        unet = load_network(parts, "UNet2DConditionModel")
        return EpsDenoiser(unet, level).requires_grad_(False).eval()

    return Backend(
        sources=(
            "backends/unets.py",
            "backends/encoded.py",
            "backends/pipelines.py",
            "backends/repository.py",
            "backends/weights.py",
            "backends/stable_diffusion/*.py",
        ),
        resolution=model.resolution,
        latent_shape=(4, model.resolution // 8, model.resolution // 8),
        weights=parts.weights,
        check_prompt=refuse_empty,
        draw_prompts=draw_prompts,
        level=level,
        denoising_weight=eps_weight,
        load_teacher=load_teacher,
        skeleton=cache(partial(_skeleton, parts, family)),
        sample_teacher=partial(_sample_teacher, parts),
        add_step_embedding=lambda denoiser, num: add_step_embedding(_unet_of(denoiser), num),
        bottleneck=lambda denoiser: _unet_of(denoiser).mid_block,
        lora_targets=LORA_TARGETS,
        encode_prompts=encode_prompts,
        images_at_once=model.images_at_once,
        decode=partial(decode, parts, decoded_at_once(model.resolution)),
        dtype=model.dtype,
        pipeline=PipelineForm(
            pipeline=family.pipeline,
            network=parts.network,
            scheduler="LCMScheduler",
            scheduler_options={},
            schedule=lambda t_list: {"timesteps": ddpm_index(torch.tensor(t_list)).tolist()},
            global_noise=False,
            no_guidance=0.0,
            repository=parts.main.repository,
            resolution=model.resolution,
            dtype=model.dtype,
            scheduler_config=parts.scheduler_config,
            load=partial(load_pipeline, parts, family.pipeline),
        ),
        load_checkpoint=lambda path, format, scale: with_checkpoint(
            load_teacher(), path, format, scale
        ),
        scheduler_config=parts.scheduler_config,
        encoders=encoders_of(
            parts,
            family.load_prompt_encoder,
            collate_with_size(model.resolution) if family.has_size else collate,
        ),
        remotes=(parts.main, parts.text, parts.vae),
    )


def _skeleton(parts: Parts, family: Family) -> Skeleton:
    unet = on_meta("UNet2DConditionModel", parts.main, "unet/config.json", family.unet)
    widths = {"prompt_embeds": unet.config.cross_attention_dim}
    if family.has_size:
        # The pooled embedding is what the size's six numbers leave of the input that both share.
        of_size = 6 * unet.config.addition_time_embed_dim
        widths["text_embeds"] = unet.config.projection_class_embeddings_input_dim - of_size
    cond = {
        name: torch.empty(1, *shape[:-1], widths.get(name, shape[-1]), device="meta")
        for name, shape in family.cond.items()
    }
    vae = on_meta("AutoencoderKL", parts.vae, parts.vae_config(), VAE)
    # The levels scale its input and output: they are no part of what a skeleton tells.
    return Skeleton(EpsDenoiser(unet, flow_level), cond, vae)


def with_checkpoint(base: nn.Module, path: Path, format: str, scale: float) -> nn.Module:
    """A network of the base's architecture with a checkpoint's weights."""
    assert isinstance(base, EpsDenoiser)
    return EpsDenoiser(load_unet(base.unet, path, format, scale), base.level)


def _unet_of(denoiser: nn.Module) -> Any:
    assert isinstance(denoiser, EpsDenoiser)
    return denoiser.unet


def _scheduler(parts: Parts) -> Any:
    """The repository's own scheduler, of the class that it names."""
    import diffusers

    config = parts.scheduler_config()
    return getattr(diffusers, config["_class_name"]).from_config(config)


def _lazy_level(parts: Parts) -> Callable[[Tensor], NoiseLevel]:
    """Noise levels of the repository's schedule, read when they are first asked for."""
    schedule = cache(lambda: ddpm_level(_scheduler(parts).alphas_cumprod))
    return lambda t: schedule()(t)


def _sample_teacher(
    parts: Parts,
    teacher: nn.Module,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    **options: Any,
) -> Tensor:
    """The repository's scheduler with guidance, as diffusers' pipeline samples."""
    assert not options, "plan refuses what teacher_options does not name"
    assert isinstance(teacher, EpsDenoiser)
    scheduler = _scheduler(parts)
    scheduler.set_timesteps(num_inference_steps, device=noise.device)

    # Both branches in one batch, as the pipeline runs them: rounding depends on the batch.
    both = {name: torch.cat([uncond[name], cond[name]]) for name in cond}

    def predict(x: Tensor, timestep: Tensor, k: int) -> Tensor:
        if guidance_scale == 1:
            return teacher.predict(x, timestep, cond)
        eps_uncond, eps_cond = teacher.predict(torch.cat([x, x]), timestep, both).chunk(2)
        return guided(eps_uncond, eps_cond, guidance_scale)

    return scheduler_sample(predict, scheduler, noise)
