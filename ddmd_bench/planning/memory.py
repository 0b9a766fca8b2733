"""Memory of a training before it starts: weights, gradients and optimizer states.

What activations take comes on top and is not estimated: it depends on kernels and checkpointing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from ddmd_bench.backends import Backend
from ddmd_bench.objective.methods import METHODS, Method
from ddmd_bench.planning.downloads import gigabytes
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import TrainSettings

FLOAT32 = 4
# Bytes a parameter that an optimizer keeps: two moments, in float32 or in 8 bits.
STATES = {"adamw": 8, "adamw_8bit": 2}

Shapes = Mapping[str, tuple[int, ...]]  # of a network's parameters, by name


def training_bytes(
    shapes: Shapes, method: Method, settings: TrainSettings, lora_targets: Iterable[str]
) -> int:
    """Bytes of all networks of a training, with gradients and optimizer states."""
    num = sum(map(prod, shapes.values()))
    trained = 1 + (method.tau_dm is not None or method.gan)  # the student, and a fake score
    kept = 2 * FLOAT32 + STATES[settings.optimizer]  # weight, gradient, moments
    average = FLOAT32 if settings.ema else 0
    if settings.lora_rank is None:
        return num * (FLOAT32 + trained * kept + average)
    own = adapter_parameters(shapes, settings.lora_rank, lora_targets)
    return num * FLOAT32 + own * (trained * kept + average)


def adapter_parameters(shapes: Shapes, rank: int, targets: Iterable[str]) -> int:
    """Parameters of one LoRA adapter: rank * (inputs + outputs) of each layer that it joins."""
    ends = tuple(f".{target}.weight" for target in targets)
    joined = [shape for name, shape in shapes.items() if f".{name}".endswith(ends)]
    return sum(rank * (prod(shape[1:]) + shape[0]) for shape in joined)


def shapes_of(backend: Backend) -> Shapes:
    """Shapes of the parameters of a backend's network, read without its weights."""
    named = backend.skeleton().denoiser.named_parameters()
    return {name: tuple(value.shape) for name, value in named}


def memory_lines(suite: Suite, backend: Backend) -> list[str]:
    """One line for each trained student."""
    shapes = shapes_of(backend)
    return [
        f"memory of {name}: {gigabytes(_bytes(suite, backend, shapes, name))}, activations on top"
        for name, student in suite.students.items()
        if student.source == "train"
    ]


def memory_problems(suite: Suite, backend: Backend, available: int) -> list[str]:
    """Trainings that cannot fit into so many bytes of a GPU, whatever the batch."""
    problems, shapes = [], shapes_of(backend)
    for name, student in suite.students.items():
        if student.source != "train":
            continue
        needed = _bytes(suite, backend, shapes, name)
        if needed > available:
            lora = suite.train_settings(name).lora_rank is None
            todo = "set train.lora_rank (64)" if lora else "take a GPU with more memory"
            problems.append(
                f"students.{name}: weights, gradients and optimizer states take "
                f"{needed / 1e9:.1f} GB, the GPU has {available / 1e9:.1f} GB; {todo}, or set "
                "train.optimizer to adamw_8bit"
            )
    return problems


def gpu_problems(suite: Suite, backend: Backend) -> list[str]:
    """Trainings that cannot fit into this machine's GPU; without one there is no limit."""
    import torch

    if not torch.cuda.is_available():
        return []
    return memory_problems(suite, backend, torch.cuda.get_device_properties(0).total_memory)


def _bytes(suite: Suite, backend: Backend, shapes: Shapes, student: str) -> int:
    method = METHODS[suite.students[student].method or ""]
    settings = suite.train_settings(student)
    return training_bytes(shapes, method, settings, backend.lora_targets)
