"""Bytes of what runs keep: images, embeddings, networks with gradients and optimizer states.

What holds tensors is known to the byte but for small headers. An image is counted as if its PNG
compressed nothing, which noise comes near; a photograph takes about half of it or less.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from ddmd_bench.backends.facts import Facts, Shapes
from ddmd_bench.files.ranks import Group
from ddmd_bench.objective.methods import Method
from ddmd_bench.suite.settings import TrainSettings

FLOAT32 = 4
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes a parameter that an optimizer keeps: two moments, in float32 or in 8 bits.
STATES = {"adamw": 8, "adamw_8bit": 2}
ALONE = Group()
RECORD = 1024  # of metadata and of a table's row, an image; a prompt of 4,000 letters is rare


def gigabytes(num_bytes: int) -> str:
    """10^9 bytes, with as many digits as tell a small file from none."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.3f} MB"


def png_bytes(height: int, width: int) -> int:
    """No 8-bit RGB PNG that this package writes is larger: raw levels, filters, block headers."""
    raw = height * (3 * width + 1)
    return raw + raw // 500 + 1024


def adapter_parameters(shapes: Shapes, rank: int, targets: Iterable[str]) -> int:
    """Parameters of one LoRA adapter: rank * (inputs + outputs) of each layer that it joins."""
    ends = tuple(f".{target}.weight" for target in targets)
    joined = [shape for name, shape in shapes.items() if f".{name}".endswith(ends)]
    return sum(rank * (prod(shape[1:]) + shape[0]) for shape in joined)


class TrainingMemory(NamedTuple):
    """Bytes that a training holds beside activations, which depend on kernels and checkpointing."""

    frozen: int  # weights that are not trained
    trained: int  # weights that are, gradients of one network, and the average of the student's
    states: int  # of the optimizers
    gradients: int  # of one network
    adapters: bool = False  # what is trained is no network's own, and never kept in parts

    def each(self, sharding: str = "none", group: Group = ALONE) -> int:
        """Of each rank; blocks whose weights are gathered while they run come on top."""
        if sharding == "optimizer":
            return self.frozen + self.trained + -(-self.states // group.num)
        in_parts = 0
        if sharding == "weights":
            in_parts = self.frozen if self.adapters else sum(self[:3])
        return sum(self[:3]) - in_parts + -(-in_parts // group.per_machine)


class TrainingBytes(NamedTuple):
    """Bytes of one training.

    The discriminator's head and the step's embedding are not counted: they are small.
    """

    memory: TrainingMemory
    checkpoint: int  # under way
    weights: int  # of the student, that it leaves


def training_bytes(
    facts: Facts, method: Method, settings: TrainSettings, lora_targets: Iterable[str]
) -> TrainingBytes:
    """Of a method's networks: a frozen teacher, the student, and a fake score where it has one.

    Only what is frozen is kept in the training's precision, and of it what autocast casts.
    """
    base = sum(map(prod, facts.shapes.values()))
    frozen = base * FLOAT32 - facts.lowered * (FLOAT32 - DTYPE_BYTES[settings.precision])
    own = base
    if settings.lora_rank is not None:
        own = adapter_parameters(facts.shapes, settings.lora_rank, lora_targets)
    trained = 1 + (method.tau_dm is not None or method.gan)
    states, average = STATES[settings.optimizer], FLOAT32 * bool(settings.ema)
    return TrainingBytes(
        memory=TrainingMemory(
            frozen,
            own * ((trained + 1) * FLOAT32 + average),  # one network's gradients at once
            own * trained * states,
            own * FLOAT32,
            adapters=settings.lora_rank is not None,
        ),
        checkpoint=own * (trained * (FLOAT32 + states) + average),
        weights=own * FLOAT32,
    )
