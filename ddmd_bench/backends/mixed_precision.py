"""Networks under torch.autocast whose frozen weights are kept in the dtype that it computes in.

It keeps its casts of trained weights while a pass lasts; frozen ones it would cast in each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# Layers all of whose weights go through operations of autocast's lower precision, on a CPU as on
# CUDA (PyTorch, Autocast Op Reference). These classes alone: a subclass may compute otherwise.
LOWERED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def lowered_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The weights that autocast casts to its lower precision before it computes."""
    for layer in network.modules():
        if type(layer) in LOWERED:
            yield from layer.parameters(recurse=False)


@torch.no_grad()
def keep_lowered(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep those weights that are frozen in autocast's dtype; its results stay, to the bit."""
    for parameter in lowered_weights(network):
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def input_dtype(network: Any, x_t: Tensor) -> torch.dtype:
    """In which dtype a network of diffusers takes its inputs.

    Its own, unless autocast is on: then weights have several, and casts are where they are needed.
    """
    device = x_t.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype: torch.dtype = x_t.dtype if autocast else network.dtype
    return dtype
