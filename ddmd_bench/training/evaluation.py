"""Evaluation of a student while it trains: the suite's images of a fixed subset, scored at once.

It draws with the functions of the generate stage, in its dtype, and scores with those of the score
stage, through 8 bits as a PNG file would, so that its values are theirs for the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.data.images import ImageId, as_picture, as_pictures, image_ids, strip_of
from ddmd_bench.data.prompts import Prompt, head_in_proportion, pictured
from ddmd_bench.files.decoding import Unusable, refuse_blank
from ddmd_bench.files.memory import AtOnce, return_memory
from ddmd_bench.files.records import finite_or_none
from ddmd_bench.measuring.aggregates import aggregate, counted
from ddmd_bench.measuring.features import features_of
from ddmd_bench.measuring.measure import Images, Measured, measure
from ddmd_bench.measuring.reference import find_statistics, load_reference
from ddmd_bench.measuring.turns import let_go
from ddmd_bench.objective.terms import Denoise
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.students.drawing import draw_reference, few_step_draw, iter_drawn
from ddmd_bench.suite.schema import Evaluation, Suite

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]
PICTURE = 96  # pixels of a side


class Value(NamedTuple):
    """A metric over the subset, NaN where it is missing; `n` images went into it."""

    value: float
    n: int


@dataclass(frozen=True)
class Evaluator:
    """Samples a network on the fixed subset and scores the images; made once for a training."""

    student: str  # its name, for errors
    backend: Backend
    settings: Evaluation
    prompts: tuple[Prompt, ...]  # all of the suite
    suite: Suite
    seed: int
    t_list: tuple[float, ...]
    device: str

    def __call__(self, network: Denoise) -> dict[str, Value]:
        """The value of each metric, in the order of the settings.

        The network is sampled as it is. Neither its mode nor torch's random state is changed.
        """
        return self.values_of(self.drawn(network))

    def values_of(self, images: Images) -> dict[str, Value]:
        """The same for images that were `drawn`."""
        with self._apart():
            measured = measure(
                images,
                self.settings.metrics,
                self.student,
                device=self.device,
                dtype=getattr(torch, self.suite.scoring.dtype),
            )
            return {metric: self._value(metric, measured) for metric in self.settings.metrics}

    def pictures_of(self, images: Images) -> bytes:
        """The first image of each prompt that is `pictured`, beside each other, as WebP."""
        ids = [prompt.prompt_id for prompt in pictured(self.prompts, self.settings.num_prompts)]
        places = {
            row["prompt_id"]: k for k, row in enumerate(images.rows) if row["image_index"] == 0
        }
        return strip_of([_or_none(images, places[prompt_id]) for prompt_id in ids], PICTURE)

    def _images(self, images_per_prompt: int) -> list[ImageId]:
        subset = head_in_proportion(self.prompts, self.settings.num_prompts)
        return image_ids(subset, {p.prompt_set: images_per_prompt for p in subset})

    @cached_property
    def _at_once(self) -> AtOnce:
        return AtOnce(self.backend.images_at_once, "images")

    @contextmanager
    def _apart(self) -> Iterator[None]:
        """Leave torch's random state as it is, and no gradients."""
        cuda = [torch.device(self.device)] if self.device.startswith("cuda") else []
        # A scorer that is used for the first time builds its network, which draws weights.
        with torch.random.fork_rng(cuda), torch.no_grad():
            yield

    def drawn(self, network: Denoise) -> Images:
        """The images of the subset, with a row each; 8 bits of them are kept, a batch at a time."""
        draw = few_step_draw(network, self.backend, self.t_list, self.seed, self.device)
        rows, levels = list[Row](), list[Tensor]()
        images = self._images(self.settings.images_per_prompt)
        with self._apart():
            for batch in iter_drawn(draw, images, self._at_once):
                rows += batch.rows
                levels += batch.levels
        names = [f"image {row['image_index']} of prompt {row['prompt_id']}" for row in rows]
        return Images(rows, names, partial(_usable, levels))

    def _value(self, metric: str, measured: Measured) -> Value:
        extractor = METRICS[metric].extractor
        real = self._real(extractor) if extractor else None
        inside = counted(metric, measured.table, "all")
        found = aggregate(metric, measured, inside, real, seed=None)
        return Value(found.value, found.n)

    def _real(self, extractor: str) -> RealFeatures:
        if (name := self.suite.reference.statistics) is not None:
            return load_reference(find_statistics(name), extractor)
        draw_real = self.backend.draw_real
        assert draw_real is not None, "plan refuses a distance without real images"
        wanted = {METRICS[metric].extractor for metric in self.settings.metrics}
        images = tuple(self._images(self.suite.reference.images_per_prompt))
        extractors = tuple(sorted(name for name in wanted if name))
        return _real_features(draw_real, images, extractors)[extractor]


def leave_room(device: str) -> None:
    """Scorers out of the memory of a GPU, which updates fill.

    On a CPU they stay: small trainings alone run there, and would load them at each evaluation.
    """
    if device == "cpu":
        return_memory()
    else:
        let_go()


def _or_none(images: Images, row: int) -> Image | None:
    try:
        return images.open(row)
    except Unusable:
        return None


def _usable(levels: Sequence[Tensor], row: int) -> Image:
    picture = as_picture(levels[row])
    refuse_blank(picture)
    return picture


@cache
def _real_features(
    draw_real: Callable[[str, torch.Generator], Tensor],
    images: tuple[ImageId, ...],
    extractors: tuple[str, ...],
) -> dict[str, RealFeatures]:
    """Features of the real images by extractor; all students of a process share them."""
    drawn = torch.stack([draw_reference(draw_real, image) for image in images])
    prompts = [image.prompt.text for image in images]
    found = features_of(as_pictures(drawn), prompts, extractors)
    groups = np.array([image.prompt.prompt_id for image in images])
    return {name: RealFeatures(features, groups) for name, features in found.items()}


# A history is a list of such rows, plain data that a checkpoint can hold


def history_rows(iteration: int, values: dict[str, Value]) -> list[Row]:
    """One row for each metric of an evaluation; a missing value is None."""
    return [
        {"iteration": iteration, "metric": metric, "value": finite_or_none(value), "n": n}
        for metric, (value, n) in values.items()
    ]


def best_row(history: Sequence[Row], metric: str) -> Row | None:
    """The evaluation with the best value of the metric, None where every one is missing.

    Of equal values the earlier is the best; a missing one never is.
    """
    sign = {"higher": 1, "lower": -1}[METRICS[metric].better]
    known = [row for row in history if row["metric"] == metric and row["value"] is not None]
    return max(known, key=lambda row: sign * row["value"], default=None)


def evaluations_table(history: Sequence[Row]) -> pd.DataFrame:
    """The history as a table: iteration int, metric str, value float (NaN: missing), n int."""
    columns = {"iteration": "int64", "metric": "object", "value": "float64", "n": "int64"}
    return pd.DataFrame(list(history), columns=list(columns)).astype(columns)
