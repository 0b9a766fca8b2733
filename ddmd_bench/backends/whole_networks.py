"""A whole network of a student, in diffusers' keys, into the architecture of its base.

The base's configuration is enough: none of its weights are read. Strict: a tensor that has no
place, or a place without its tensor, is an error, never a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.network_class import NetworkClass
from ddmd_bench.backends.weights import read_config, read_weights
from ddmd_bench.errors import BenchError

NUM_NAMED = 3  # differences that an error spells out


def load_whole(kind: NetworkClass, base: Mapping[str, Any], place: Path, dtype: torch.dtype) -> Any:
    """A network of the class, in the dtype, on the CPU.

    base: the base's configuration. place: a state dict in one file, or a folder with a
    configuration of its own, which must then be the base's.
    """
    state = read_weights(place)
    network = architecture(kind, base, place, state)
    for key in state:  # one by one: half-precision files are large, and twice that in float32
        state[key] = state[key].to(dtype)
    network.load_state_dict(state, assign=True)
    assert not any(t.is_meta for t in chain(network.parameters(), network.buffers()))
    return network


def architecture(
    kind: NetworkClass, base: Mapping[str, Any], place: Path, state: Mapping[str, Tensor]
) -> Any:
    """The empty network that weights fill to the last tensor; these may be on the meta device."""
    if place.is_dir():
        _check_config(kind, base, place)
    network = kind.empty(base, **kind.settings_of(state))
    expected = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if found != expected:
        raise BenchError(
            f"{place} holds another network than the base's {kind.name}: "
            f"{_differences(expected, found)}"
        )
    return network


def _check_config(kind: NetworkClass, base: Mapping[str, Any], folder: Path) -> None:
    """What shapes do not show, such as the number of heads, must be the base's too."""
    config = read_config(folder)
    if config.get("_class_name", kind.name) != kind.name:
        raise BenchError(f"{folder}: holds a {config['_class_name']}, not a {kind.name}")
    # Through the class, which adds its defaults to what an older file leaves out.
    found, wanted = (kind.empty(one).config for one in (config, base))
    settings = [k for k in wanted if not k.startswith("_") and k not in kind.free_settings]
    odd = [k for k in settings if _plain(found.get(k)) != _plain(wanted[k])]
    if odd:
        named = "; ".join(f"{k} is {found.get(k)}, not {wanted[k]}" for k in odd[:NUM_NAMED])
        raise BenchError(
            f"{folder} holds another network than the base's {kind.name}: "
            f"{len(odd)} settings differ: {named}"
        )


def _plain(value: Any) -> Any:
    """Lists for tuples, as JSON has them."""
    return list(value) if isinstance(value, tuple) else value


def _differences(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> str:
    """How many tensors differ, and the first of them."""
    shapes = [
        f"{k} has shape {list(found[k])}, not {list(expected[k])}"
        for k in expected
        if k in found and found[k] != expected[k]
    ]
    missing = [f"{k} is missing" for k in expected if k not in found]
    extra = [f"{k} is not known" for k in found if k not in expected]
    # One of each kind first, so that a reader sees what sort of difference it is.
    kinds = [kind for kind in (shapes, missing, extra) if kind]
    named = [kind[0] for kind in kinds] + [line for kind in kinds for line in kind[1:]]
    counts = f"{len(shapes)} other shapes, {len(missing)} missing, {len(extra)} not known"
    return f"{counts} of {len(expected)} tensors: {'; '.join(named[:NUM_NAMED])}"
