"""SDXL and Stable Diffusion 1.5 as backends: diffusers' UNet, the DDPM schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from ddmd_bench.backends import Backend, PipelineForm
from ddmd_bench.backends.assumptions import Said, configurations, refuse, resolution_of, vae_factor
from ddmd_bench.backends.encoded import draw_prompt, encode_prompts, encoders_of, refuse_empty
from ddmd_bench.backends.pipelines import (
    PromptEncoder,
    decode,
    decoded_at_once,
    load_network,
    load_pipeline,
)
from ddmd_bench.backends.repository import Parts, parts_of, with_defaults
from ddmd_bench.backends.skeleton import Skeleton, on_meta
from ddmd_bench.backends.stable_diffusion.assumptions import problems
from ddmd_bench.backends.stable_diffusion.encoders import (
    collate,
    collate_with_size,
    sd15_prompt_encoder,
    sdxl_prompt_encoder,
)
from ddmd_bench.backends.stable_diffusion.formats import UNET
from ddmd_bench.backends.stable_diffusion.networks import PREDICTIONS, Frame, UNetDenoiser
from ddmd_bench.backends.stable_diffusion.teacher import evaluations, frame_of, sample_teacher
from ddmd_bench.backends.student_weights import check_student, student_network
from ddmd_bench.backends.unets import LORA_TARGETS, add_step_embedding
from ddmd_bench.objective.process import ddpm_index, flow_level
from ddmd_bench.suite.settings import Model


@dataclass(frozen=True)
class Family:
    """What SDXL and SD 1.5 differ in, and where their weights are published."""

    backend: str
    pipeline: str  # its class in diffusers
    model: Model  # the defaults
    load_prompt_encoder: Callable[[Parts, str], PromptEncoder]
    encoders: tuple[str, ...]
    tokenizers: tuple[str, ...]
    has_size: bool  # whether the UNet reads the image's size
    unet: Mapping[str, Any]  # of the published unet/config.json what is not diffusers' default
    scheduler: Mapping[str, Any]  # the class of the published one, and what it is asked for
    cond: Mapping[str, tuple[int, ...]]  # shapes of one prompt's conditioning
    # What the pipeline sets in any scheduler that it is given.
    scheduler_overrides: Mapping[str, Any] = field(default_factory=dict)
    # Of real latents in the published VAE's scaled frame: the paper's targets (Eq. 7).
    real_moments: tuple[float, float] | None = None
    upcasts_vae: bool = False  # whether the pipeline decodes in float32 where the VAE asks for it


SDXL = Family(
    "sdxl",
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
    scheduler={"_class_name": "EulerDiscreteScheduler"},
    real_moments=(0.075, 0.81),
    upcasts_vae=True,
    cond={"prompt_embeds": (77, 2048), "text_embeds": (1280,), "time_ids": (6,)},
)
SD15 = Family(
    "sd15",
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
    scheduler={"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    scheduler_overrides={"steps_offset": 1, "clip_sample": False},
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
    given, model = model, with_defaults(model, family.model)
    assert model.images_at_once is not None
    text = family.encoders, family.tokenizers
    parts = replace(
        parts_of(model, "unet", *text),
        scheduler_overrides=family.scheduler_overrides,
        upcasts_vae=family.upcasts_vae,
    )
    said = configurations(
        parts, {"network": family.unet, "scheduler": family.scheduler, "vae": VAE}, *text
    )
    resolution = resolution_of(model, given, said)
    refuse(problems(said, family.backend, (*text[0], *text[1]), resolution, family.has_size))
    side = resolution // vae_factor(said["vae"].values)
    frame = frame_of(parts, said["scheduler"].values)

    def load_teacher() -> nn.Module:
        unet = load_network(parts, "UNet2DConditionModel")
        return UNetDenoiser(unet, frame).requires_grad_(False).eval()

    return Backend(
        resolution=resolution,
        latent_shape=(said["vae"].values.get("latent_channels", 4), side, side),
        weights=parts.weights,
        check_prompt=refuse_empty,
        draw_prompt=draw_prompt,
        level=frame.level,
        denoising_weight=frame.prediction.weight,
        load_teacher=load_teacher,
        skeleton=cache(partial(_skeleton, parts, family)),
        sample_teacher=partial(sample_teacher, parts),
        teacher_evaluations=partial(evaluations, said["scheduler"].values),
        add_step_embedding=lambda denoiser, num: add_step_embedding(_unet_of(denoiser), num),
        bottleneck=lambda denoiser: _unet_of(denoiser).mid_block,
        lora_targets=LORA_TARGETS,
        encode_prompts=encode_prompts,
        images_at_once=model.images_at_once,
        decode=partial(decode, parts, decoded_at_once(resolution)),
        dtype=model.dtype,
        pipeline=PipelineForm(
            pipeline=family.pipeline,
            network=parts.network,
            scheduler="lcm_unscaled",
            schedule=lambda t_list: {
                "timesteps": ddpm_index(torch.tensor(t_list), frame.num_levels).tolist()
            },
            global_noise=False,
            no_guidance=0.0,
            repository=parts.main.repository,
            resolution=resolution,
            dtype=model.dtype,
            scheduler_config=parts.scheduler_config,
            load=partial(load_pipeline, parts, family.pipeline),
        ),
        formats={"unet": True, "lora": False},
        load_student=lambda whole, loras: UNetDenoiser(
            student_network(parts, UNET, whole, loras), frame
        ),
        check_student=partial(check_student, parts, UNET),
        scheduler_config=parts.scheduler_config,
        # Another VAE has other latents.
        real_moments=family.real_moments if given.repository is given.vae is None else None,
        prediction_type=said["scheduler"].values.get("prediction_type", "epsilon"),
        encoders=encoders_of(
            parts,
            family.load_prompt_encoder,
            collate_with_size(resolution) if family.has_size else collate,
            _rules_of_text(said["index"]) if family.has_size else {},
        ),
        remotes=(parts.main, parts.text, parts.vae),
        without_network=parts.without_network(),
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
    # A frame scales its input and output: it is no part of what a skeleton tells.
    frame = Frame(flow_level, PREDICTIONS["epsilon"], 1000)
    return Skeleton(UNetDenoiser(unet, frame), cond, vae)


def _unet_of(denoiser: nn.Module) -> Any:
    assert isinstance(denoiser, UNetDenoiser)
    return denoiser.unet


def _rules_of_text(index: Said) -> dict[str, str]:
    """What determines embeddings beside the files of text encoders: nothing, as SDXL has it."""
    zeros = index.values.get("force_zeros_for_empty_prompt", True)
    return {} if zeros else {"no_prompt": "encoded"}
