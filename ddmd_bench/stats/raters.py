"""Intervals of what people have judged: over the prompts and over the people.

Judgments of one prompt resemble each other, and so do those of one person. What each judgment adds
to an estimate is summed by prompt, and by person; the second as far as it is more than judgments
that are independent would show (the two-way variance of Cameron, Gelbach and Miller, 2011). Half
widths of both are added as squares.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import LEAST_P, Array, Part, p_of_parts, share_ends, t_quantile
from ddmd_bench.stats.intervals import Interval


class Judges(NamedTuple):
    """Of each judgment [n] its prompt and its person, by number."""

    prompts: NDArray[np.int64]
    people: NDArray[np.int64]

    @classmethod
    def of(cls, prompts: NDArray[Any], people: NDArray[Any]) -> Judges:
        """From names of any kind."""
        return cls(*(np.unique(names, return_inverse=True)[1] for names in (prompts, people)))

    def at(self, rows: NDArray[Any]) -> Judges:
        """Of some of the judgments."""
        return Judges.of(self.prompts[rows], self.people[rows])


class Spread(NamedTuple):
    """Variances of an estimate by the choice of prompts and, beyond that, of people."""

    of_prompts: float
    num_prompts: int
    of_people: float
    num_people: int

    def half_width(self) -> float:
        """Of the 95 % interval; NaN of one prompt."""
        half = math.sqrt(self.of_prompts) * t_quantile(self.num_prompts)
        if self.of_people:
            half = math.hypot(half, math.sqrt(self.of_people) * t_quantile(self.num_people))
        return half


def spread_of(influence: Array, judges: Judges) -> Spread:
    """From what each judgment [n] adds to an estimate, times n; the mean of it is 0."""
    n = len(influence)
    num_prompts, num_people = (int(numbers.max()) + 1 for numbers in judges)
    both = judges.prompts * num_people + judges.people
    by_prompt = _summed_squares(influence, judges.prompts) / n**2
    by_person = _summed_squares(influence, judges.people) / n**2
    by_both = _summed_squares(influence, np.unique(both, return_inverse=True)[1]) / n**2
    corrected = num_prompts / (num_prompts - 1) if num_prompts > 1 else math.nan
    beyond = 0.0
    if num_people > 1:
        beyond = max(0.0, by_person * num_people / (num_people - 1) - by_both)
    return Spread(by_prompt * corrected, num_prompts, beyond, num_people)


def _summed_squares(influence: Array, groups: NDArray[np.int64]) -> float:
    sums = np.bincount(groups, influence)
    return float(sums @ sums)


def judged_mean(values: Array, judges: Judges) -> Interval:
    """Mean of the judgments [n] with its 95 % interval."""
    value = float(values.mean())
    half = spread_of(values - value, judges).half_width()
    return Interval(value, value - half, value + half, len(values))


def judged_share(values: Array, judges: Judges) -> Interval:
    """The same of values in [0, 1]: never beyond them, and one-sided where all are 0 or 1."""
    value, num_prompts = float(values.mean()), int(judges.prompts.max()) + 1
    if num_prompts < 2:
        return Interval(value, math.nan, math.nan, len(values))
    number = independent_answers(values, judges)
    return Interval(value, *share_ends(value, number, num_prompts), len(values))


def independent_answers(values: Array, judges: Judges) -> float:
    """How many answers of nobody and nothing in common would have the interval of these [n]."""
    value = float(values.mean())
    spread = spread_of(values - value, judges)
    variance = (spread.half_width() / t_quantile(spread.num_prompts)) ** 2
    most = value * (1 - value)
    return most / variance if variance and most else float(spread.num_prompts)


def p_value(value: float, influence: Array, judges: Judges) -> float:
    """Two-sided, of an estimate that is 0 where nothing differs: 1 less the level whose interval
    reaches 0; where nothing varies, so that each prompt says the same, the sign test over them."""
    spread = spread_of(influence, judges)
    if spread.num_prompts < 2 or not (spread.of_prompts or spread.of_people):
        return 1.0 if value == 0 else max(2 * 0.5**spread.num_prompts, LEAST_P)
    of_prompts = Part(spread.of_prompts, spread.num_prompts)
    return p_of_parts(value, [of_prompts, Part(spread.of_people, spread.num_people)])
