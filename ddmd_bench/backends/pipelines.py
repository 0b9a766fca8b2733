"""What backends share that are pipelines of diffusers: their parts loaded, the VAE at both ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.repository import Parts
from ddmd_bench.files.device import memory_shown
from ddmd_bench.files.memory import AtOnce, refusing_out_of_memory
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.hub import folder_of

ABSENT = ("image_encoder", "feature_extractor", "safety_checker")  # parts that drawing needs not

DECODED_PIXELS = 1024**2

Rows = list[dict[str, Tensor]]  # of prompts: tensors without a batch dimension, on the CPU
PromptEncoder = Callable[[Sequence[str]], Rows]


def load_network(parts: Parts, kind: str) -> Any:
    """The denoising network, of a class of diffusers, in float32."""
    import diffusers

    return getattr(diffusers, kind).from_pretrained(
        folder_of(parts.main),
        subfolder=parts.network,
        variant=parts.model.variant,
        dtype=torch.float32,
    )


def load_pipeline(
    parts: Parts, pipeline: str, components: dict[str, Any], dtype: torch.dtype
) -> Any:
    """A pipeline of the given components, the VAE and the repository's text encoders."""
    import diffusers

    kind, vae = getattr(diffusers, pipeline), vae_on(parts, "cpu")
    with no_progress_bars():
        return kind.from_pretrained(
            folder_of(parts.text),
            variant=parts.model.variant,
            vae=vae,
            dtype=dtype,
            **absent_from(kind),
            **components,
        )


def load_text_part(parts: Parts, pipeline: str, device: str) -> Any:
    """A pipeline of the text encoders and tokenizers alone."""
    import diffusers

    kind = getattr(diffusers, pipeline)
    with no_progress_bars():
        loaded = kind.from_pretrained(
            folder_of(parts.text),
            variant=parts.model.variant,
            dtype=dtype_of(parts),
            **absent_from(kind, parts.network, "vae", "scheduler"),
        )
    return loaded.to(device)


def absent_from(pipeline: Any, *parts: str) -> dict[str, None]:
    """Arguments that leave parts of a pipeline out, and those that drawing never needs."""
    known = inspect.signature(pipeline.__init__).parameters
    return dict.fromkeys(name for name in (*parts, *ABSENT) if name in known)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """While a model loads its parts: a run has progress of its own to show."""
    from diffusers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def dtype_of(parts: Parts) -> torch.dtype:
    """Of networks that only run forward outside training."""
    dtype: torch.dtype = getattr(torch, parts.model.dtype)
    return dtype


def vae_on(parts: Parts, device: torch.device | str) -> Any:
    """The VAE, once for a process and device."""
    # The variant is one of the repository's own files.
    variant = parts.model.variant if parts.model.vae is None else None
    folder, dtype = parts.vae_folder(), dtype_of(parts)
    if parts.upcasts_vae and dtype == torch.float16 and _overflows(folder):
        dtype = torch.float32
    return _load_vae(folder, variant, dtype, str(device))


def _overflows(folder: Path) -> bool:
    """Whether a VAE says that it needs float32; diffusers supposes so where it is silent."""
    return bool(read_record(folder / "config.json", remedy=FETCH_AGAIN).get("force_upcast", True))


@cache
def _load_vae(folder: Path, variant: str | None, dtype: torch.dtype, device: str) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, variant=variant, dtype=dtype)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def decode(parts: Parts, at_once: AtOnce, latents: Tensor) -> Tensor:
    """Latents [B, C, h, w] -> images [B, 3, H, W], float32, not clipped."""
    vae = vae_on(parts, latents.device)
    mean, std = _statistics(vae, latents)
    scaled = (latents * std / vae.config.scaling_factor + mean).to(vae.dtype)

    def decoded(some: Sequence[int]) -> Tensor:
        images: Tensor = vae.decode(scaled[some[0] : some[-1] + 1], return_dict=False)[0].float()
        return images

    with refusing_out_of_memory(partial(_too_large_to_decode, str(latents.device))):
        images = [made for _, made in at_once.batches(range(len(scaled)), decoded)]
    return torch.cat(images)


def decoded_at_once(resolution: int) -> AtOnce:
    """How many images of a side the VAE decodes at once, however many are drawn.

    A decoder works at the pixels' size: eight images of 1,024 px would take more memory than the
    network that drew them. One by one costs no time at that size and bounds it.
    """
    return AtOnce(max(1, DECODED_PIXELS // resolution**2), "images in the VAE's decoder")


def bound_decoder(pipeline: Any, resolution: int) -> None:
    """Let a whole pipeline's VAE decode one by one what would not be decoded together here."""
    vae: Any = getattr(pipeline, "vae", None)
    if decoded_at_once(resolution).size == 1 and hasattr(vae, "use_slicing"):
        vae.enable_slicing()


def _too_large_to_decode(device: str) -> str:
    # Not in tiles on our own: tiles that do not see each other give another image.
    return (
        f"decoding a single image does not fit into the memory of {memory_shown(device)}. End what "
        "else fills it, take fewer --workers, set model.dtype to bfloat16, or lower the resolution"
    )


def load_image_encoder(parts: Parts, device: str) -> Callable[[Tensor], Tensor]:
    """On a device: images [B, 3, H, W] in [-1, 1] -> latents [B, C, h, w]."""
    return partial(_encode_images, vae_on(parts, device))


@torch.no_grad()
def _encode_images(vae: Any, images: Tensor) -> Tensor:
    """The posterior's mode, in the frame that `decode` reads."""
    mode: Tensor = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    mean, std = _statistics(vae, mode)
    latents: Tensor = (mode - mean) * vae.config.scaling_factor / std
    return latents


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """What a VAE's latents are moved by and divided by: one for each channel, or a shift alone."""
    config = vae.config
    if config.latents_mean is None or config.latents_std is None:
        return config.shift_factor or 0.0, 1.0
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1).to(latents)
        for values in (config.latents_mean, config.latents_std)
    )
    return mean, std
