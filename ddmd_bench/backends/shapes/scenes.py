"""The embedded world: 32 px scenes of one object, drawn from a seed, with a prompt that names all.

A scene is five labels (shape, colour, size, place, background) plus continuous jitter of position,
size, angle, colours, a lighting gradient and a little noise: a distribution to match, not 1,920
icons. One combination in ten is held out of training and makes the compositional prompts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

IMAGE_SIZE = 32

Corner = tuple[float, float]

COLORS = {
    "red": (0.85, 0.10, 0.10),
    "orange": (1.00, 0.52, 0.05),
    "yellow": (0.95, 0.90, 0.15),
    "green": (0.10, 0.62, 0.20),
    "cyan": (0.15, 0.85, 0.88),
    "blue": (0.10, 0.20, 0.85),
    "purple": (0.52, 0.10, 0.66),
    "pink": (1.00, 0.55, 0.78),
}
BACKGROUNDS = {
    "black": (0.08, 0.08, 0.08),
    "grey": (0.50, 0.50, 0.50),
    "white": (0.92, 0.92, 0.92),
    "brown": (0.42, 0.26, 0.13),
}
# Offset of the object's centre from the image's, x to the right, y down, half an image = 1.
PLACES = {
    "in the centre": (0.0, 0.0),
    "at the left": (-0.42, 0.0),
    "at the right": (0.42, 0.0),
    "at the top": (0.0, -0.42),
    "at the bottom": (0.0, 0.42),
}
SIZES = {"small": 0.30, "large": 0.48}  # circumscribed radius, half an image = 1


def _regular(num_corners: int, radius: float = 1.0, turn: float = -math.pi / 2) -> list[Corner]:
    angles = [turn + 2 * math.pi * k / num_corners for k in range(num_corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[Corner]:
    outer, inner = _regular(5), _regular(5, 0.42, -math.pi / 2 + math.pi / 5)
    return list(itertools.chain.from_iterable(zip(outer, inner, strict=True)))


def _cross(arm: float = 0.30, reach: float = 0.95) -> list[Corner]:
    a, r = arm, reach
    quarter = [(a, -r), (a, -a), (r, -a)]
    turned = [[(-y, x) for x, y in quarter], [(-x, -y) for x, y in quarter]]
    return quarter + turned[0] + turned[1] + [(y, -x) for x, y in quarter]


# Outlines at radius 1. Round shapes have no corners: their distance is the circle's.
POLYGONS: dict[str, list[Corner]] = {
    "circle": [],
    "square": _regular(4, 1.0, math.pi / 4),
    "triangle": _regular(3, 1.1),
    "star": _star(),
    "ring": [],
    "cross": _cross(),
}
MAX_CORNERS = max(map(len, POLYGONS.values()))
RING_WIDTH = 0.42  # of the radius

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(POLYGONS),
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "place": tuple(PLACES),
    "background": tuple(BACKGROUNDS),
}
TEMPLATE = "a {size} {color} {shape} {place} on a {background} background"

_HELD_OUT_SEED = 20251127


@cache
def _combinations() -> tuple[Tensor, Tensor]:
    """Every label combination, split in (seen [1728, 5], held out [192, 5])."""
    every = torch.cartesian_prod(*[torch.arange(len(v)) for v in ATTRIBUTES.values()])
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(_HELD_OUT_SEED))
    num_held_out = len(every) // 10
    return every[order[num_held_out:].sort().values], every[order[:num_held_out].sort().values]


def seen_labels() -> Tensor:
    """Label combinations that training draws from: int64 [1728, 5], columns as `ATTRIBUTES`."""
    return _combinations()[0]


def held_out_labels() -> Tensor:
    """Label combinations that training never shows: int64 [192, 5]."""
    return _combinations()[1]


def prompt_of(labels: Tensor) -> str:
    """The English prompt of one label row [5]."""
    words = {
        name: values[int(k)] for (name, values), k in zip(ATTRIBUTES.items(), labels, strict=True)
    }
    return TEMPLATE.format(**words)


@cache
def _prompt_index() -> dict[str, tuple[int, ...]]:
    return {prompt_of(row): tuple(row.tolist()) for part in _combinations() for row in part}


def labels_of(prompt: str) -> tuple[int, ...] | None:
    """The labels that a prompt names, or None where it is not one of this world's prompts."""
    return _prompt_index().get(prompt)


def draw_labels(num: int, generator: torch.Generator, among: Tensor | None = None) -> Tensor:
    """Label rows [num, 5] drawn uniformly from `among` (default: the seen combinations)."""
    among = seen_labels() if among is None else among
    return among[torch.randint(len(among), (num,), generator=generator)]


