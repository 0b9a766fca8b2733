"""The network of a student that was trained elsewhere: whole, or its base, with LoRAs in order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ddmd_bench.backends.loras import fuse_lora, read_lora
from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.backends.pipelines import dtype_of, load_network
from ddmd_bench.backends.repository import Parts
from ddmd_bench.backends.weights import read_shapes
from ddmd_bench.backends.whole_networks import architecture, load_whole


def student_network(
    parts: Parts, kind: NetworkClass, whole: Path | None, loras: Iterable[tuple[Path, float]]
) -> Any:
    """A network on the CPU, frozen.

    whole: weights in place of the base's, of which then nothing is read. loras: with their scales.
    """
    loras = list(loras)
    if whole is None:
        network = load_network(parts, kind.name)
    else:
        # Sums are made in float32; without any, the dtype of sampling rounds as early or late.
        dtype = torch.float32 if loras else dtype_of(parts)
        network = load_whole(kind, parts.network_config(), whole, dtype)
    for place, scale in loras:
        fuse_lora(network, kind, place, scale)
    return network.requires_grad_(False).eval()


def check_student(
    parts: Parts, kind: NetworkClass, whole: Path | None, loras: Iterable[tuple[Path, float]]
) -> None:
    """Raise what `student_network` would raise, but for damage inside a whole network's tensors."""
    config = parts.network_config()
    if whole is None:
        network = kind.empty(config)
    else:
        network = architecture(kind, config, whole, read_shapes(whole))
    for place, _ in loras:
        read_lora(network, kind, place)
