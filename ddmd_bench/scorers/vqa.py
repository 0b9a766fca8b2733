"""Models that answer questions about an image with yes or no: a row for each. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from ddmd_bench.scorers.weights import Weights

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor


class VqaModel(Protocol):
    """A model with its weights; what each module's `load` returns."""

    def preprocess(self, image: Image) -> Tensor:
        """What it reads of an image of any mode and size, on the CPU; called from threads."""

    def encode_questions(self, questions: Sequence[str]) -> dict[str, Tensor]:
        """What it reads of the questions [Q, ...], on the CPU.

        A key `truncated`, a tensor True, is there where one is longer than the model reads.
        """

    def says_yes(self, inputs: Tensor, asked: Sequence[Mapping[str, Tensor]]) -> list[Tensor]:
        """Images [B, ...], each with its own questions, encoded -> yes or not, bool [Q] each."""


class _Module(Protocol):
    def load(self, weights: Weights, device: str, dtype: torch.dtype) -> VqaModel: ...


@dataclass(frozen=True)
class Vqa:
    """A module, loaded when first used, and the weights that it reads."""

    module: str
    weights: Weights

    def load(self, device: str, dtype: torch.dtype) -> VqaModel:
        """The module's model, with torch."""
        return cast(_Module, import_module(self.module)).load(self.weights, device, dtype)


VQA = {
    "blip_vqa": Vqa(
        "ddmd_bench.scorers.blip_vqa",
        Weights(
            "BLIP-VQA",
            ("config.json", "preprocessor_config.json", "pytorch_model.bin", "tokenizer.json"),
            repository="Salesforce/blip-vqa-capfilt-large",
            revision="270352c30d7166e585cd686c3f2250e04bb509da",
        ),
    ),
}
