"""The embedded attribute network reads an image back: prompt accuracy and 128 features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ddmd_bench.backends.shapes import networks
from ddmd_bench.backends.shapes.scenes import ATTRIBUTES, IMAGE_SIZE, TEMPLATE, labels_of
from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.weights import attribute_weights


def load_network(path: Path) -> networks.AttributeNetwork:
    """The network with a file's weights, every key matched, in float32 and evaluation mode."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise BenchError(
            f"{path}: the attribute network's weights are missing. "
            "Make them: python -m ddmd_bench.backends.shapes.recipe attributes"
        )
    network = networks.AttributeNetwork()
    stored = {key: value.float() for key, value in load_file(path).items()}
    try:
        network.load_state_dict(stored)
    except RuntimeError as error:  # torch lists every missing, unexpected and misshapen key
        raise BenchError(f"{path}: not this attribute network. {error}") from error
    return network.requires_grad_(False).eval()


@cache
def _network() -> networks.AttributeNetwork:
    return load_network(attribute_weights())


def _labels(prompts: Sequence[str]) -> Tensor:
    rows = []
    for prompt in prompts:
        labels = labels_of(prompt)
        if labels is None:
            raise BenchError(
                f"prompt {prompt!r}: the attribute network reads only prompts of the embedded "
                f"world, such as {TEMPLATE!r}. Drop prompt_accuracy and frechet_attributes from "
                "the suite's metrics"
            )
        rows.append(labels)
    return torch.tensor(rows)


def score_batch(images: Tensor, prompts: Sequence[str]) -> Scored:
    """Images [B, 3, 32, 32] in [-1, 1] with their prompts -> accuracies [B] of 0 or 1, features.

    `prompt_accuracy` is 1 where all five labels that the prompt names are read from the image.
    """
    if tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise BenchError(
            f"the attribute network reads RGB images of {IMAGE_SIZE} px, found {images.shape}"
        )
    with torch.inference_mode():
        features = _network().features(images.float())
        right = _network().predicted_labels(features) == _labels(prompts)
    columns = {"prompt_accuracy": right.all(1).double()}
    for k, name in enumerate(ATTRIBUTES):
        columns[f"attribute_{name}"] = right[:, k].double()
    return Scored(columns, features)
