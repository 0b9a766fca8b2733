"""The table of an image a row: what scorers said, and what is made of their features."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ddmd_bench.measuring.aggregates import MetricsOf, is_asked
from ddmd_bench.measuring.sheets import Answer
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.copies import has_copy
from ddmd_bench.stats.diversity import DIVERSITIES

Row = Mapping[str, Any]
_IDENTITY = ("prompt_id", "prompt_set", "image_index")


def per_image_table(
    rows: Sequence[Row],
    metrics: Sequence[str],
    answers: Mapping[str, Answer],
    asked: MetricsOf | None = None,
) -> pd.DataFrame:
    """A row an image: its identity, each metric that images or prompts have, and what scorers say
    beside; NaN where there is no value, or the metric is for prompts of other sets."""
    # Counted where the images were made: a file holds clipped values only.
    shares = [math.nan if row["out_of_range"] is None else row["out_of_range"] for row in rows]
    known: dict[str, Any] = {"saturation": shares}
    for answer in answers.values():
        known |= answer.columns
    known |= {name: _within(rows, name, answers) for name in metrics if METRICS[name].within}
    known |= {name: _across(rows, name, answers) for name in metrics if METRICS[name].across}
    wanted = [name for name in metrics if METRICS[name].kind != "distribution"]
    beside = [name for name in known if name not in METRICS]
    table = pd.DataFrame({name: [row[name] for row in rows] for name in _IDENTITY})
    for name in [*wanted, *beside]:
        # A scorer that was asked about none of the images has no column.
        table[name] = np.asarray(known.get(name, [math.nan] * len(rows)), np.float64)
    for name in wanted:  # its scorer may have been asked for another metric's sake
        table.loc[~is_asked(name, table["prompt_set"].to_numpy(), asked), name] = math.nan
    return table


def _within(rows: Sequence[Row], metric: str, answers: Mapping[str, Answer]) -> NDArray[np.float64]:
    """A prompt's value at each of its images, made of those that have features."""
    scorer, statistic = METRICS[metric].within or ("", "")
    found = np.full(len(rows), math.nan)
    features = answers[scorer].features
    if features is None:
        return found
    whole = np.asarray(np.isfinite(features).all(axis=1))
    places = defaultdict[str, list[int]](list)
    for k, row in enumerate(rows):
        places[row["prompt_id"]].append(k)
    for of_prompt in places.values():
        known = [k for k in of_prompt if whole[k]]
        found[of_prompt] = DIVERSITIES[statistic](features[known])
    return found


def _across(rows: Sequence[Row], metric: str, answers: Mapping[str, Answer]) -> NDArray[np.float64]:
    """Whether each image has a copy among those of other prompts, made of those with features."""
    scorer, cosine = METRICS[metric].across or ("", math.nan)
    features = answers[scorer].features
    if features is None:
        return np.full(len(rows), math.nan)
    # By the text: a list may hold a prompt twice. Without one an image stands for itself.
    return has_copy(features, [row["prompt"] or row["prompt_id"] for row in rows], cosine)
