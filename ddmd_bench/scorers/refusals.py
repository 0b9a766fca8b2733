"""Answers of a scorer that cannot be right stop the run: a made-up 0 would look like a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import ScoredImages


def refuse_not_finite(student: str, scored: ScoredImages, names: Sequence[str]) -> None:
    """Every column and feature of every image (one name each) must be a finite number."""
    for scorer, columns in scored.columns.items():
        values: dict[str, NDArray[Any]] = dict(columns)
        if scorer in scored.features:
            values["features"] = scored.features[scorer]
        for column, value in values.items():
            bad = ~np.isfinite(value.reshape(len(names), -1)).all(1)
            if bad.any():
                raise BenchError(
                    f"scorer {scorer}, student {student}: {column} is not finite for "
                    f"{names[int(bad.argmax())]} ({int(bad.sum())} of {len(names)} images of its "
                    "batch). No value is written; check the image and the scorer's weights"
                )


def refuse_constant(student: str, scored: ScoredImages, different: Sequence[str]) -> None:
    """Different images with one and the same answer: the scorer is not looking at them.

    `different` names one of each distinct image. Where a scorer has features they are its
    answer; columns alone may well be constant, since a student can be right on every prompt.
    """
    if len(different) < 2:
        return
    for scorer, columns in scored.columns.items():
        features = scored.features.get(scorer)
        answer = np.stack(list(columns.values()), 1) if features is None else features
        if (answer == answer[0]).all():
            raise BenchError(
                f"scorer {scorer}, student {student}: the same answer for all {len(answer)} "
                f"images, though {different[0]} and {different[1]} differ. No value is "
                "written; check the scorer's weights"
            )
