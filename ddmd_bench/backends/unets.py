"""What backends on diffusers' `UNet2DConditionModel` share: the step's embedding, LoRA's layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.objective.terms import Cond

# The layers that DMD2's LoRA joins: attention, feed-forward, convolutions, time projections.
LORA_TARGETS = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2",
    "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip


def add_step_embedding(unet: Any, num_steps: int) -> None:
    """Let a UNet read which of the student's steps made a sample, beside the time.

    The embedding starts at zero, so that nothing changes; its last row, for inputs that come from
    no step, stays zero.
    """
    size = unet.time_embedding.linear_2.out_features
    unet.class_embedding = nn.Embedding(num_steps + 1, size, padding_idx=num_steps)
    nn.init.zeros_(unet.class_embedding.weight)


def step_labels(unet: Any, num: int, cond: Cond, device: torch.device) -> Tensor | None:
    """The step of each of `num` samples, [num], for a UNet that has the embedding."""
    embedding = unet.class_embedding
    if embedding is None or "step" in cond:
        return cond.get("step")
    return torch.full((num,), embedding.padding_idx, device=device)
