"""Published weights into a network: mapped from the disk, every key and shape matched.

A network is built without memory for its parameters (`empty`), and takes the tensors of the file
as they lie there, so that a billion parameters are ready as fast as the disk gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ddmd_bench.errors import BenchError
from ddmd_bench.files.reading import refuse
from ddmd_bench.files.tensors import SUFFIX, read_safetensors, read_torch

FETCH = "Delete it and fetch it again"
Shape = tuple[int, ...]
_SHOWN = 5  # keys of a kind that an error names


def read_tensors(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file or of a pickle, on the CPU, memory-mapped where it can be.

    `key` names the entry of a pickled dict that holds them. A pickle is read as data only.
    """
    if path.suffix == SUFFIX:
        return read_safetensors(path, FETCH)
    stored = read_torch(path, mapped=True, remedy=FETCH)
    if key is not None:
        if not isinstance(stored, dict) or key not in stored:
            raise refuse(path, _told(stored), f"an entry {key!r}", FETCH)
        stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise refuse(path, _told(stored), "tensors by name", FETCH)
    return dict(stored)


def _told(stored: Any) -> str:
    return f"it holds {_some(map(str, stored)) if isinstance(stored, dict) else type(stored)}"


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


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    shown = names[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
