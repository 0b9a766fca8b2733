"""From a table of images to a metric's value: which rows count, its interval, its record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.files.records import finite_or_none
from ddmd_bench.measuring.few_images import lacking
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.intervals import Interval, mean_interval

if TYPE_CHECKING:
    import pandas as pd

    from ddmd_bench.measuring.measure import Measured
    from ddmd_bench.stats.frechet import RealFeatures

MetricsOf = Mapping[str, Collection[str]]  # prompt set -> the metrics that are for its prompts


def aggregate(
    metric: str,
    measured: Measured,
    inside: NDArray[np.bool_],
    real: RealFeatures | None,
    seed: int | None,
) -> Interval:
    """A metric over the rows inside; one of kind distribution compares them with `real`.

    Such a distance has its interval from resamples drawn with the seed; without one, none.
    """
    if not inside.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    groups = measured.table["prompt_id"].to_numpy()[inside]
    row = METRICS[metric]
    if row.extractor is None or row.distance is None:
        return mean_interval(*values_of(metric, measured.table, inside), row.bounds)
    assert real is not None, f"{metric} compares with real images"
    features, distance = measured.features[row.extractor][inside], DISTANCES[row.distance]
    known = np.isfinite(features).all(1)
    features, groups = features[known], groups[known]
    if lacking(metric, len(features), features.shape[1], real.num_images) is not None:
        return Interval(math.nan, math.nan, math.nan, len(features))
    assert len(real.features) or not distance.needs_features, f"plan refuses {metric} of a Gaussian"
    if seed is None:
        value = distance.value(features, real)
        return Interval(value, math.nan, math.nan, len(features))
    return distance.interval(features, real, groups, seed)


def values_of(
    metric: str, table: pd.DataFrame, inside: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values and prompts of the images inside, each as often as it counts."""
    values, groups = (table[name].to_numpy()[inside] for name in (metric, "prompt_id"))
    times = how_often(metric, table)[inside]
    return values.repeat(times), groups.repeat(times)


def how_often(metric: str, table: pd.DataFrame) -> NDArray[np.int64]:
    """How often each image counts: once, or for each of the questions about its prompt."""
    if (counts := METRICS[metric].counts) is None:
        return np.ones(len(table), np.int64)
    times: NDArray[np.int64] = np.nan_to_num(table[counts].to_numpy()).astype(np.int64)
    return times


def counted(
    metric: str, table: pd.DataFrame, group: str, asked: MetricsOf | None = None
) -> NDArray[np.bool_]:
    """Which rows of the table a metric over a group counts: those of prompts that it is for."""
    sets = table["prompt_set"].to_numpy()
    inside = is_asked(metric, sets, asked)
    if group != "all":
        inside &= sets == group
    if METRICS[metric].kind == "prompt":  # its value stands on each image of the prompt
        inside &= _once(table["prompt_id"].to_numpy(), table[metric].to_numpy())
    return inside


def is_asked(metric: str, prompt_sets: NDArray[Any], asked: MetricsOf | None) -> NDArray[np.bool_]:
    """Which images' prompts a metric is for: all where no set has metrics of its own."""
    if asked is None:
        return np.ones(len(prompt_sets), bool)
    return np.isin(prompt_sets, [name for name, metrics in asked.items() if metric in metrics])


def _once(prompts: NDArray[Any], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """One image of each prompt, the first that has a value where any has."""
    order = np.argsort(np.isnan(values), kind="stable")
    _, first = np.unique(prompts[order], return_index=True)
    once = np.zeros(len(prompts), bool)
    once[order[first]] = True
    return once


def cell_of(interval: Interval, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """A value as a record holds it, with how many of the rows inside went into it."""
    return {
        "value": finite_or_none(interval.value),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
        "n": interval.n,
        "n_expected": int(inside.sum()),
    }


def shortcomings(measured: Measured) -> dict[str, Any]:
    """For a record: how many images each scorer has no value of, by reason, and how many prompts
    are longer than it reads."""
    prompts = measured.table["prompt_id"].to_numpy()
    missing = {
        name: dict(Counter(answer.missing.values()).most_common())
        for name, answer in measured.answers.items()
        if answer.missing
    }
    truncated = {
        name: len({prompts[row] for row in answer.truncated})
        for name, answer in measured.answers.items()
        if answer.truncated
    }
    return {"missing": missing, "truncated_prompts": truncated}
