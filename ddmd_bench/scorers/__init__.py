"""What is measured (`METRICS`) and what measures it (`SCORERS`). Importing loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.records import content_key
from ddmd_bench.scorers.metrics import METRICS, Metric
from ddmd_bench.scorers.weights import (
    INCEPTION,
    Weights,
    attribute_weights,
    efficientnet_weights,
    identity,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["METRICS", "SCORERS", "Metric", "Scored", "Scorer", "ScorerModel", "needed_scorers"]


class Scored(NamedTuple):
    """What a scorer says about one batch, on the CPU."""

    columns: dict[str, Tensor]  # [B] each
    features: Tensor | None  # [B, d]


class ScorerModel(Protocol):
    """A scorer with its weights; what each module's `load` returns."""

    def preprocess(self, image: Image) -> Tensor:
        """What the network reads of one image, on the CPU; called from several threads at once.

        The image is upright, with 8 bits a channel, in any of Pillow's modes L, LA, P, RGB, RGBA,
        and of any size. Images whose tensors have equal shapes are scored in one batch.
        """

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """What the scorer reads of each prompt, on the CPU; empty dicts where it reads none.

        A prompt that is longer than the scorer reads has a key `truncated`, a tensor True.
        """

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Inputs [B, ...], stacked from `preprocess`; text: each image's prompt, encoded."""


class ScorerModule(Protocol):
    """What each module of this package offers."""

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The scorer of that name in `SCORERS`; its numbers come out in float32 or float64."""


@dataclass(frozen=True)
class Scorer:
    """A module, loaded when first used, and the metrics that it gives per image."""

    module: str
    columns: tuple[str, ...] = ()
    weights: tuple[Weights, ...] = ()  # what its numbers depend on
    num_features: int | None = None
    batch_size: int = 64  # at most; halved where memory runs out
    protocol: str = ""  # how an image becomes its input, where values hang on it

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The module's scorer, with torch."""
        return cast(ScorerModule, import_module(self.module)).load(name, device, dtype)


SCORERS = {
    "images": Scorer("ddmd_bench.scorers.images", ("mean", "std", "high_frequency")),
    "attributes": Scorer(
        "ddmd_bench.scorers.attributes", ("prompt_accuracy",),
        (Weights("the attribute network", ("attributes.safetensors",), package=attribute_weights),),
        num_features=128,
    ),
    "efficientnet": Scorer(
        "ddmd_bench.scorers.efficientnet", (),
        (Weights("EfficientNet-Lite0", ("efficientnet_lite0.pth",), package=efficientnet_weights),),
        num_features=112,
    ),
    "inception": Scorer(
        "ddmd_bench.scorers.inception", (), (INCEPTION,), num_features=2048, batch_size=128,
        protocol="clean-fid's resize to 299 px: Pillow's bicubic filter on float32 channels",
    ),
    "inception_dmd2": Scorer(
        "ddmd_bench.scorers.inception", (), (INCEPTION,), num_features=2048, batch_size=128,
        protocol="centre square, Lanczos to 512 px, clean-fid's resize to 299 px",
    ),
    "inception_patch": Scorer(
        "ddmd_bench.scorers.inception", (), (INCEPTION,), num_features=2048, batch_size=128,
        protocol="centre 299 px, not resized; below that size clean-fid's resize of the whole",
    ),
}  # fmt: skip


def needed_scorers(metrics: Iterable[str]) -> list[str]:
    """Names of the scorers that the metrics need, in the order of `SCORERS`."""
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, METRICS))
    extractors = {METRICS[name].extractor for name in wanted}
    return [k for k, row in SCORERS.items() if k in extractors or set(row.columns) & set(wanted)]


def weights_sha256(names: Iterable[str]) -> dict[str, str]:
    """Of each scorer that has weights their sha256, or of several files the hash of theirs."""
    found = {name: [identity(w) for w in SCORERS[name].weights] for name in names}
    files = {
        name: {k: v for part in parts for k, v in part.items()} for name, parts in found.items()
    }
    return {
        name: next(iter(hashes.values())) if len(hashes) == 1 else content_key(hashes)
        for name, hashes in files.items()
        if hashes
    }
