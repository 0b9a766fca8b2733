"""Published weights into a network: mapped from the disk, every key and shape matched.

A network is built without memory for its parameters (`empty`), and takes the tensors of the file
as they lie there, so that a billion parameters are ready as fast as the disk gives them.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ddmd_bench.errors import BenchError

Shape = tuple[int, ...]
_SHOWN = 5  # keys of a kind that an error names


def read_tensors(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a pickle, on the CPU, memory-mapped where it can be.

    `key` names the entry of a pickled dict that holds them. A pickle is read as data only.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only torch's format since 1.6, a zip file, can be mapped.
        mapped = zipfile.is_zipfile(path)
        stored = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise BenchError(
            f"{path}: not a file of weights ({str(error).splitlines()[0]}). "
            "Delete it and fetch it again"
        ) from error
    if key is not None:
        if key not in stored:
            raise BenchError(f"{path}: no entry {key!r}, found {_some(stored)}")
        stored = stored[key]
    return dict(stored)


def empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A network whose parameters have shapes and no memory; its buffers are real."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = build()
    return network.requires_grad_(False).eval()


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Every key with its shape."""
    return {name: tuple(value.shape) for name, value in tensors.items()}


def load_strictly(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    path: Path,
    surplus: Collection[str] = (),
) -> None:
    """Give a network the tensors themselves; missing, unexpected and misshapen ones are an error.

    `surplus` are keys that a file may hold beyond the network's.
    """
    found = {name: value for name, value in tensors.items() if name not in surplus}
    refuse_misfit(path, shapes_of(network.state_dict()), shapes_of(found))
    network.load_state_dict(found, assign=True)


def refuse_misfit(path: Path, expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Every expected key must be there with its shape, and no other."""
    if wrong := misfit(expected, found):
        raise BenchError(f"{path}: not the weights of this network. {wrong}")


def misfit(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> str:
    """How many keys are missing, unexpected or of another shape, with a few; '' where all fit."""
    wrong = {
        "missing": expected.keys() - found,
        "unexpected": found.keys() - expected,
        "of another shape": {
            f"{name} {found[name]}, expected {expected[name]}"
            for name in expected.keys() & found
            if found[name] != expected[name]
        },
    }
    return "; ".join(f"{len(v)} {kind}: {_some(v)}" for kind, v in wrong.items() if v)


def _some(names: Collection[str]) -> str:
    shown = sorted(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
