"""Peak memory of training all weights and of training adapters, on a large UNet of random weights.

    python benchmarks/memory.py [--width 240] [--modes full lora]

The UNet has Stable Diffusion 1.5's layout; width 320 is its size (860 M parameters). Each mode
runs two updates of the decoupled hybrid in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import time
from typing import Any

import torch

from ddmd_bench.backends.shapes.backend import (
    ShapesDenoiser,
    make_backend,
)
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.update import Training

MODES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, 8-bit optimizer": {"optimizer": "adamw_8bit"},
    "full, gradient checkpointing": {"gradient_checkpointing": True},
    "lora, rank 64": {"lora_rank": 64},
    "lora, rank 64, gradient checkpointing": {"lora_rank": 64, "gradient_checkpointing": True},
}
LATENT = (4, 32, 32)
EMBED_DIM = 768


def make_teacher(width: int) -> torch.nn.Module:
    """A UNet in Stable Diffusion 1.5's layout, random weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    down = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    unet = UNet2DConditionModel(
        sample_size=LATENT[1],
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=down,
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=EMBED_DIM,
        attention_head_dim=8,
        norm_num_groups=16,
    )
    return ShapesDenoiser(unet).requires_grad_(False).eval()


def measure(width: int, mode: str, queue: Any) -> None:
    backend = dataclasses.replace(
        make_backend(),
        latent_shape=LATENT,
        load_teacher=lambda: make_teacher(width),
        encode_prompts=lambda p: {"prompt_embeds": torch.zeros(len(p), 8, EMBED_DIM)},
    )
    settings = TrainSettings(batch_size=4, fake_score_updates=1, **MODES[mode])
    base = sum(p.numel() for p in backend.load_teacher().parameters())  # freed before the rest
    training = Training(backend, METHODS["decoupled_hybrid"], settings, 0, "cpu")
    trained = sum(p.numel() for p in training.networks["student"].parameters.values())
    start = time.perf_counter()
    for k in (1, 2):
        training.update(k)
    seconds = (time.perf_counter() - start) / 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    queue.put((base, trained, peak, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{'mode':40}{'weights':>10}{'trained':>10}{'peak':>11}{'update':>9}")
    for mode in options.modes:
        queue = context.Queue()
        process = context.Process(target=measure, args=(options.width, mode, queue))
        process.start()
        process.join()
        if process.exitcode:
            print(f"{mode:40}ended with exit code {process.exitcode}: out of memory?")
            continue
        base, trained, peak, seconds = queue.get()
        print(
            f"{mode:40}{base / 1e6:8.0f} M{trained / 1e6:8.1f} M{peak:8.2f} GiB{seconds:8.1f}s",
            flush=True,
        )


if __name__ == "__main__":
    main()
