"""Pixels as several scorers read them: levels of 8 bits, [-1, 1], and OpenAI's normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

# Of each channel in [0, 1], as OpenAI normalised for CLIP and others after it.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def levels(image: Image) -> Tensor:
    """An image of any mode as uint8 [H, W, 3], nothing resized."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def signed(inputs: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] as float32 [B, 3, H, W] in [-1, 1].

    Channels stay last in memory: the order of a sum, and so its last bits, depend on it.
    """
    return inputs.permute(0, 3, 1, 2).float() / 127.5 - 1
