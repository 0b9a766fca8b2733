"""Images of nearly one colour: what a network leaves that overflows. Loads no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEARLY = 8  # of 255: so far the levels of a channel of an image of one colour may reach


def is_black(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether no level is above `NEARLY`: [..., H, W, 3] -> [...]."""
    black: NDArray[np.bool_] = pixels.max((-3, -2, -1)) <= NEARLY
    return black


def is_one_colour(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether no channel reaches further than `NEARLY`, and black it is not: as `is_black`."""
    reaches = np.stack([np.ptp(pixels[..., channel], (-2, -1)) for channel in range(3)])
    flat: NDArray[np.bool_] = reaches.max(0) <= NEARLY
    return flat & ~is_black(pixels)
