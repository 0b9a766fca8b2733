"""Faults of an image with closed forms: too colourful, clipped, tinted, blurred, a grid, blank.

Each is a number of one image; whether it is a fault shows beside the teacher's image of the same
prompt. All take images uint8 [B, H, W, 3] and give float64 [B].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddmd_bench.scorers import Scored
from ddmd_bench.scorers.blank import is_black, is_one_colour
from ddmd_bench.scorers.interface import ReadsNoPrompt
from ddmd_bench.scorers.pixels import levels

if TYPE_CHECKING:
    from PIL.Image import Image

_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # ITU-R BT.601
# Of linear sRGB (IEC 61966-2-1), each row divided by its sum, which is the white point D65.
_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
    dtype=torch.float64,
)
_XYZ /= _XYZ.sum(1, keepdim=True)


def _decoded_levels() -> Tensor:
    """Light of each of the 256 levels, by sRGB's curve (IEC 61966-2-1)."""
    level = torch.arange(256, dtype=torch.float64) / 255
    return torch.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


_LIGHT = _decoded_levels()


def hsv_saturation(images: Tensor) -> Tensor:
    """Mean over pixels of (max - min) / max of their channels, 0 of black ones.

    S of HSV (A. R. Smith, Color gamut transform pairs, 1978): 0 for a grey, 1 for a hue in which
    one channel is 0, however dark.
    """
    high, low = images.amax(-1), images.amin(-1)
    return ((high - low) / high.clamp(min=1).double()).mean((1, 2))


def clipped_highlights(images: Tensor) -> Tensor:
    """Share of pixels with 255 in all channels.

    Of all and not of any: a pure red has 255 in one channel, and shades in the others.
    """
    return (images.amin(-1) == 255).double().mean((1, 2))


def colour_cast(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean a* and b* of the pixels in CIELAB under D65 (CIE 15): (0, 0) for greys.

    a* reaches from green to red, b* from blue to yellow; a difference of about 2.3 is just seen
    (Mahy et al. 1994).
    """
    xyz = (_LIGHT[images.int()] @ _XYZ.T).movedim(-1, 0)
    bent = torch.where(xyz > (6 / 29) ** 3, xyz ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = bent.mean((2, 3))
    return 500 * (x - y), 200 * (y - z)


def sharpness(images: Tensor) -> Tensor:
    """Variance of the 4-neighbour Laplacian of the luma, in levels squared (Pech-Pacheco et al.
    2000).

    Over interior pixels: 0 for a constant image or a linear ramp. NaN below 3 pixels a side.
    """
    luma = images.double() @ _LUMA
    neighbours = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    response = neighbours - 4 * luma[:, 1:-1, 1:-1]
    return (response - response.mean((1, 2), keepdim=True)).square().mean((1, 2))


def checkerboard(images: Tensor) -> Tensor:
    """Share of the variance in the diagonal band of Haar's wavelet, undecimated (Mallat 1989).

    Of each 2 x 2 window (a b; c d) the band is (a - b - c + d) / 2, over all channels; the
    variance is that of the windows' pixels about the image's mean. 1 for a checkerboard of single
    pixels, 1/n^2 for one whose cells are n wide, 1/4 for white noise, and 0 for lines and ramps
    along an axis, which `high_frequency` takes for detail as it does a checkerboard.
    """
    whole = images.double()
    whole -= whole.mean((1, 2), keepdim=True)
    down = whole[:, 1:] - whole[:, :-1]
    band = ((down[:, :, 1:] - down[:, :, :-1]) / 2).square().sum((1, 2, 3))
    squares, (height, width) = whole.square(), whole.shape[1:3]
    total = torch.zeros_like(band)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        total += squares[:, i : height - 1 + i, j : width - 1 + j].sum((1, 2, 3))
    return band / total.where(total > 0, 1)


class Faults(ReadsNoPrompt):
    """A column of each fault."""

    def preprocess(self, image: Image) -> Tensor:
        return levels(image)

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        a, b = colour_cast(inputs)
        columns = {
            "hsv_saturation": hsv_saturation(inputs),
            "clipped_highlights": clipped_highlights(inputs),
            "colour_cast_a": a,
            "colour_cast_b": b,
            "sharpness": sharpness(inputs),
            "checkerboard": checkerboard(inputs),
            "black": torch.from_numpy(is_black(inputs.numpy())),
            "one_colour": torch.from_numpy(is_one_colour(inputs.numpy())),
        }
        return Scored(columns, None)


def load(name: str, device: str, dtype: torch.dtype) -> Faults:
    """Nothing to load; float64 on the CPU whatever is asked for."""
    return Faults()
