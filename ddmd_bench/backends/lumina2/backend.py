"""Lumina-Image-2.0 as a backend: diffusers' transformer, flow matching, Gemma-2 as text encoder."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend, PipelineForm
from ddmd_bench.backends.assumptions import configurations, refuse, resolution_of, vae_factor
from ddmd_bench.backends.encoded import draw_prompt, encode_prompts, encoders_of, refuse_empty
from ddmd_bench.backends.lumina2.assumptions import problems
from ddmd_bench.backends.lumina2.encoders import MAX_TOKENS, collate, prompt_encoder
from ddmd_bench.backends.lumina2.networks import (
    LORA_TARGETS,
    LuminaDenoiser,
    ScheduledLumina,
    add_step_embedding,
    bottleneck,
)
from ddmd_bench.backends.lumina2.original_names import original_names
from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.backends.pipelines import decode, decoded_at_once, load_network, load_pipeline
from ddmd_bench.backends.repository import Parts, parts_of, with_defaults
from ddmd_bench.backends.skeleton import Skeleton, on_meta
from ddmd_bench.backends.student_weights import check_student, student_network
from ddmd_bench.objective.process import flow_level, guided, velocity_weight
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.objective.terms import Cond
from ddmd_bench.suite.settings import Model

DEFAULTS = Model(
    repository="Alpha-VLLM/Lumina-Image-2.0",
    resolution=1024,
    images_at_once=4,
)
# Of the published transformer/config.json and vae/config.json.
PUBLISHED: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 2304,
    "num_layers": 26,
    "num_refiner_layers": 2,
    "num_attention_heads": 24,
    "num_kv_heads": 8,
    "multiple_of": 256,
    "norm_eps": 1e-5,
    "axes_dim_rope": (32, 32, 32),
    "axes_lens": (300, 512, 512),
    "cap_feat_dim": 2304,
}
LUMINA2_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 16,
    "layers_per_block": 2,
}
TRANSFORMER = NetworkClass(
    "Lumina2Transformer2DModel",
    "transformer",
    original_names,
    free_settings=frozenset({"sample_size"}),
)
# What the model card calls the pipeline with.
TEACHER_OPTIONS: dict[str, Any] = {"cfg_trunc_ratio": 0.25, "cfg_normalization": True}


def make_backend(model: Model) -> Backend:
    """The row behind `backend: lumina2`; loads no weights."""
    given, model = model, with_defaults(model, DEFAULTS)
    assert model.images_at_once is not None
    text = ("text_encoder",), ("tokenizer",)
    parts = parts_of(model, "transformer", *text)
    said = configurations(parts, {"network": PUBLISHED, "vae": LUMINA2_VAE}, *text)
    resolution = resolution_of(model, given, said)
    refuse(problems(said, ("text_encoder", "tokenizer"), resolution))
    channels = said["network"].values["in_channels"]
    side = resolution // vae_factor(said["vae"].values)

    def load_teacher() -> nn.Module:
        transformer = load_network(parts, "Lumina2Transformer2DModel")
        return LuminaDenoiser(transformer).requires_grad_(False).eval()

    return Backend(
        resolution=resolution,
        latent_shape=(channels, side, side),
        weights=parts.weights,
        check_prompt=refuse_empty,
        draw_prompt=draw_prompt,
        level=flow_level,
        denoising_weight=velocity_weight,
        load_teacher=load_teacher,
        skeleton=cache(partial(_skeleton, parts)),
        sample_teacher=partial(_sample_teacher, parts),
        add_step_embedding=add_step_embedding,
        bottleneck=bottleneck,
        lora_targets=LORA_TARGETS,
        encode_prompts=encode_prompts,
        images_at_once=model.images_at_once,
        decode=partial(decode, parts, decoded_at_once(resolution)),
        teacher_options=frozenset(TEACHER_OPTIONS),
        teacher_evaluations=_evaluations,
        dtype=model.dtype,
        pipeline=PipelineForm(
            pipeline="Lumina2Pipeline",
            network=parts.network,
            scheduler="flow_lcm",
            schedule=lambda t_list: {"sigmas": list(t_list)},
            global_noise=True,
            no_guidance=1.0,
            repository=parts.main.repository,
            # Lumina2Pipeline takes every VAE for an eightfold one.
            resolution=8 * side,
            dtype=model.dtype,
            scheduler_config=parts.scheduler_config,
            load=partial(load_pipeline, parts, "Lumina2Pipeline"),
        ),
        formats={"transformer": True, "lora": False},
        load_student=lambda whole, loras: ScheduledLumina(
            student_network(parts, TRANSFORMER, whole, loras)
        ),
        check_student=partial(check_student, parts, TRANSFORMER),
        scheduler_config=parts.scheduler_config,
        remotes=(parts.main, parts.text, parts.vae),
        without_network=parts.without_network(),
        encoders=encoders_of(parts, prompt_encoder, collate, {}),
    )


class _FullMask(Tensor):
    """A mask of tokens that are all there: its sum is known, though a meta tensor has no values."""

    def sum(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([self.shape[1]] * self.shape[0])


def _skeleton(parts: Parts) -> Skeleton:
    file = "transformer/config.json"
    transformer = on_meta("Lumina2Transformer2DModel", parts.main, file, PUBLISHED)
    mask = torch.empty(1, MAX_TOKENS, dtype=torch.bool, device="meta").as_subclass(_FullMask)
    width = transformer.config.cap_feat_dim
    cond = {
        "prompt_embeds": torch.empty(1, MAX_TOKENS, width, device="meta"),
        "prompt_attention_mask": mask,
    }
    vae = on_meta("AutoencoderKL", parts.vae, parts.vae_config(), LUMINA2_VAE)
    return Skeleton(LuminaDenoiser(transformer), cond, vae)


def _evaluations(num_inference_steps: int, guidance_scale: float, **options: Any) -> int:
    """Passes of the network for one image: two for each guided step."""
    share = {**TEACHER_OPTIONS, **options}["cfg_trunc_ratio"] if guidance_scale != 1 else 0.0
    steps = range(1, num_inference_steps + 1)
    return num_inference_steps + sum(k / num_inference_steps <= share for k in steps)


def _sample_teacher(
    parts: Parts,
    teacher: nn.Module,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    generators: list[torch.Generator] | None = None,
    **options: Any,
) -> Tensor:
    """The repository's scheduler with guidance, as diffusers' pipeline samples.

    cfg_trunc_ratio: the share of the steps, from the first, that are guided. cfg_normalization:
    a guided velocity keeps the norms of the conditional one, along the last axis.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    assert isinstance(teacher, LuminaDenoiser)
    settings = {**TEACHER_OPTIONS, **options}
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(parts.scheduler_config())

    def predict(x: Tensor, timestep: Tensor, k: int) -> Tensor:
        t = (timestep / scheduler.config.num_train_timesteps).expand(len(x))
        velocity = teacher.predict(x, t, cond)
        if guidance_scale == 1 or (k + 1) / num_inference_steps > settings["cfg_trunc_ratio"]:
            return velocity
        both = guided(teacher.predict(x, t, uncond), velocity, guidance_scale)
        if settings["cfg_normalization"]:
            norm, wanted = (v.norm(dim=-1, keepdim=True) for v in (both, velocity))
            both = both * (wanted / norm)
        return both

    _set_timesteps(scheduler, num_inference_steps, noise)
    return scheduler_sample(predict, scheduler, noise)


def _set_timesteps(scheduler: Any, num_inference_steps: int, noise: Tensor) -> None:
    """Equally spaced levels from 1 to 1/N, which the scheduler shifts as it is configured."""
    import numpy as np
    from diffusers.pipelines.lumina2.pipeline_lumina2 import calculate_shift

    config = scheduler.config
    mu = calculate_shift(
        noise.shape[1],  # as the pipeline has it; read only where the shift depends on it
        config.base_image_seq_len,
        config.max_image_seq_len,
        config.base_shift,
        config.max_shift,
    )
    sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
    scheduler.set_timesteps(sigmas=sigmas, device=noise.device, mu=mu)
    scheduler.set_begin_index(0)
