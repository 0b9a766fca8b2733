"""Training diagnostics as series: thinned for the record, cut in windows for the claims."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.objective.series import SERIES
from ddmd_bench.reporting.seeds import Curve, joined_curve
from ddmd_bench.scorers import METRICS

if TYPE_CHECKING:
    import pandas as pd

# Series -> iteration. In the first the fake score still is the teacher, and DM is exactly 0.
FIRST_UPDATES = {"loss_student": 1, "ca_norm": 1, "x0_std": 1, "dm_norm": 2}
MAX_POINTS = 50
NUM_WINDOWS = 10


def window_means(values: np.ndarray, num: int) -> np.ndarray:
    """Means of `num` runs of consecutive values, as equal as can be: [n] -> [<= num].

    Values that are not finite are skipped; a window without any is NaN.
    """
    parts = np.array_split(np.asarray(values, np.float64), max(1, min(num, len(values))))
    kept = [part[np.isfinite(part)] for part in parts]
    return np.array([part.mean() if len(part) else math.nan for part in kept])


def thinned(diagnostics: dict[int, pd.DataFrame]) -> dict[str, dict[str, list[float]]]:
    """Each series over the seeds as at most 50 points; a point is the mean over its stretch of
    iterations.

    A series that a method does not have (all NaN) is left out.
    """
    series = {}
    for name in SERIES:
        curves = {
            seed: _thinned(table, name)
            for seed, table in diagnostics.items()
            if name in table and np.isfinite(table[name]).any()
        }
        if curves:
            series[name] = joined_curve(curves)
    return series


def _thinned(diagnostics: pd.DataFrame, series: str) -> Curve:
    middles = window_means(diagnostics["iteration"].to_numpy(np.float64), MAX_POINTS)
    means = window_means(diagnostics[series].to_numpy(), MAX_POINTS)
    return dict(zip(middles.tolist(), means.tolist(), strict=True))


def evaluated(evaluations: dict[int, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    """Each metric's curve over the seeds, with every seed's own and the images of one evaluation.

    Counts that differ are given as their range.
    """
    metrics = {}
    for name in METRICS:
        rows = {seed: t[t["metric"] == name] for seed, t in evaluations.items()}
        rows = {seed: table for seed, table in rows.items() if len(table)}
        if rows:
            curves = {
                seed: dict(zip(t["iteration"], t["value"], strict=True)) for seed, t in rows.items()
            }
            counts = [int(n) for table in rows.values() for n in table["n"]]
            metrics[name] = {
                **joined_curve(curves),
                "n": [min(counts), max(counts)],
                "by_seed": {seed: joined_curve({seed: curve}) for seed, curve in curves.items()},
            }
    return metrics


def real_levels(tables: Iterable[pd.DataFrame]) -> dict[str, float]:
    """What x0_mean and x0_std are for real scenes, the mean over the seeds' scenes."""
    levels = [level for table in tables if (level := _real_levels(table))]
    names = levels[0] if levels else ()
    return {name: math.fsum(level[name] for level in levels) / len(levels) for name in names}


def _real_levels(per_image: pd.DataFrame) -> dict[str, float]:
    """The levels from each scene's own mean and std.

    Training pools all pixels of a batch, so the spread between images counts too:
    pooled variance = mean of the variances + variance of the means.
    """
    if not {"mean", "std"} <= set(per_image.columns):
        return {}
    means, stds = (per_image[name].to_numpy(np.float64) for name in ("mean", "std"))
    pooled = math.sqrt(float(np.mean(stds**2) + np.var(means)))
    return {"x0_mean": float(means.mean()), "x0_std": pooled}


def first_updates(diagnostics: pd.DataFrame) -> dict[str, float]:
    """The raw values of the first updates: what depends least on how rounding errors grow."""
    return {
        name: dict(zip(diagnostics["iteration"], diagnostics[name], strict=True)).get(k, math.nan)
        for name, k in FIRST_UPDATES.items()
        if name in diagnostics
    }
