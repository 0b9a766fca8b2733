"""Tiny repositories that say something else than the published ones, and diffusers' own images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_sdxl import RESOLUTION
from torch import Tensor

PROMPTS = ["a red cat", "a small star on the left, in blue", "dogs"]
SCHEDULER = "scheduler/scheduler_config.json"
Changes = Mapping[str, Mapping[str, Any]]  # by file; None takes a key away


def changed(repository: Path, folder: Path, changes: Changes) -> Path:
    """A copy of a repository with other values in its configurations."""
    shutil.copytree(repository, folder)
    for file, values in changes.items():
        config = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps(config))
    return folder


def without(folder: Path, file: str, *keys: str) -> None:
    """Take keys out of a configuration."""
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({k: v for k, v in config.items() if k not in keys}))


def with_vae(repository: Path, folder: Path, num_blocks: int, **options: Any) -> Path:
    """A copy with another VAE, of 2^(num_blocks - 1) pixels a latent."""
    from diffusers import AutoencoderKL

    shutil.copytree(repository, folder)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        vae = AutoencoderKL(
            block_out_channels=(8,) * num_blocks,
            down_block_types=("DownEncoderBlock2D",) * num_blocks,
            up_block_types=("UpDecoderBlock2D",) * num_blocks,
            norm_num_groups=8,
            sample_size=RESOLUTION,
            **{"latent_channels": 4, "layers_per_block": 1, "scaling_factor": 0.13025, **options},
        )
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    return folder


def generators() -> list[torch.Generator]:
    """One for each prompt's image."""
    return [torch.Generator().manual_seed(k) for k in range(len(PROMPTS))]


def by_diffusers(
    folder: Path,
    steps: int,
    guidance_scale: float,
    kinds: Sequence[str] = ("latent", "pt"),
    **call: Any,
) -> list[Tensor]:
    """Latents and images [B, 3, H, W] in [0, 1] of the repository's own pipeline."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return [
        pipeline(
            PROMPTS,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=generators(),
            output_type=kind,
            **{"height": RESOLUTION, "width": RESOLUTION, **call},
        ).images
        for kind in kinds
    ]


def by_the_harness(
    backend: Any, steps: int, guidance_scale: float, **options: Any
) -> tuple[Tensor, Tensor]:
    """The same of a backend's teacher, whose prompts are encoded at once."""
    encoders, draws = backend.encoders, generators()
    encode = encoders.load_prompt_encoder("cpu")
    # As many at once as the pipeline encodes: rounding depends on it.
    cond, uncond = (encoders.collate(encode(p)) for p in (PROMPTS, [""] * len(PROMPTS)))
    noise = torch.stack([torch.randn(backend.latent_shape, generator=g) for g in draws])
    latents = backend.sample_teacher(
        backend.load_teacher(), steps, guidance_scale, cond, uncond, noise, draws, **options
    )
    return latents, (backend.decode(latents) / 2 + 0.5).clamp(0, 1)
