"""LoRA adapters: several students on one frozen base."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from ddmd_bench.backends import Backend

UNKNOWN = ""  # no adapter's name


class Adapters:
    """LoRA adapters on one frozen base; one of them, or none, is selected at a time."""

    def __init__(self, base: nn.Module, backend: Backend, rank: int, alpha: int) -> None:
        self.base, self.rank, self.alpha = base, rank, alpha
        self.targets = list(backend.lora_targets)
        self.layers: list[Any] = []  # that adapters join; SDXL has twelve thousand others
        self.selected: str | None = UNKNOWN
        self.parameters: dict[str, dict[str, nn.Parameter]] = {}  # by adapter, then by name

    def add(self, name: str, seed: int) -> dict[str, nn.Parameter]:
        """A new adapter that starts as the base, since its second factor is zero (LoRA)."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=self.targets)
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # ours, of a role
            torch.manual_seed(seed)
            inject_adapter_in_model(config, self.base, adapter_name=name)
        mark = f".{name}."
        own = {k.replace(mark, "."): p for k, p in self.base.named_parameters() if mark in k}
        self.parameters[name] = own
        self.layers = [m for m in self.base.modules() if isinstance(m, BaseTunerLayer)]
        # peft freezes all but the new one, but a backward pass may come after another selection.
        for parameters in self.parameters.values():
            for parameter in parameters.values():
                parameter.requires_grad_(True)
        self.selected = UNKNOWN  # peft leaves the first one active
        return own

    def select(self, name: str | None) -> None:
        """Use an adapter, or with None the base alone; what is trained stays what it is."""
        if name == self.selected:
            return
        for layer in self.layers:
            # What peft's `enable_adapters` and `set_adapter` set beside every `requires_grad`,
            # which takes twenty times as long, hundreds of times an update.
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        self.selected = name

    @torch.no_grad()
    def fuse(self) -> None:
        """Add the selected adapter to the base's weights, as a LoRA from elsewhere is loaded.

        What is left is a plain network: no other adapter can be selected.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        adapted = [n for n, layer in self.base.named_modules() if isinstance(layer, BaseTunerLayer)]
        for name in adapted:
            layer: Any = self.base.get_submodule(name)
            plain = layer.get_base_layer()
            down, up = (side[self.selected].weight for side in (layer.lora_A, layer.lora_B))
            # A kernel of one pixel stands behind a convolution's own: a product of matrices too.
            product = (up.flatten(1) @ down.flatten(1)).view_as(plain.weight)
            plain.weight += self.alpha / self.rank * product
            self.base.set_submodule(name, plain)
