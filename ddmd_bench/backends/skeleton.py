"""A backend's networks without their weights, on the meta device: shapes and operations alone.

A plan reads from them what a run will take, before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddmd_bench.hub import Remote
from ddmd_bench.hub.cache import find
from ddmd_bench.records import read_json

if TYPE_CHECKING:
    from torch import nn

    from ddmd_bench.distill.terms import Cond


@dataclass(frozen=True)
class Skeleton:
    """What `Backend.load_teacher` gives, and the networks at its sides, on the meta device."""

    denoiser: nn.Module
    cond: Cond  # of one prompt, as long as an encoder gives it
    vae: Any  # diffusers' AutoencoderKL; None where no network decodes


def on_meta(kind: str, remote: Remote, file: str, published: Mapping[str, Any]) -> Any:
    """A network of diffusers by its configuration: the repository's own where that is here.

    published: the configuration of the family's published model, which stands in for it.
    """
    import diffusers
    import torch

    here = find(remote).files.get(file)
    config = read_json(here) if here is not None else published
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(config)
