"""From images to numbers: a table of one row an image, features, and the metrics over them.

The score stage and the evaluation of a student in training share it; they differ in where the
images come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddmd_bench.scorers import BATCH_SIZE, METRICS, ScoredImages, extract, joined, needed_scorers
from ddmd_bench.scorers.images import diversity
from ddmd_bench.scorers.refusals import refuse_constant, refuse_not_finite
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import Reference
from ddmd_bench.stats.intervals import Interval, mean_interval

Row = dict[str, Any]
_IDENTITY = ("prompt_id", "prompt_set", "image_index")


class Batch(NamedTuple):
    """Images to score; those of one prompt are in one batch."""

    rows: Sequence[Row]  # prompt_id, prompt_set, prompt, image_index and out_of_range of each
    images: Tensor  # uint8 [B, 3, H, W]
    names: Sequence[str]  # what an error calls each


class Measured(NamedTuple):
    """What was measured on images, rows in their order."""

    table: pd.DataFrame  # the metrics' own columns, then what the scorers say beside them
    features: dict[str, NDArray[np.float32]]  # scorer -> [n, d]


def whole_prompts(rows: Sequence[Row]) -> Iterator[slice]:
    """Parts of about BATCH_SIZE rows that split no prompt: diversity compares the images of one."""
    start = 0
    for k in range(1, len(rows)):
        whole = rows[k]["prompt_id"] != rows[k - 1]["prompt_id"]
        if whole and k - start >= BATCH_SIZE:
            yield slice(start, k)
            start = k
    if rows:
        yield slice(start, len(rows))


def measure(batches: Iterable[Batch], metrics: Sequence[str], student: str) -> Measured:
    """Hand each image to every scorer that the metrics need, in one pass."""
    scorers = needed_scorers(metrics)
    rows: list[Row] = []
    parts: list[ScoredImages] = []
    diversities: list[float] = []
    distinct: dict[bytes, str] = {}
    for batch in batches:
        # The layout of a decoded file: the order of a sum, and so its last bits, depend on it.
        images = batch.images.contiguous(memory_format=torch.channels_last)
        for name, image in zip(batch.names, images, strict=True):
            distinct.setdefault(sha256(image.numpy().tobytes()).digest(), name)
        parts.append(extract(images, [row["prompt"] for row in batch.rows], scorers))
        refuse_not_finite(student, parts[-1], batch.names)
        diversities += _diversity(images, [row["prompt_id"] for row in batch.rows])
        rows += batch.rows
    scored = joined(parts)
    refuse_constant(student, scored, list(distinct.values()))
    return Measured(_table(rows, metrics, scored, diversities), scored.features)


def _diversity(images: Tensor, prompt_ids: Sequence[str]) -> list[float]:
    """Each prompt's diversity, repeated for each of its images."""
    x = images.float() / 127.5 - 1
    ids = np.array(prompt_ids)
    value = {name: diversity(x[torch.from_numpy(ids == name)]) for name in set(prompt_ids)}
    return [value[name] for name in prompt_ids]


def _table(
    rows: Sequence[Row], metrics: Sequence[str], scored: ScoredImages, diversities: list[float]
) -> pd.DataFrame:
    # Counted where the images were made: a file holds clipped values only.
    shares = [math.nan if row["out_of_range"] is None else row["out_of_range"] for row in rows]
    known: dict[str, Any] = {"saturation": shares, "diversity": diversities}
    for columns in scored.columns.values():
        known |= columns
    wanted = [name for name in metrics if METRICS[name].kind != "distribution"]
    beside = [name for name in known if name not in METRICS]
    table = pd.DataFrame({name: [row[name] for row in rows] for name in _IDENTITY})
    for name in [*wanted, *beside]:
        table[name] = np.asarray(known[name], np.float64)
    return table


def in_group(prompt_sets: NDArray[Any], group: str) -> NDArray[np.bool_]:
    """Which images belong to a prompt set, or to 'all'."""
    everything = np.ones(len(prompt_sets), bool)
    return everything if group == "all" else np.asarray(prompt_sets == group)


def counted(metric: str, table: pd.DataFrame, group: str) -> NDArray[np.bool_]:
    """Which rows of the table a metric over a group counts."""
    inside = in_group(table["prompt_set"].to_numpy(), group)
    if METRICS[metric].kind == "prompt":  # its value stands on each image of the prompt
        inside &= ~table["prompt_id"].duplicated().to_numpy()
    return inside


def aggregate(
    metric: str,
    measured: Measured,
    inside: NDArray[np.bool_],
    real: Reference | None,
    seed: int | None,
) -> Interval:
    """A metric over the rows inside; one of kind distribution compares them with `real`.

    Such a distance has its interval from resamples drawn with the seed; without one, none.
    """
    groups = measured.table["prompt_id"].to_numpy()[inside]
    row = METRICS[metric]
    if row.extractor is None or row.distance is None:
        return mean_interval(measured.table[metric].to_numpy()[inside], groups)
    assert real is not None, f"{metric} compares with real images"
    features, distance = measured.features[row.extractor][inside], DISTANCES[row.distance]
    # Missing where either side has too few images.
    if min(len(features), len(real.features)) < distance.fewest(features.shape[1]):
        return Interval(math.nan, math.nan, math.nan, len(features))
    if seed is None:
        value = distance.value(features, real)
        return Interval(value, math.nan, math.nan, len(features))
    return distance.interval(features, real, groups, seed)
