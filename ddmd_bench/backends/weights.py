"""Weight files as they are published: safetensors, pickled state dicts, diffusers' folders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.backends.weight_files import PICKLED, network_files
from ddmd_bench.errors import BenchError


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
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{folder}: a folder of weights needs diffusers' config.json, {error}"
        ) from error
    if not isinstance(config, dict):
        raise BenchError(f"{folder / 'config.json'}: expected an object, found {type(config)}")
    return config


def _read_file(file: Path, device: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    try:
        if file.suffix == ".safetensors":
            found: Any = _read_safetensors(file, device)
        elif file.suffix in PICKLED:
            found = torch.load(file, map_location=device, weights_only=True)
        else:
            raise BenchError(
                f"{file}: expected a file ending in .safetensors, {', '.join(PICKLED)}"
            )
    except pickle.UnpicklingError as error:
        raise BenchError(
            f"{file}: not a plain state dict; a pickle of anything else is not read, since reading "
            f"it could run code. {str(error).splitlines()[0]}"
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError) as error:
        raise BenchError(
            f"{file}: cannot be read, the file is damaged or cut short: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    if not (isinstance(found, Mapping) and all(isinstance(v, Tensor) for v in found.values())):
        keys = list(found)[:3] if isinstance(found, Mapping) else type(found).__name__
        raise BenchError(f"{file}: expected tensors by name, found {keys}")
    return dict(found)


def _read_safetensors(file: Path, device: str) -> dict[str, Tensor]:
    from safetensors import safe_open
    from safetensors.torch import load_file

    if device == "cpu":
        return load_file(file)
    with safe_open(file, "pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
        return {k: torch.empty(s.get_shape(), device=device) for k, s in slices.items()}
