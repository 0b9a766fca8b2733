"""What files of students say of a UNet beside its base's configuration: the guidance input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.backends.stable_diffusion.original_names import original_names
from ddmd_bench.errors import BenchError

UNet = Any  # diffusers' UNet2DConditionModel
GUIDANCE_INPUT = "time_embedding.cond_proj.weight"


def _guidance_width(state: Mapping[str, Tensor]) -> dict[str, Any]:
    found = state.get(GUIDANCE_INPUT)
    return {"time_cond_proj_dim": None if found is None else found.shape[-1]}


UNET = NetworkClass(
    "UNet2DConditionModel",
    "unet",
    original_names,
    free_settings=frozenset({"sample_size", "time_cond_proj_dim"}),
    settings_of=_guidance_width,
)


def guidance_embedding(unet: UNet, guidance_scale: float | None, num: int) -> Tensor | None:
    """What a UNet with a guidance input (LCM) reads as `timestep_cond`, [num, time_cond_proj_dim].

    None for a UNet without one. guidance_scale in diffusers' convention, whose pipeline tells the
    network guidance_scale - 1.
    """
    from diffusers import StableDiffusionXLPipeline

    dim = unet.config.time_cond_proj_dim
    if dim is None:
        if guidance_scale is not None:
            raise BenchError("this UNet has no guidance input; leave embedded_guidance_scale out")
        return None
    if guidance_scale is None:
        raise BenchError("this UNet is told its guidance scale: set embedded_guidance_scale")
    embed = StableDiffusionXLPipeline.get_guidance_scale_embedding  # reads nothing of a pipeline
    embedding: Tensor = embed(None, torch.full((num,), guidance_scale - 1.0), dim)
    return embedding.to(unet.device, unet.dtype)
