"""Floating-point operations of a backend's networks, counted without weights or data.

A multiplication and an addition are two. What is counted is matrix products and convolutions
(`torch.utils.flop_counter`), nearly all of a network's work, not all of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ddmd_bench.backends import Backend


@dataclass(frozen=True)
class Flops:
    """Operations of one image's pass."""

    forward: int  # through the denoiser
    bottleneck: int  # through the denoiser up to its bottleneck, where a discriminator reads
    decode: int  # through the VAE, to pixels
    encode: int  # and back


class _Stop(Exception):
    """Ends a pass that needs to go no further."""


def flops_of(backend: Backend) -> Flops:
    """The operations of a backend's networks at its resolution."""
    import torch

    skeleton = backend.skeleton()
    x_t = torch.empty(1, *backend.latent_shape, device="meta")
    t = torch.empty(1, device="meta")

    def stop(*_: object) -> None:
        raise _Stop

    def half() -> None:
        handle = backend.bottleneck(skeleton.denoiser).register_forward_hook(stop)
        with suppress(_Stop):
            skeleton.denoiser(x_t, t, skeleton.cond)
        handle.remove()

    forward = counted(lambda: skeleton.denoiser(x_t, t, skeleton.cond))
    if skeleton.vae is None:
        return Flops(forward, counted(half), 0, 0)
    vae = skeleton.vae
    pixels = torch.empty(1, 3, backend.resolution, backend.resolution, device="meta")
    decode, encode = counted(lambda: vae.decode(x_t)), counted(lambda: vae.encode(pixels))
    return Flops(forward, counted(half), decode, encode)


def counted(run: Callable[[], object]) -> int:
    """Operations of what `run` computes, without gradient."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return int(counter.get_total_flops())
