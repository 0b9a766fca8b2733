"""Looks at comparisons while their images are drawn, each from two students' tables so far.

    found = looks_at(rule, "prompt_accuracy", student.table, baseline.table)

What was decided hangs on the tables alone: whoever reads them again, after a kill or for a report,
sees the same looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ddmd_bench.measuring.pairs import shared_rows
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import headline_of
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.sequential import Answer, Look, level_of, looks
from ddmd_bench.suite.schema import Suite

if TYPE_CHECKING:
    import pandas as pd

# The one order of all students' prompts, as a protocol has it (`data.prompts.in_proportion`).
ORDER = "each prompt set in its own fixed shuffle, sets interleaved in proportion to their sizes"
Outcome = Literal["better", "worse", "differs", "alike"]


@dataclass(frozen=True)
class Rule:
    """When drawing ends: what a suite asks for, with its defaults, and what follows from it."""

    metrics: tuple[str, ...]
    block: int
    margins: Mapping[str, float]
    num_comparisons: int  # of a student with the baseline on a metric: they hold together
    num_prompts: Mapping[str, int]  # that a metric is for, of the whole suite, by metric
    order: str = ORDER

    @property
    def level(self) -> float:
        """Of each comparison."""
        return level_of(self.num_comparisons)

    def as_key(self) -> dict[str, Any]:
        """What determines the images of a student beside the suite's prompts."""
        own = {metric: self.num_prompts[metric] for metric in self.metrics}
        return {**asdict(self), "num_prompts": own}


def compared_students(suite: Suite) -> list[str]:
    """Those that differences to the baseline are of: real scenes share prompts, but no noise."""
    rows = suite.students.items()
    return [name for name, row in rows if name != suite.baseline and row.source != "real"]


def rule_of(suite: Suite) -> Rule | None:
    """The suite's rule; None where it draws the images of all prompts."""
    asked = suite.until_settled
    if asked is None:
        return None
    first = headline_of(suite.metrics, "image")
    metrics = asked.metrics or ((first,) if first else ())
    gate = {name: row.margin for name, row in suite.gate.items() if row.margin is not None}
    known = {**gate, **asked.margins}
    sizes = {name: row.num_prompts for name, row in suite.prompts.items()}
    of_sets = suite.metrics_of()
    return Rule(
        metrics=metrics,
        block=asked.block,
        margins={name: known[name] for name in metrics if name in known},
        num_comparisons=max(1, len(metrics) * len(compared_students(suite))),
        num_prompts={
            metric: sum(sizes[name] for name, own in of_sets.items() if metric in own)
            for metric in suite.metrics
        },
    )


def looks_at(
    rule: Rule, metric: str, student: pd.DataFrame, baseline: pd.DataFrame, level: float
) -> list[Look]:
    """Looks at student minus baseline after each block that both have, up to the one that tells."""
    differences, ends = prompt_differences(rule, metric, student, baseline)
    return looks(differences, ends, rule.num_prompts[metric], level, rule.margins.get(metric, 0.0))


def as_it_stands(rule: Rule, metric: str, a: pd.DataFrame, b: pd.DataFrame, level: float) -> Look:
    """a - b over all prompts that both have."""
    differences, _ = prompt_differences(rule, metric, a, b)
    return looks(differences, [len(differences)], rule.num_prompts[metric], level)[-1]


def prompt_differences(
    rule: Rule, metric: str, a: pd.DataFrame, b: pd.DataFrame
) -> tuple[Array, list[int]]:
    """a - b of each prompt, the mean over its images, in the order of drawing; and how many of them
    there are after each block that both have. What one of the two has no value of is left out."""
    rows = shared_rows(a, b)
    gaps = a[metric].to_numpy(np.float64)[rows[0]] - b[metric].to_numpy(np.float64)[rows[1]]
    prompts = a["prompt_id"].to_numpy()[rows[0]]
    _, first, place = np.unique(prompts, return_index=True, return_inverse=True)
    drawn = np.argsort(np.argsort(first))[place]  # which prompt, in the order of drawing
    known, num = ~np.isnan(gaps), len(first)
    counts = np.bincount(drawn[known], minlength=num)
    sums = np.bincount(drawn[known], gaps[known], minlength=num)
    valued = counts > 0
    so_far = np.cumsum(valued)
    blocks = [*range(rule.block, num, rule.block), num] if num else []
    return sums[valued] / counts[valued], [int(so_far[k - 1]) for k in blocks]


def outcome_named(metric: str, answer: Answer) -> Outcome:
    """What an answer on student minus baseline says of the student."""
    if answer == "alike":
        return "alike"
    if METRICS[metric].better == "reference":
        return "differs"
    return "better" if (answer == "above") == (METRICS[metric].better == "higher") else "worse"
