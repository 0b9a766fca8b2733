"""The embedded attribute network reads an image back: prompt accuracy and 128 features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddmd_bench.backends.shapes import networks
from ddmd_bench.backends.shapes.scenes import ATTRIBUTES, IMAGE_SIZE, TEMPLATE, labels_of
from ddmd_bench.errors import BenchError
from ddmd_bench.files.tensors import read_safetensors
from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.pixels import levels, signed
from ddmd_bench.scorers.weights import attribute_weights

if TYPE_CHECKING:
    from PIL.Image import Image


def load_network(path: Path) -> networks.AttributeNetwork:
    """The network with a file's weights, every key matched, in float32 and evaluation mode."""
    if not path.is_file():
        raise BenchError(
            f"{path}: the attribute network's weights are missing. "
            "Make them: python -m ddmd_bench.recipes.shapes attributes"
        )
    network = networks.AttributeNetwork()
    stored = {key: value.float() for key, value in read_safetensors(path).items()}
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:  # torch lists every missing, unexpected and misshapen key
        raise BenchError(f"{path}: not this attribute network. {error}") from error
    return network.requires_grad_(False).eval()


def _labels(prompt: str) -> Tensor:
    labels = labels_of(prompt)
    if labels is None:
        raise BenchError(
            f"prompt {prompt!r}: the attribute network reads only prompts of the embedded world, "
            f"such as {TEMPLATE!r}. Drop prompt_accuracy and frechet_attributes from the metrics"
        )
    return torch.tensor(labels)


class AttributeReader:
    """The network that reads an image of 32 px back: accuracies of 0 or 1, 128 features."""

    def __init__(self, network: networks.AttributeNetwork) -> None:
        self.network = network

    def preprocess(self, image: Image) -> Tensor:
        if image.size != (IMAGE_SIZE, IMAGE_SIZE):
            raise BenchError(
                f"the attribute network reads images of {IMAGE_SIZE} x {IMAGE_SIZE} px, found "
                f"{image.width} x {image.height}"
            )
        return levels(image)

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        return [{"labels": _labels(prompt)} for prompt in prompts]

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """`prompt_accuracy` is 1 where all five labels that the prompt names are read."""
        with torch.inference_mode():
            features = self.network.features(signed(inputs))
            named = torch.stack([row["labels"] for row in text])
            right = self.network.predicted_labels(features) == named
        columns = {"prompt_accuracy": right.all(1).double()}
        for k, name in enumerate(ATTRIBUTES):
            columns[f"attribute_{name}"] = right[:, k].double()
        return Scored(columns, features)


def load(name: str, device: str, dtype: torch.dtype) -> AttributeReader:
    """In float32 on the CPU, whatever is asked for: it takes no time there."""
    return AttributeReader(load_network(attribute_weights()))
