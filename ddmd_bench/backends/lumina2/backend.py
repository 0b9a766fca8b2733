"""Lumina-Image-2.0 as a backend: diffusers' transformer, flow matching, Gemma-2 as text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend, Encoders
from ddmd_bench.backends.lumina2.encoders import (
    collate,
    decode,
    encode_images,
    load_vae,
    prompt_encoder,
)
from ddmd_bench.backends.lumina2.networks import (
    LORA_TARGETS,
    VelocityDenoiser,
    add_step_embedding,
    bottleneck,
)
from ddmd_bench.diffusion import flow_level, guided
from ddmd_bench.distill.sampler import scheduler_sample
from ddmd_bench.distill.terms import Cond
from ddmd_bench.errors import BenchError
from ddmd_bench.records import content_key, file_sha256, read_json
from ddmd_bench.settings import Model

REPOSITORY = "Alpha-VLLM/Lumina-Image-2.0"
RESOLUTION = 1024
# What the model card calls the pipeline with.
TEACHER_OPTIONS: dict[str, Any] = {"cfg_trunc_ratio": 0.25, "cfg_normalization": True}


def make_backend(model: Model) -> Backend:
    """The row behind `backend: lumina2`; loads no weights."""
    folder, vae_folder = _folder(model), _vae_folder(model)
    resolution = model.resolution or RESOLUTION

    def load_teacher() -> nn.Module:
        from diffusers import Lumina2Transformer2DModel

        transformer = Lumina2Transformer2DModel.from_pretrained(
            folder, subfolder="transformer", variant=model.variant, torch_dtype=torch.float32
        )
        return VelocityDenoiser(transformer).requires_grad_(False).eval()

    def vae_on(device: torch.device | str) -> Any:
        variant = model.variant if model.vae is None else None
        return load_vae(vae_folder, variant, str(device))

    return Backend(
        resolution=resolution,
        latent_shape=_latent_shape(folder, vae_folder, resolution),
        weights={
            "transformer": _identity(folder / "transformer"),
            "scheduler": _identity(folder / "scheduler"),
            "vae": _identity(vae_folder),
        },
        prompt_sets={},
        check_prompt=_check_prompt,
        draw_prompts=_draw_prompts,
        level=flow_level,
        load_teacher=load_teacher,
        sample_teacher=partial(_sample_teacher, folder),
        add_step_embedding=add_step_embedding,
        bottleneck=bottleneck,
        lora_targets=LORA_TARGETS,
        encode_prompts=_encode_prompts,
        decode=lambda latents: decode(vae_on(latents.device), latents),
        draw_real=None,
        draw_real_latents=None,
        real_moments=None,
        teacher_options=frozenset(TEACHER_OPTIONS),
        encoders=Encoders(
            identity={part: _identity(folder / part) for part in ("text_encoder", "tokenizer")},
            load_prompt_encoder=partial(prompt_encoder, folder, model.variant),
            collate=collate,
            load_image_encoder=lambda device: partial(encode_images, vae_on(device)),
        ),
    )


def _folder(model: Model) -> Path:
    """The model in diffusers' format on this machine."""
    folder = Path(model.repository or REPOSITORY)
    if not (folder / "model_index.json").is_file():
        raise BenchError(
            f"model.repository: {folder} is no folder of a model in diffusers' format, with a "
            f"model_index.json. Download {REPOSITORY} and name its folder"
        )
    return folder


def _vae_folder(model: Model) -> Path:
    """The VAE's own folder: of a repository of its own, or a part of the model's."""
    folder = Path(model.vae) if model.vae is not None else _folder(model)
    return folder / "vae" if (folder / "vae").is_dir() else folder


def _identity(folder: Path) -> str:
    """What determines a part: its files' bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return content_key({path.name: file_sha256(path) for path in files})


def _latent_shape(folder: Path, vae_folder: Path, resolution: int) -> tuple[int, int, int]:
    """C, H, W from the configurations of transformer and VAE."""
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(vae_folder / "config.json")
    channels, factor = transformer["in_channels"], 2 ** (len(vae["block_out_channels"]) - 1)
    if vae["latent_channels"] != channels:
        raise BenchError(
            f"model.vae: its latents have {vae['latent_channels']} channels, the transformer reads "
            f"{channels}. Take the VAE that the model was trained with"
        )
    # Tokens per side, of which the position embedding knows so many.
    pixels, most = factor * transformer["patch_size"], min(transformer["axes_lens"][1:])
    if resolution % pixels or resolution > pixels * most:
        raise BenchError(
            f"model.resolution: {resolution} is no multiple of {pixels} pixels, up to "
            f"{pixels * most}. Take {pixels * min(most, max(1, round(resolution / pixels)))}"
        )
    return channels, resolution // factor, resolution // factor


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise BenchError("prompts: an empty prompt; '' stands for no prompt. Leave it out")


def _draw_prompts(num: int, generator: torch.Generator) -> NoReturn:
    raise BenchError("no training prompts: run the encode stage on prompts of the suite first")


def _encode_prompts(prompts: Sequence[str]) -> NoReturn:
    raise BenchError("prompts are not encoded here: run the encode stage first")


def _sample_teacher(
    folder: Path,
    teacher: nn.Module,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    **options: Any,
) -> Tensor:
    """The repository's scheduler with guidance, as diffusers' pipeline samples.

    cfg_trunc_ratio: the share of the steps, from the first, that are guided. cfg_normalization:
    a guided velocity keeps the norms of the conditional one, along the last axis.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    assert isinstance(teacher, VelocityDenoiser)
    settings = {**TEACHER_OPTIONS, **options}
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")

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
