"""The least difference that so many prompts, images and seeds show, and how many it takes.

80 % power of a two-sided test at 5 %, one comparison alone: Holm's correction asks for more.
Student's t of the seeds, the normal distribution of prompts; like `seed_interval` it adds the two
as squares. Of shares near 0 or 1 the interval is wider than this, and so is what can be shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

from ddmd_bench.stats.ends import QUANTILES, Array
from ddmd_bench.stats.seeds import of_prompts

POWER = 0.8
MOST = 10**7  # beyond so many a number is no answer
Unit = Literal["prompts", "images", "seeds"]


class Spreads(NamedTuple):
    """Variances of a paired difference of one image, by what they come from, and of how many.

    With one seed what a seed adds is unknown, 0 here; `prompts` then holds what one seed adds to a
    prompt as well.
    """

    seeds: float
    prompts: float  # what a prompt adds with every seed
    both: float  # what a prompt adds with one seed alone
    images: float
    num_seeds: int
    num_prompts: int
    num_images: float  # of a prompt with one seed

    def of_mean(self) -> tuple[float, float]:
        """Variance of the mean that other seeds would change, and that other prompts would."""
        images = self.images / (self.num_prompts * self.num_images)
        if self.num_seeds == 1:
            return 0.0, self.prompts / self.num_prompts + images
        both = self.both / self.num_prompts
        return (self.seeds + both + images) / self.num_seeds, self.prompts / self.num_prompts


def spreads_of(means: Array, counts: Array, squares: Array) -> Spreads | None:
    """From paired differences of prompts [seeds, P], as `by_prompt` has them.

    Moments of a balanced design, never below 0; None of fewer than two prompts.
    """
    k, num_prompts = means.shape
    if num_prompts < 2:
        return None
    num_images = float(counts.mean())
    spare = counts.sum() - counts.size  # degrees of freedom within prompts
    within = float((squares - counts * np.square(means)).sum() / spare) if spare else 0.0
    of_means = float(means.var(1, ddof=1).mean())
    of_images = within / num_images
    if k == 1:
        alone = max(of_means - of_images, 0.0)
        return Spreads(0.0, alone, 0.0, within, k, num_prompts, num_images)
    prompts = of_prompts(means).variance * num_prompts
    both = max(of_means - prompts - of_images, 0.0)
    seeds = float(means.mean(1).var(ddof=1)) - (both + of_images) / num_prompts
    return Spreads(max(seeds, 0.0), prompts, both, within, k, num_prompts, num_images)


def _reach(num_seeds: float) -> float:
    """How many standard errors a difference must be; of infinitely many seeds the normal's."""
    degrees = num_seeds - 1
    return float(stdtrit(degrees, QUANTILES[1]) + stdtrit(degrees, POWER))


NORMAL_REACH = _reach(math.inf)


def without_images(low: float, high: float, by_seed: Sequence[float], prompts: int) -> Spreads:
    """Of a value that no image has: from its interval over prompts, of several seeds their own."""
    if len(by_seed) > 1:
        return Spreads(float(np.var(by_seed, ddof=1)), 0.0, 0.0, 0.0, len(by_seed), prompts, 1.0)
    variance = ((high - low) / 2 / float(stdtrit(math.inf, QUANTILES[1]))) ** 2
    return Spreads(0.0, variance * prompts, 0.0, 0.0, 1, prompts, 1.0)


def least_difference(spreads: Spreads) -> float:
    """That would be shown with POWER."""
    of_seeds, of_prompts = spreads.of_mean()
    part = _reach(spreads.num_seeds) * math.sqrt(of_seeds) if of_seeds else 0.0
    return math.hypot(part, NORMAL_REACH * math.sqrt(of_prompts))


def needed(spreads: Spreads, difference: float, unit: Unit) -> int | None:
    """How many prompts, images of a prompt or seeds show a difference, all else as it is.

    None where no number does, or more than `MOST`: what the others add stays.
    """
    field = f"num_{unit}"
    if unit == "seeds" and spreads.num_seeds == 1:
        return None

    def shows(number: int) -> bool:
        return least_difference(spreads._replace(**{field: number})) <= difference

    low, high = (1 if unit == "seeds" else 0), 2
    while not shows(high):
        low, high = high, 2 * high
        if high > MOST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high
