"""Which files of a folder are a network's weights, or a LoRA's; by names and an index of shards."""

from __future__ import annotations

from pathlib import Path

from ddmd_bench.errors import BenchError
from ddmd_bench.hub.shards import shards_of

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
NETWORK = "diffusion_pytorch_model"  # how diffusers names a network's weights
CONFIG = "config.json"  # of a network in a folder
# As diffusers and peft name a LoRA in a folder; peft's has its settings beside it.
LORA = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
PEFT, PEFT_CONFIG = "adapter_model", "adapter_config.json"


def network_files(folder: Path) -> list[Path]:
    """The weights of a diffusers folder: full precision first, then the one variant it has.

    Shards come after the index that names them.
    """
    plain = folder / f"{NETWORK}.safetensors"
    if plain.is_file():
        return [plain]
    indices = sorted(folder.glob(f"{NETWORK}*.safetensors.index*.json"))
    if indices:
        return [indices[0], *(folder / shard for shard in shards_of(indices[0]))]
    singles = sorted(folder.glob(f"{NETWORK}.*.safetensors")) + sorted(
        folder.glob(f"{NETWORK}.bin")
    )
    if len(singles) != 1:
        raise BenchError(
            f"{folder}: expected {plain.name}, its shards, or one variant of it; the folder holds: "
            f"{_held(folder)}. Name the file itself where there are several"
        )
    return singles


def lora_file(folder: Path) -> Path:
    """The LoRA of a folder: by the name that diffusers or peft gives it, else its only weights."""
    for name in LORA:
        if (folder / name).is_file():
            return folder / name
    ends = (".safetensors", *PICKLED)
    found = sorted(path for path in folder.iterdir() if path.suffix in ends)
    if len(found) != 1:
        several = f"several files of weights: {', '.join(path.name for path in found[:8])}"
        raise BenchError(
            f"{folder}: expected a LoRA named {' or '.join(LORA)}, or one file of weights; the "
            f"folder holds {several if found else _held(folder)}. Name the file itself"
        )
    return found[0]


def _held(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
