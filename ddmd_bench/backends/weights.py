"""Weight files as they are published: safetensors, pickled state dicts, diffusers' folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.weight_files import PICKLED, network_files
from ddmd_bench.errors import BenchError
from ddmd_bench.files.reading import FETCH_AGAIN, refuse
from ddmd_bench.files.records import read_record
from ddmd_bench.files.tensors import SUFFIX, open_safetensors, read_safetensors, read_torch


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of a file or of a diffusers folder (one file or shards).

    A file that is no such thing, is cut short, or holds values that are not finite is an error.
    Pickles are read with `weights_only=True`, so that they can run nothing.
    """
    tensors = _read_all(path, "cpu")
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise BenchError(
            f"{path}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity, "
            f"first {broken[0]!r}; the file is damaged: fetch it again"
        )
    return tensors


def read_shapes(path: Path) -> dict[str, Tensor]:
    """The same tensors on the meta device: of a file only what says their shapes is read."""
    return _read_all(path, "meta")


def _read_all(path: Path, device: str) -> dict[str, Tensor]:
    if not path.exists():
        raise BenchError(f"{path}: no such file or folder of weights")
    tensors: dict[str, Tensor] = {}
    for file in network_files(path) if path.is_dir() else [path]:
        if file.suffix != ".json":  # the index of shards
            tensors |= _read_file(file, device)
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a diffusers folder."""
    whole = "A folder of weights needs diffusers' config.json: give one that has it"
    config: dict[str, Any] = read_record(folder / "config.json", remedy=whole)
    return config


def _read_file(file: Path, device: str) -> dict[str, Tensor]:
    if file.suffix == SUFFIX:
        return read_safetensors(file, FETCH_AGAIN) if device == "cpu" else _shapes(file, device)
    if file.suffix not in PICKLED:
        raise BenchError(f"{file}: expected a file ending in {SUFFIX}, {', '.join(PICKLED)}")
    found = read_torch(file, device, remedy=FETCH_AGAIN)
    if not (isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())):
        keys = list(found)[:3] if isinstance(found, Mapping) else type(found).__name__
        raise refuse(file, f"found {keys}", "tensors by name", FETCH_AGAIN)
    return dict(found)


def _shapes(file: Path, device: str) -> dict[str, Tensor]:
    with open_safetensors(file, remedy=FETCH_AGAIN) as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
        return {k: torch.empty(s.get_shape(), device=device) for k, s in slices.items()}
