"""What a scorer is: a row of plain facts, and a module that loads it. Importing loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from ddmd_bench.scorers.weights import Weights

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


def on_device(batch: Tensor, device: str | torch.device) -> Tensor:
    """A tensor from the CPU on a device; a GPU takes it from pinned memory, nobody waits for it."""
    if str(device).startswith("cuda"):
        batch = batch.pin_memory()
    return batch.to(device, non_blocking=True)


class Scored(NamedTuple):
    """What a scorer says about one batch, on whatever device: who reads it waits for it."""

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


class ReadsNoPrompt:
    """Of a scorer whose numbers are the images' alone."""

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Nothing."""
        return [{} for _ in prompts]


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
    protocol: str = ""  # how an image becomes its input, where values hang on it
    reads_prompts: bool = True
    fewest_pixels: int = 1  # of a side: a smaller image has no value
    of_blank: bool = False  # whether an image that is the same everywhere has a value
    # Why images of a prompt have no value, None where they have one: known before any work.
    why_no_value: Callable[[str], str | None] = lambda prompt: None
    # What `doctor` asks it: two prompts, and images of so many pixels a side.
    example_prompts: Callable[[], tuple[str, str]] | tuple[str, str] = (
        "a red circle on a wall",
        "a photograph of a forest",
    )
    example_size: int = 256
    # Of that size; its own where it sees nothing in the doctor's.
    example_images: Callable[[int], Sequence[Image]] | None = None

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The module's scorer, with torch."""
        return cast(ScorerModule, import_module(self.module)).load(name, device, dtype)
