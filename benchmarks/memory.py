"""Peak memory of training all weights and of training adapters, on a large UNet of random weights.

    python -m benchmarks.memory [--width 240] [--modes full lora]

The UNet has Stable Diffusion 1.5's layout; width 320 is its size (860 M parameters). Each mode
runs two updates of the decoupled hybrid in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import resource
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.table import Table, as_text
from ddmd_bench.backends.shapes.backend import ShapesDenoiser, make_backend
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


def results(width: int = 240, modes: Sequence[str] = tuple(MODES)) -> Table:
    """Each mode in a process of its own."""
    context = multiprocessing.get_context("spawn")
    rows, first = [], None
    for mode in modes:
        queue = context.Queue()
        process = context.Process(target=measure, args=(width, mode, queue))
        process.start()
        process.join()
        if process.exitcode:
            ended = f"ended with exit code {process.exitcode}: out of memory?"
            rows.append((mode, "-", "-", ended, "-", "-"))
            continue
        base, trained, peak, seconds = queue.get()
        first = first or peak
        millions = f"{base / 1e6:.0f}", f"{trained / 1e6:.1f}"
        rows.append((mode, *millions, f"{peak:.2f}", f"{peak / first:.2f}", f"{seconds:.1f}"))
    return Table(
        "Adapters and gradient checkpointing take less memory than training all weights.",
        ("mode", "weights, M", "trained, M", "peak, GiB", "over the first", "update, s"),
        rows,
        (f"A UNet of width {width} in Stable Diffusion 1.5's layout, batch 4, two updates each.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
