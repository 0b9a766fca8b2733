"""A class of networks in diffusers, as far as files of weights differ from one to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class NetworkClass:
    """What reading weights of a network asks of its class."""

    name: str
    component: str  # its name in a pipeline
    # A network -> names in its authors' own code, each with the layers that it joins there.
    original_names: Callable[[Any], Mapping[str, tuple[str, ...]]]
    free_settings: frozenset[str]  # that change no output, or that `settings_of` sets
    # What the weights alone say of the architecture.
    settings_of: Callable[[Mapping[str, Tensor]], dict[str, Any]] = lambda state: {}

    def empty(self, config: Mapping[str, Any], **changed: Any) -> Any:
        """The architecture, its parameters without memory; what it computes beside them is here."""
        import diffusers
        from accelerate import init_empty_weights

        with init_empty_weights():
            return getattr(diffusers, self.name).from_config(dict(config), **changed)
