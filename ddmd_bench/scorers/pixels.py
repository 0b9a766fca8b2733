"""Images as the embedded scorers read them: every pixel, nothing resized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def levels(image: Image) -> Tensor:
    """An image of any mode as uint8 [H, W, 3]."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def signed(inputs: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] as float32 [B, 3, H, W] in [-1, 1].

    Channels stay last in memory: the order of a sum, and so its last bits, depend on it.
    """
    return inputs.permute(0, 3, 1, 2).float() / 127.5 - 1
