"""Weight files as they are published: safetensors, pickled state dicts, diffusers' folders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.errors import BenchError

PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, of a file or of a diffusers folder (one file or shards).

    A file that is no such thing, is cut short, or holds values that are not finite is an error.
    Pickles are read with `weights_only=True`, so that they can run nothing.
    """
    if not path.exists():
        raise BenchError(f"{path}: no such file or folder of weights")
    files = _folder_files(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_file(file)
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise BenchError(
            f"{path}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity, "
            f"first {broken[0]!r}; the file is damaged: fetch it again"
        )
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a diffusers folder."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{folder}: a folder of weights needs diffusers' config.json, {error}"
        ) from error
    if not isinstance(config, dict):
        raise BenchError(f"{folder / 'config.json'}: expected an object, found {type(config)}")
    return config


def _folder_files(folder: Path) -> list[Path]:
    """The weight files of a diffusers folder: full precision first, then the one variant it has."""
    plain = folder / "diffusion_pytorch_model.safetensors"
    if plain.is_file():
        return [plain]
    indices = sorted(folder.glob("diffusion_pytorch_model*.safetensors.index*.json"))
    singles = sorted(folder.glob("diffusion_pytorch_model.*.safetensors"))
    singles += sorted(folder.glob("diffusion_pytorch_model.bin"))
    if indices:
        shards = set(json.loads(indices[0].read_text())["weight_map"].values())
        return [folder / shard for shard in sorted(shards)]
    if len(singles) != 1:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise BenchError(
            f"{folder}: expected diffusion_pytorch_model.safetensors, its shards, or one variant "
            f"of it; the folder holds: {held}. Name the file itself where there are several"
        )
    return singles


def _read_file(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        elif file.suffix in PICKLED:
            found = torch.load(file, map_location="cpu", weights_only=True)
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