def _polygon_distance(x: Tensor, y: Tensor, corners: Tensor) -> Tensor:
    """Signed distance (negative inside) of points x, y [B, N] to polygons [B, K, 2] -> [B, N].

    Polygons with fewer corners repeat their last one: an edge of length zero changes nothing.
    """
    squared, inside = torch.full_like(x, torch.inf), torch.zeros_like(x, dtype=torch.bool)
    for start, end in zip(corners.unbind(1), corners.roll(-1, 1).unbind(1), strict=True):
        (x0, y0), (x1, y1) = start.T[..., None], end.T[..., None]  # B1 each
        edge_x, edge_y, to_x, to_y = x1 - x0, y1 - y0, x - x0, y - y0
        along = (to_x * edge_x + to_y * edge_y) / (edge_x**2 + edge_y**2).clamp_min(1e-12)
        along = along.clamp_(0, 1)
        gap = (to_x - along * edge_x).square_() + (to_y - along * edge_y).square_()
        squared = torch.minimum(squared, gap)
        # Even-odd rule: a ray towards +x crosses this edge.
        run_per_rise = edge_x / torch.where(edge_y == 0, 1e-12, edge_y)
        inside ^= ((y0 > y) != (y1 > y)) & (to_x < run_per_rise * to_y)
    distance = squared.sqrt_()
    return torch.where(inside, -distance, distance)


@cache
def _corner_table() -> Tensor:
    rows = [(c + c[-1:] * (MAX_CORNERS - len(c))) or [(0.0, 0.0)] * MAX_CORNERS
            for c in POLYGONS.values()]  # fmt: skip
    return torch.tensor(rows)


def _table(rows: dict[str, Any]) -> Tensor:
    return torch.tensor(list(rows.values()))


def render(labels: Tensor, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Draw one scene per label row: int64 [B, 5] -> float32 [B, 3, 32, 32] in [-1, 1].

    Edges are anti-aliased over one pixel. All jitter comes from `generator`, or each scene's from
    its own.
    """
    num = len(labels)
    shape, color, size, place, background = labels.unbind(1)

    def drawn(draw: Callable[..., Tensor], *dims: int) -> Tensor:
        if isinstance(generator, torch.Generator):
            return draw(num, *dims, generator=generator)
        return torch.stack([draw(dims, generator=own) for own in generator])

    def jitter(*dims: int, scale: float) -> Tensor:
        return (drawn(torch.rand, *dims) * 2 - 1) * scale

    centre = _table(PLACES)[place] + jitter(2, scale=0.07)
    radius = _table(SIZES)[size] * (1 + jitter(scale=0.10))
    angle = jitter(scale=0.22)
    paint = _table(COLORS)[color] + jitter(3, scale=0.05)
    ground = _table(BACKGROUNDS)[background] + jitter(3, scale=0.05)
    light = jitter(2, scale=0.12)  # brightness gained per half image, along x and y

    axis = (torch.arange(IMAGE_SIZE) + 0.5) * (2 / IMAGE_SIZE) - 1
    grid_y, grid_x = (g.reshape(1, -1) for g in torch.meshgrid(axis, axis, indexing="ij"))
    dx, dy = grid_x - centre[:, :1], grid_y - centre[:, 1:]
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    x, y = cos * dx + sin * dy, cos * dy - sin * dx  # in the object's own frame

    names = ATTRIBUTES["shape"]
    round_distance = (x * x + y * y).sqrt() - radius[:, None]
    half_width = 0.5 * RING_WIDTH * radius[:, None]
    ring_distance = (round_distance + half_width).abs() - half_width
    distance = _polygon_distance(x, y, _corner_table()[shape] * radius[:, None, None])
    distance = torch.where((shape == names.index("circle"))[:, None], round_distance, distance)
    distance = torch.where((shape == names.index("ring"))[:, None], ring_distance, distance)

    pixel = 2 / IMAGE_SIZE
    coverage = (0.5 - distance / pixel).clamp(0, 1)[..., None]
    image = ground[:, None] + coverage * (paint - ground)[:, None]
    brightness = 1 + grid_x * light[:, :1] + grid_y * light[:, 1:]
    image = image * brightness[..., None]
    image = image + 0.012 * drawn(torch.randn, *image.shape[1:])
    image = image.clamp(0, 1) * 2 - 1
    return image.reshape(num, IMAGE_SIZE, IMAGE_SIZE, 3).permute(0, 3, 1, 2).contiguous()
