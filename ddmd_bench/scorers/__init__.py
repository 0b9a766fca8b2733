"""What is measured (`METRICS`) and what measures it (`SCORERS`). Importing loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.hub import Remote
from ddmd_bench.records import content_key
from ddmd_bench.scorers.metrics import METRICS, Metric
from ddmd_bench.scorers.weights import (
    Weights,
    attribute_weights,
    efficientnet_weights,
    identity,
    remote_needed,
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


class PromptScorer(Protocol):
    """What a scorer with `prompt_columns` offers beside."""

    def score_prompt(self, inputs: Tensor) -> dict[str, float]:
        """Those columns of all the images [k, ...] of one prompt."""


class ScorerModule(Protocol):
    """What each module of this package offers."""

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The scorer of that name in `SCORERS`; its numbers come out in float32 or float64."""


@dataclass(frozen=True)
class Scorer:
    """A module, loaded when first used, and the metrics that it gives per image."""

    module: str
    columns: tuple[str, ...] = ()
    prompt_columns: tuple[str, ...] = ()  # of all images of a prompt: see `PromptScorer`
    weights: tuple[Weights, ...] = ()  # what its numbers depend on
    num_features: int | None = None
    batch_size: int = 64  # at most; halved where memory runs out
    reads_prompts: bool = True
    # What `doctor` asks it: two prompts, and images of so many pixels a side.
    example_prompts: tuple[str, str] = ("a red circle on a wall", "a photograph of a forest")
    example_size: int = 256

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The module's scorer, with torch."""
        return cast(ScorerModule, import_module(self.module)).load(name, device, dtype)


_ATTRIBUTES = Weights("attribute network", ("attributes.safetensors",), package=attribute_weights)
_EFFICIENTNET = Weights(
    "EfficientNet-Lite0", ("efficientnet_lite0.pth",), package=efficientnet_weights
)

SCORERS = {
    "images": Scorer(
        "ddmd_bench.scorers.images", ("mean", "std", "high_frequency"), ("diversity",),
        reads_prompts=False,
    ),
    "attributes": Scorer(
        "ddmd_bench.scorers.attributes", ("prompt_accuracy",),
        weights=(_ATTRIBUTES,), num_features=128, example_size=32,
        example_prompts=(
            "a large red circle in the centre on a white background",
            "a small blue square at the top on a black background",
        ),
    ),
    "efficientnet": Scorer(
        "ddmd_bench.scorers.efficientnet", weights=(_EFFICIENTNET,), num_features=112,
        reads_prompts=False,
    ),
}  # fmt: skip


def needed_scorers(metrics: Iterable[str]) -> list[str]:
    """Names of the scorers that the metrics need, in the order of `SCORERS`."""
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, METRICS))
    extractors = {METRICS[name].extractor for name in wanted}
    return [
        name
        for name, row in SCORERS.items()
        if name in extractors or {*row.columns, *row.prompt_columns} & set(wanted)
    ]


def outside_scorers(metrics: Iterable[str]) -> list[str]:
    """The needed scorers with weights that no package carries: what a run has examined first."""
    return [
        name
        for name in needed_scorers(metrics)
        if any(weights.package is None for weights in SCORERS[name].weights)
    ]


def scorer_remotes(names: Iterable[str]) -> list[Remote]:
    """The scorers' weights that are to be fetched, or have been."""
    found = [remote_needed(weights) for name in names for weights in SCORERS[name].weights]
    return list(dict.fromkeys(remote for remote in found if remote is not None))


@cache
def loaded(name: str, device: str, dtype: torch.dtype) -> ScorerModel:
    """A scorer with its weights; it stays in memory for the students that follow."""
    return SCORERS[name].load(name, device, dtype)


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
