"""The prompts that lost most of a metric, with their pictures on either side."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ddmd_bench.reporting.numbers import metric_shown, unit_of
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS

MOST = 3  # of a student and metric


class Worst(NamedTuple):
    """One prompt of a student and metric; `pictures` by what to call them."""

    name: str
    prompt_id: str
    text: str
    told: str
    pictures: dict[str, Path]


def worst_prompts(run: RunFiles, new: str, old: str, metric: str, name: str) -> Iterator[Worst]:
    """Those whose mean over images and seeds lost most beside the other student's, worst first.

    None of a metric without a value of each prompt. Where neither direction is better: those that
    moved most.
    """
    means = [_means(run, student, metric) for student in (new, old)]
    if any(each is None for each in means):
        return
    table = pd.concat(means, axis=1, keys=["new", "old"]).dropna()
    difference = table["new"] - table["old"]
    loss = {"higher": difference, "lower": -difference}.get(
        METRICS[metric].better, -difference.abs()
    )
    for prompt_id in loss[loss < 0].sort_values(kind="stable").index[:MOST]:
        values = [f"{metric_shown(metric, v)}{unit_of(metric)}" for v in table.loc[prompt_id]]
        yield Worst(
            name,
            str(prompt_id),
            run.prompts.get(str(prompt_id), ""),
            f"{values[0]}, was {values[1]}",
            {
                f"{str(prompt_id).replace('/', '-')}-{index}-{word}{path.suffix}": path
                for word, student in (("new", new), ("old", old))
                for (its, index), path in run.first_seed(student).images.items()
                if its == prompt_id
            },
        )


def _means(run: RunFiles, student: str, metric: str) -> pd.Series[float] | None:
    tables = [one.per_image for one in run.students[student].values()]
    known = [table for table in tables if table is not None and metric in table]
    if not known or METRICS[metric].kind == "distribution":
        return None
    return pd.concat(known).groupby("prompt_id")[metric].mean().astype(np.float64)


def copy_pictures(worst: Iterable[Worst], folder: Path) -> int:
    """Copy the prompts' pictures into a folder for each student and metric; how many there are."""
    number = 0
    for one in worst:
        below = folder / one.name.replace(", ", "-").replace(" ", "_").replace("/", "_")
        below.mkdir(parents=True, exist_ok=True)
        for called, path in one.pictures.items():
            shutil.copyfile(path, below / called)
            number += 1
    return number
