"""The file of a LoRA: its tensors, and what it or its folder states of alpha and rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddmd_bench.backends.weight_files import PEFT, PEFT_CONFIG, lora_file
from ddmd_bench.backends.weights import read_weights
from ddmd_bench.errors import BenchError
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import parse_json, read_record
from ddmd_bench.files.tensors import SUFFIX, open_safetensors

METADATA = "lora_adapter_metadata"  # under which diffusers writes peft's settings into a file
WRAPPED = "base_model.model."  # before each key that peft's `save_pretrained` writes
# Settings of peft that say nothing of what the tensors are, or are read here.
READ = frozenset({"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias"})
SILENT = frozenset({
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out", "bias",
    "init_lora_weights", "layers_to_transform", "layers_pattern", "megatron_config",
    "megatron_core", "runtime_config", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "modules_to_save",
})  # fmt: skip
# How training began, where that left the base as it was; others keep a part of it in the adapter.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraFile:
    """Tensors by the file's own keys, and peft's settings where the file has them."""

    path: Path
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any] | None

    def scaling(self, layer: str, rank: int, alpha: float | None) -> float:
        """What the product of a layer's two factors is multiplied with: alpha / rank.

        alpha: the file's own of this layer. Where nothing states any, it is the rank.
        """
        from peft.utils.other import get_pattern_key

        if self.settings is None:
            return 1.0 if alpha is None else alpha / rank
        if alpha is not None:
            raise BenchError(f"{self.path}: both a tensor and the settings state alpha of {layer}")
        found = {}
        for name, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
            special = self.settings[pattern] or {}
            key = get_pattern_key(list(special), layer)
            found[name] = special.get(key, self.settings[name])
        if found["r"] != rank:
            raise BenchError(f"{self.path}: {layer} has rank {rank}, its settings say {found['r']}")
        alpha = float(found["lora_alpha"])
        return alpha / (math.sqrt(rank) if self.settings["use_rslora"] else rank)


def read_lora_file(place: Path, component: str) -> LoraFile:
    """A LoRA's file, or the one in a folder.

    component: the network's name in a pipeline, before its settings where diffusers wrote them.
    """
    path = lora_file(place) if place.is_dir() else place
    tensors = read_weights(path)
    given = _settings(path, tensors, component)
    if given is None:
        return LoraFile(path, tensors, None)
    from peft import LoraConfig

    defaults = LoraConfig().to_dict()
    _refuse_other_kinds(path, given, defaults)
    return LoraFile(path, tensors, defaults | given)


def _settings(path: Path, tensors: Mapping[str, Tensor], component: str) -> dict[str, Any] | None:
    beside = path.parent / PEFT_CONFIG
    if path.stem == PEFT or any(key.startswith(WRAPPED) for key in tensors):
        if not beside.is_file():
            raise BenchError(
                f"{path}: peft wrote this LoRA, and its {PEFT_CONFIG}, which states alpha, is not "
                "beside it. Copy it there, or name the folder that holds both"
            )
        return dict(read_record(beside, remedy=FETCH_AGAIN))
    if path.suffix != SUFFIX:
        return None
    with open_safetensors(path, remedy=FETCH_AGAIN) as file:
        written = (file.metadata() or {}).get(METADATA)
    if not written:
        return None
    found = _parsed(path, written)
    own = {key: value for key, value in found.items() if "." not in key}
    mark = f"{component}."
    return own | {k.removeprefix(mark): v for k, v in found.items() if k.startswith(mark)} or None


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise BenchError(f"{path}: its settings are not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BenchError(f"{path}: its settings are no object, found {type(found).__name__}")
    return found


def _refuse_other_kinds(path: Path, settings: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Adapters that are more, or other, than a product of two factors on a layer."""
    kind = settings.get("peft_type") or "LORA"
    odd = [] if kind == "LORA" else [f"peft_type is {kind}"]
    odd += [
        f"{key} is {value!r}"
        for key, value in settings.items()
        if key not in READ | SILENT and value and value != plain.get(key)
    ]
    if settings.get("init_lora_weights", True) not in PLAIN_STARTS:
        odd.append(f"init_lora_weights is {settings['init_lora_weights']!r}")
    if odd:
        raise BenchError(
            f"{path}: not a plain LoRA: {'; '.join(odd[:3])}. Merge it into its network, and name "
            "the whole network instead"
        )
