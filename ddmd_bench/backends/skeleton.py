"""A backend's networks without their weights, on the meta device: shapes and operations alone.

A plan reads from them what a run will take, before anything is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record
from ddmd_bench.hub import Remote
from ddmd_bench.hub.cache import find

if TYPE_CHECKING:
    from torch import nn

    from ddmd_bench.objective.terms import Cond


@dataclass(frozen=True)
class Skeleton:
    """What `Backend.load_teacher` gives, and the networks at its sides, on the meta device."""

    denoiser: nn.Module
    cond: Cond  # of one prompt, as long as an encoder gives it
    vae: Any  # diffusers' AutoencoderKL; None where no network decodes


def on_meta(kind: str, remote: Remote, file: str, stand_in: Mapping[str, Any]) -> Any:
    """A network of diffusers by its configuration: the repository's own where that is here.

    stand_in: the configuration of the family's published model, which stands in for it.
    """
    import diffusers
    import torch

    here = find(remote).files.get(file)
    config = read_record(here, remedy=FETCH_AGAIN) if here is not None else stand_in
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(config)
