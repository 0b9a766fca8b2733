"""What is measured (`METRICS`) and what measures it (`SCORERS`). Importing loads no torch.

scored = extract(images, prompts, ["attributes", "efficientnet"])   # one pass
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.records import file_sha256
from ddmd_bench.scorers.weights import attribute_weights, efficientnet_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

BATCH_SIZE = 64


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is shown; values are stored raw."""

    title: str
    kind: Literal["image", "prompt", "distribution"]
    better: Literal["higher", "lower", "reference"]  # reference: nearer to the real scenes' value
    extractor: str | None
    scale: float  # display only
    unit: str
    decimals: int
    description: str
    judges: bool = False  # whether an image's value is 1 for right and 0 for wrong


METRICS = {
    "prompt_accuracy": Metric(
        "Prompt accuracy", "image", "higher", None, 100, "%", 1,
        "Share of images in which shape, colour, size, place and background are all as the prompt "
        "says, read by a network trained on real scenes.", judges=True,
    ),
    "frechet_attributes": Metric(
        "Fréchet distance (attributes)", "distribution", "lower", "attributes", 1, "", 2,
        "Distance between the students' images and real scenes of the same prompts, in 128 "
        "features of the network that reads the attributes; 0 means alike.",
    ),
    "frechet_efficientnet": Metric(
        "Fréchet distance (EfficientNet)", "distribution", "lower", "efficientnet", 1, "", 2,
        "The same distance in 112 features of EfficientNet-Lite0, which was trained on photographs "
        "and never saw these scenes.",
    ),
    "saturation": Metric(
        "Saturation", "image", "lower", None, 100, "%", 2,
        "Share of pixel values that the student put outside the range an image can hold, before "
        "they were clipped.",
    ),
    "mean": Metric(
        "Mean", "image", "reference", None, 1, "", 3,
        "Mean pixel value, from -1 (black) to 1 (white); right where it equals that of real "
        "scenes.",
    ),
    "std": Metric(
        "Standard deviation", "image", "reference", None, 1, "", 3,
        "Contrast: standard deviation of the pixel values of an image in [-1, 1]; right where it "
        "equals that of real scenes.",
    ),
    "high_frequency": Metric(
        "High frequency", "image", "reference", None, 1, "", 4,
        "Fine detail and noise: mean squared response of a 3 x 3 Laplacian, 0 for a flat image "
        "and 1 for a checkerboard of black and white; right where it equals that of real scenes.",
    ),
    "diversity": Metric(
        "Diversity", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ: mean over pairs of the root mean square "
        "difference of pixels in [-1, 1]; right where it equals that of real scenes.",
    ),
}  # fmt: skip


class Scored(NamedTuple):
    """What a scorer says about one batch."""

    columns: dict[str, Tensor]  # [B] each
    features: Tensor | None  # [B, d]


class ScorerModule(Protocol):
    """What each module of this package offers."""

    def score_batch(self, images: Tensor, prompts: Sequence[str]) -> Scored:
        """Images float32 [B, 3, H, W] in [-1, 1]."""


@dataclass(frozen=True)
class Scorer:
    """A module, loaded when first used, and the metrics that it gives per image."""

    module: str
    columns: tuple[str, ...] = ()
    weights: Callable[[], Path] | None = None  # the file that its numbers depend on
    num_features: int | None = None

    def load(self) -> ScorerModule:
        """The module, with torch."""
        return cast(ScorerModule, import_module(self.module))


SCORERS = {
    "images": Scorer("ddmd_bench.scorers.images", ("mean", "std", "high_frequency")),
    "attributes": Scorer(
        "ddmd_bench.scorers.attributes", ("prompt_accuracy",), attribute_weights, num_features=128
    ),
    "efficientnet": Scorer(
        "ddmd_bench.scorers.efficientnet", (), efficientnet_weights, num_features=112
    ),
}


@dataclass(frozen=True)
class ScoredImages:
    """What the scorers say about n images, rows in the images' order."""

    columns: dict[str, dict[str, NDArray[np.float64]]]  # scorer -> column -> [n]
    features: dict[str, NDArray[np.float32]]  # scorer -> [n, d]


def needed_scorers(metrics: Iterable[str]) -> list[str]:
    """Names of the scorers that the metrics need, in the order of `SCORERS`."""
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, METRICS))
    extractors = {METRICS[name].extractor for name in wanted}
    return [k for k, row in SCORERS.items() if k in extractors or set(row.columns) & set(wanted)]


def weights_sha256(names: Iterable[str]) -> dict[str, str]:
    """sha256 of the weights of each scorer that has any."""
    files = {name: SCORERS[name].weights for name in names}
    return {name: file_sha256(path()) for name, path in files.items() if path is not None}


def extract(images: Tensor, prompts: Sequence[str], extractors: Sequence[str]) -> ScoredImages:
    """Hand each image to every named scorer, in one pass of small batches.

    Images: [n, 3, H, W], float in [-1, 1] or uint8; prompts: the text of each.
    """
    import numpy as np
    import torch

    if len(images) != len(prompts) or images.ndim != 4 or not len(images):
        raise BenchError(
            f"scorers take images [n >= 1, 3, H, W] with a prompt each, found "
            f"{tuple(images.shape)} and {len(prompts)} prompts"
        )
    modules = {name: SCORERS[name].load() for name in extractors}
    parts = []
    for start in range(0, len(images), BATCH_SIZE):
        batch = images[start : start + BATCH_SIZE]
        x = batch.float() / 127.5 - 1 if batch.dtype == torch.uint8 else batch.float()
        texts = prompts[start : start + BATCH_SIZE]
        scored = {name: module.score_batch(x, texts) for name, module in modules.items()}
        parts.append(
            ScoredImages(
                {
                    name: {k: v.numpy().astype(np.float64) for k, v in one.columns.items()}
                    for name, one in scored.items()
                },
                {
                    name: one.features.numpy().astype(np.float32)
                    for name, one in scored.items()
                    if one.features is not None
                },
            )
        )
    return joined(parts)


def joined(parts: Sequence[ScoredImages]) -> ScoredImages:
    """Batches of the same scorers as one, rows in order."""
    import numpy as np

    first = parts[0]
    return ScoredImages(
        {
            name: {k: np.concatenate([part.columns[name][k] for part in parts]) for k in columns}
            for name, columns in first.columns.items()
        },
        {name: np.concatenate([part.features[name] for part in parts]) for name in first.features},
    )
