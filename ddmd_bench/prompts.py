"""Prompts of a suite: stable ids, a fixed subset, and the sha256 that the protocol records."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ddmd_bench.errors import BenchError
from ddmd_bench.records import content_key, seed_of


@dataclass(frozen=True)
class Prompt:
    """One prompt; `prompt_id` is stable, e.g. 'compositional/0017'."""

    prompt_id: str
    prompt_set: str
    text: str


def choose(prompt_set: str, texts: Sequence[str], num_prompts: int) -> list[Prompt]:
    """The first `num_prompts` of a shuffle that depends on the set's name alone.

    A larger subset contains the smaller one; the suite's seed changes neither.
    """
    if num_prompts > len(texts):
        raise BenchError(
            f"prompts.{prompt_set}: asks for {num_prompts} prompts, its source has {len(texts)}"
        )
    order = list(range(len(texts)))
    random.Random(seed_of("prompts", prompt_set)).shuffle(order)
    return [Prompt(f"{prompt_set}/{k:04d}", prompt_set, texts[k]) for k in order[:num_prompts]]


def head_in_proportion(prompts: Sequence[Prompt], num_prompts: int) -> list[Prompt]:
    """The head of each set's prompts, sets in proportion to their sizes, in the order given.

    The k-th of a set of P prompts stands at (k + 1/2) / P, and the first `num_prompts` of all are
    taken, of equal ones the earlier set's: a larger subset contains the smaller one.
    """
    sizes = Counter(prompt.prompt_set for prompt in prompts)
    seen: Counter[str] = Counter()
    place = []
    for prompt in prompts:
        place.append(Fraction(2 * seen[prompt.prompt_set] + 1, 2 * sizes[prompt.prompt_set]))
        seen[prompt.prompt_set] += 1
    taken = sorted(range(len(prompts)), key=place.__getitem__)[:num_prompts]
    return [prompts[k] for k in sorted(taken)]


def prompts_key(prompts: Sequence[Prompt]) -> str:
    """Content key over ids and texts, in order."""
    return content_key([[p.prompt_id, p.text] for p in prompts])
