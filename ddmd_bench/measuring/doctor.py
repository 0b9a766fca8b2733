"""Whether scorers measure anything: checks on images that are made here, and golden ones.

A scorer can load without an error and still be wrong: rotary buffers of zeros, swapped arguments, a
kernel that was switched silently. Such a scorer gives plausible numbers, so it is asked questions
whose answers are known before its numbers are believed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import decoded
from ddmd_bench.measuring.sheets import Answer, Item
from ddmd_bench.measuring.turns import turns
from ddmd_bench.scorers import SCORERS
from ddmd_bench.scorers.weights import OWN_FOLDER, located

if TYPE_CHECKING:
    from PIL.Image import Image

# How far a score may move with the batch, of its spread over images; in float32 rounding alone.
BATCH_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}

ROUNDING = 1e-5  # of the largest value: differences below are none


@dataclass(frozen=True)
class Golden:
    """A published value of a published image."""

    scorer: str
    column: str
    files: tuple[str, ...]  # relative to the folder of golden images
    prompt: str
    values: tuple[float, ...]
    tolerance: float
    source: str


# Of 8-bit decoders and half precision the last published digits: so far may a value move.
GOLDEN = (
    Golden(
        "hps_v20",
        "hps_v20",
        ("hpsv2/demo_image.jpg",),
        "A cat with two horns on its head",
        (0.2876,),
        5e-4,
        # No version is named there; the default of both its scripts was v2.0.
        "assets/demo_image.jpg of tgxs002/HPSv2, value in its issue 27",
    ),
    Golden(
        "image_reward",
        "image_reward",
        tuple(f"image_reward/{k}.webp" for k in range(1, 5)),
        "a painting of an ocean with clouds and birds, day time, low depth field effect",
        (0.58116, 0.27453, -1.41318, -2.02957),
        5e-3,
        "assets/images of zai-org/ImageReward, values in its README",
    ),
)


class Finding(NamedTuple):
    """One check of one scorer."""

    scorer: str
    check: str
    passed: bool | None  # None: could not be made
    text: str


def examine(
    scorers: Sequence[str], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Finding]:
    """Every check of every scorer that has weights; those whose weights are absent are named."""
    findings: list[Finding] = []
    for name in scorers:
        row = SCORERS[name]
        if absent := [w.what for w in row.weights if not located(w)]:
            text = f"not on this machine: {', '.join(absent)}"
            findings.append(Finding(name, "weights", None, text))
        elif row.weights:
            findings += _examined(name, device, dtype)
    return findings


def require_healthy(
    scorers: Sequence[str], device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Finding]:
    """The findings, all of them good; raises where one is not."""
    findings = examine(scorers, device, dtype)
    if bad := [f for f in findings if f.passed is False]:
        raise BenchError(
            "\n".join(f"scorer {f.scorer}: {f.check}: {f.text}" for f in bad)
            + "\nIts numbers would mean nothing: look at its weights, torch and transformers"
        )
    return findings


def pictures(size: int) -> list[Image]:
    """Four images that no scorer should take for each other, the last two of equal pixels."""
    from PIL import Image

    y, x = np.mgrid[:size, :size] / size
    disc = (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.09
    circle = np.stack([np.where(disc, 220, 245), *2 * [np.where(disc, 30, 240)]], -1)
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3))
    scene = np.stack([255 * x, 160 * np.sin(9 * y) ** 2, 255 * (x > y)], -1)
    half = size // 2
    swapped = np.roll(scene, (half, half), (0, 1))  # its quarters change places
    return [Image.fromarray(a.astype(np.uint8)) for a in (circle, noise, scene, swapped)]


def _examined(name: str, device: str, dtype: torch.dtype) -> list[Finding]:
    row = SCORERS[name]
    (one_pass,) = turns([name], device, dtype)

    def asked(images: Sequence[Image], prompt: str) -> Answer:
        items = [Item.in_memory(f"image {k}", prompt, i) for k, i in enumerate(images)]
        (found,) = one_pass.over([items])
        if found[name].missing:
            reason = next(iter(found[name].missing.values()))
            raise BenchError(f"scorer {name}: no value for an image of the doctor's: {reason}")
        return found[name]

    made, prompts = (row.example_images or pictures)(row.example_size), row.example_prompts
    prompt, other_prompt = prompts() if callable(prompts) else prompts
    if not row.columns and row.num_features is None:
        return _of_pairs(name, lambda images: _values(asked(images, prompt))[0], made)
    together = _values(asked(made, prompt))
    # One by one, and beside other images in another order.
    alone = np.concatenate([_values(asked([image], prompt)) for image in made])
    mates = _values(asked([*made[::-1], *made], prompt))[len(made) :]
    spread = float(np.ptp(together, axis=0).max())
    rounding = ROUNDING * float(np.abs(together).max())
    allowed = max(BATCH_TOLERANCE[dtype] * spread, rounding)
    moved = max(_furthest(alone, together), _furthest(mates, together))
    nearest = min(_furthest(a, b) for a, b in combinations(together, 2))
    findings = [
        _finding(name, "different images have different scores", nearest > allowed, nearest),
        _finding(name, "batch size and batch mates do not matter", moved <= allowed, moved),
    ]
    if row.reads_prompts:
        change = _furthest(_values(asked(made, other_prompt)), together)
        findings.append(_finding(name, "prompts matter", change > allowed, change))
    return [*findings, *(_golden(golden, asked) for golden in GOLDEN if golden.scorer == name)]


def _of_pairs(
    name: str, value: Callable[[Sequence[Image]], NDArray[np.float64]], made: Sequence[Image]
) -> list[Finding]:
    """A scorer that compares the images of a prompt and says nothing of one alone."""
    alike, different = value([made[0], made[0]]), value(made[:2])
    turned = value([made[1], made[0]])
    apart, moved = _furthest(alike, different), _furthest(turned, different)
    return [
        _finding(name, "an image and itself are not as two images", apart > ROUNDING, apart),
        _finding(name, "the order of images does not matter", moved <= ROUNDING * 10, moved),
    ]


def _finding(scorer: str, check: str, passed: bool, difference: float) -> Finding:
    return Finding(scorer, check, passed, f"difference {difference:.2g}")


def _furthest(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max())


def _values(answer: Answer) -> NDArray[np.float64]:
    """[n, k]: all that a scorer says of each image."""
    columns = [v[:, None] for v in answer.columns.values() if np.isfinite(v).all()]
    features = [] if answer.features is None else [answer.features.astype(np.float64)]
    return np.concatenate([*columns, *features], 1)


def golden_folder() -> Path | None:
    """Where published images lie, if the user has them: the folder `golden` beside the weights."""
    own = os.environ.get(OWN_FOLDER)
    folder = Path(own).expanduser() / "golden" if own else None
    return folder if folder and folder.is_dir() else None


def _golden(golden: Golden, asked: Callable[[Sequence[Image], str], Answer]) -> Finding:
    check, folder = "golden images", golden_folder()
    paths = [folder / file for file in golden.files] if folder else []
    if not paths or not all(path.is_file() for path in paths):
        text = f"put {', '.join(golden.files)} into ${OWN_FOLDER}/golden ({golden.source})"
        return Finding(golden.scorer, check, None, text)
    found = asked([decoded(path) for path in paths], golden.prompt).columns[golden.column]
    passed = bool(np.abs(found - golden.values).max() <= golden.tolerance)
    text = f"{[round(float(v), 5) for v in found]}, published {list(golden.values)}"
    return Finding(golden.scorer, check, passed, text)
