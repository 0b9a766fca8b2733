"""Who sees which sets in which order: balanced, and random from one seed.

Each set of images is seen by as many people as were asked for; each person sees as many sets as
the others, or one fewer; within a person's sets each place holds each image equally often.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Showing(NamedTuple):
    """One screen of a person: a set, and which of its images stands at each place."""

    number: int  # of the set
    order: tuple[int, ...]

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"set": self.number, "order": list(self.order)}


def blocks_of(
    num_prompts: int, num_students: int, size: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """Which students are shown of each prompt, where they are too many for one screen.

    Of all subsets of the size one that brings together whom fewer prompts have, so that each two
    students meet equally often, or nearly.
    """
    subsets = [*combinations(range(num_students), size)]
    pairs = {pair: k for k, pair in enumerate(combinations(range(num_students), 2))}
    inside = np.zeros((len(subsets), len(pairs)))
    for k, subset in enumerate(subsets):
        inside[k, [pairs[pair] for pair in combinations(subset, 2)]] = 1
    met = np.zeros(len(pairs))
    chosen = []
    for _ in range(num_prompts):
        # The sum of squares of all meetings grows by least.
        costs = inside @ met
        best = np.flatnonzero(costs == costs.min())
        k = int(generator.choice(best))
        met += inside[k]
        chosen.append(subsets[k])
    return chosen


def shares_of(
    num_sets: int, num_people: int, seen_by: int, generator: np.random.Generator
) -> list[list[int]]:
    """The sets of each person, in random order; none twice."""
    shares: list[list[int]] = [[] for _ in range(num_people)]
    sets = generator.permutation(num_sets)
    for first in range(0, num_sets, num_people):
        # Within a block each person has `seen_by` sets, and other company than in the last.
        people = generator.permutation(num_people)
        for k, number in enumerate(sets[first : first + num_people]):
            for j in range(seen_by):
                shares[people[(k * seen_by + j) % num_people]].append(int(number))
    return [[int(number) for number in generator.permutation(share)] for share in shares]


def orders_of(num: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Orders [num, size] of images: in each `size` of them each image stands once at each place."""
    rows = []
    for _ in range(0, num, size):
        order = generator.permutation(size)
        turns = [np.roll(order, k) for k in range(size)]
        rows += [turns[k] for k in generator.permutation(size)]
    return np.array(rows[:num], np.int64).reshape(num, size)


def screens_of(
    share: list[int],
    obvious: list[int],
    num_repeated: int,
    size: int,
    generator: np.random.Generator,
) -> list[Showing]:
    """A person's screens: their sets, the obvious ones among them, and some of them once more.

    A repeated set comes as far from its first showing as half of the sets, in another order.
    """
    mixed = [*share]
    for number in obvious:
        # Not first: nobody has learnt by then what is asked.
        mixed.insert(int(generator.integers(1, len(mixed) + 1)), number)
    half = len(share) // 2
    again = [int(n) for n in generator.permutation(share[:half])[:num_repeated]]
    for number in again:
        first = mixed.index(number)
        earliest = min(first + 1 + half, len(mixed))
        mixed.insert(int(generator.integers(earliest, len(mixed) + 1)), number)
    orders = orders_of(len(mixed), size, generator)
    found = [Showing(n, tuple(map(int, order))) for n, order in zip(mixed, orders, strict=True)]
    return _reordered(found, {*again})


def _reordered(screens: list[Showing], repeated: set[int]) -> list[Showing]:
    """A set that comes again has another order, else places alone would be remembered."""
    seen: dict[int, tuple[int, ...]] = {}
    result = []
    for screen in screens:
        if screen.number in repeated and seen.get(screen.number) == screen.order:
            screen = screen._replace(order=(*screen.order[1:], screen.order[0]))
        seen[screen.number] = screen.order
        result.append(screen)
    return result
