"""Backends: the models behind a suite, as frozen records of callables and facts.

A new backend is a module that makes a `Backend`, and a row in `BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ddmd_bench.diffusion import NoiseLevel
    from ddmd_bench.distill.terms import Cond


@dataclass(frozen=True)
class Backend:
    """What a stage may ask of a family of models; conversions to x0 end in here.

    Networks are modules called as `denoise(x_t, t, cond) -> x0`: latents [B, C, H, W], t [B] in
    [0, 1] with 1 = pure noise. After `add_step_embedding` a network reads each sample's step of the
    student from `cond["step"]`, [B], where it is given; it starts as it was.
    """

    resolution: int  # pixels per side
    latent_shape: tuple[int, int, int]  # C, H, W
    weights: Mapping[str, Path]  # files that determine the networks, hashed into every key
    prompt_sets: Mapping[str, Callable[[], Sequence[str]]]
    check_prompt: Callable[[str], None]  # raises BenchError for a prompt it cannot read
    draw_prompts: Callable[[int, torch.Generator], list[str]]  # training prompts
    level: Callable[[Tensor], NoiseLevel]  # t [B] -> alpha, sigma
    load_teacher: Callable[[], nn.Module]
    add_step_embedding: Callable[[nn.Module, int], None]  # so that it reads cond["step"] < steps
    bottleneck: Callable[[nn.Module], nn.Module]  # whose output a discriminator reads
    lora_targets: tuple[str, ...]  # names of the layers that adapters join
    encode_prompts: Callable[[Sequence[str]], Cond]  # '' is unconditional
    decode: Callable[[Tensor], Tensor]  # latents -> images [B, 3, H, W], [-1, 1] and beyond
    draw_real: Callable[[str, torch.Generator], Tensor] | None  # one real image of a prompt
    # Real latents [B, C, H, W] with their prompts, for a GAN.
    draw_real_latents: Callable[[int, torch.Generator], tuple[list[str], Tensor]] | None
    # Of real latents: the mean of each one's mean and of each one's variance (Eq. 7).
    real_moments: tuple[float, float] | None


def _shapes() -> Backend:
    from ddmd_bench.backends.shapes.backend import make_backend

    return make_backend()


BACKENDS: dict[str, Callable[[], Backend]] = {"shapes": _shapes}
