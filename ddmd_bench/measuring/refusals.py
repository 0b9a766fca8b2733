"""Answers of a scorer that cannot be right stop the run: a made-up 0 would look like a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers.metrics import METRICS

if TYPE_CHECKING:
    from ddmd_bench.measuring.sheets import Answer


def refuse_no_answer(scorer: str, student: str, answer: Answer) -> None:
    """A scorer that has no value for any image has not worked."""
    asked = answer.num_images - len(answer.not_asked)
    if asked and len(answer.missing) == asked:
        reason = next(iter(answer.missing.values()))
        raise BenchError(
            f"{_who(scorer, student)}: none of {asked} images has a value; the first: {reason}"
        )


def refuse_same_answers(
    scorer: str,
    student: str,
    answer: Answer,
    prompts: Sequence[str],
    different: Callable[[], tuple[str, str] | None],
) -> None:
    """Different images with one and the same answer: the scorer is not looking at them.

    `different` finds two images that differ, of `prompts` [n] by their ids. Where a scorer has
    features they are its answer; columns alone may well be constant, since a student can be right
    on every prompt. What is said of a prompt is the same of all its images.
    """
    values, no_value = answer.features, answer.missing.keys() | answer.not_asked
    of_prompts = all(METRICS[name].kind == "prompt" for name in answer.columns if name in METRICS)
    if values is None and of_prompts and len(set(prompts)) == 1:
        return
    if values is None:
        # Shares of a few answers may well be alike, and so may all be right or all be wrong.
        known = [METRICS[name] for name in answer.columns if name in METRICS]
        if any(metric.counts or metric.judges for metric in known) or not answer.columns:
            return
        values = np.stack(list(answer.columns.values()), 1).astype(np.float32)
        if np.isnan(values).all():  # of prompts with one image each, where pairs are compared
            return
    rows = [k for k in range(answer.num_images) if k not in no_value]
    alike = len(rows) > 1 and all(
        np.array_equal(values[k], values[rows[0]], equal_nan=True) for k in rows
    )
    if alike and (pair := different()) is not None:
        raise BenchError(
            f"{_who(scorer, student)}: the same answer for all {len(rows)} images, "
            f"though {pair[0]} and {pair[1]} differ. No value is written; check its weights"
        )


def _who(scorer: str, student: str) -> str:
    """Images of a folder are no student's."""
    return f"scorer {scorer}" + (f", student {student}" if student else "")
