"""What a difference could have shown, and the spreads that say how much would show more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.power import least_difference, spreads_of, without_images
from ddmd_bench.stats.seeds import NO_PROMPTS, OfPrompts, by_prompt, of_prompts

if TYPE_CHECKING:
    from ddmd_bench.reporting.differences import Difference

# Of each seed: a - b of images that both students have, and their prompts, [n] each; empty of a
# value that no image has.
Pairs = list[tuple[NDArray[np.float64], NDArray[np.int64]]]


def numbered(prompts: NDArray[Any], numbers: dict[str, int]) -> NDArray[np.int64]:
    """A number for each prompt id, kept in `numbers`: to sort texts takes fifty times longer."""
    return np.array([numbers.setdefault(p, len(numbers)) for p in prompts.tolist()], np.int64)


def shared_prompts(pairs: Pairs) -> OfPrompts:
    """What the choice of prompts adds to the spread of several seeds."""
    return of_prompts(by_prompt(pairs)[0]) if len(pairs) > 1 else NO_PROMPTS


def with_power(d: Difference, pairs: Pairs, num_prompts: int) -> Difference:
    """With the least difference that it could have shown, where it has an interval."""
    if not math.isfinite(d.low + d.high):
        return d
    values = [value for value in d.by_seed.values() if math.isfinite(value)]
    found = spreads_of(*by_prompt(pairs)) if pairs else None
    if found is None or not any(found[:4]):  # all tie: the interval alone has a width
        found = without_images(d.low, d.high, values, num_prompts)
    return d._replace(least=least_difference(found), spreads=found._asdict())
