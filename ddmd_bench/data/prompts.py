"""Prompts of a suite: stable ids, a fixed subset, and the sha256 that the protocol records."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.records import canonical_json, content_key, seed_of

NUM_PICTURED = 4  # prompts


@dataclass(frozen=True)
class Prompt:
    """One prompt; `prompt_id` is stable, e.g. 'compositional/0017'."""

    prompt_id: str
    prompt_set: str
    text: str
    category: str | None = None  # e.g. its style, where the source has one


@dataclass(frozen=True)
class PromptList:
    """The prompts of a source in its order, and where they come from."""

    source: str
    texts: tuple[str, ...]
    positions: tuple[int, ...]  # of each in the source, from 0: what an id refers to
    categories: tuple[str | None, ...]
    repository: str | None = None
    revision: str | None = None  # the commit that was read
    licence: str | None = None
    n_duplicates: int = 0  # texts that an earlier position has too
    n_empty: int = 0  # left out
    n_left_out: int = 0  # empty or repeated; of one category nobody counts them

    @property
    def sha256(self) -> str:
        """Of the texts, in order."""
        return sha256(canonical_json(list(self.texts)).encode()).hexdigest()

    def of_category(self, category: str | None) -> PromptList:
        """The prompts of one category, with their places in the whole; None: all."""
        if category is None:
            return self
        if category not in self.categories:
            known = sorted({c for c in self.categories if c is not None})
            raise BenchError(unknown("category", category, known) if known else "it has none")
        kept = [k for k, own in enumerate(self.categories) if own == category]

        return replace(
            self,
            texts=tuple(self.texts[k] for k in kept),
            positions=tuple(self.positions[k] for k in kept),
            categories=(category,) * len(kept),
            n_left_out=0,
        )

    def facts(self) -> dict[str, Any]:
        """What a record says of the list."""
        return {
            "source": self.source,
            "repository": self.repository,
            "revision": self.revision,
            "licence": self.licence,
            "n": len(self.texts),
            "sha256": self.sha256,
            "n_duplicates": self.n_duplicates,
            "n_empty": self.n_empty,
        }


def choose(
    prompt_set: str,
    texts: Sequence[str],
    num_prompts: int,
    positions: Sequence[int] | None = None,
    categories: Sequence[str | None] | None = None,
    n_left_out: int = 0,
) -> list[Prompt]:
    """The first `num_prompts` of a shuffle that depends on the set's name alone.

    A larger subset contains the smaller one; the suite's seed changes neither. An id is the
    position in the source, which is the place among `texts` where no positions are given, with
    four digits, or with as many as the last one has.
    """
    places = range(len(texts)) if positions is None else positions
    styles = [None] * len(texts) if categories is None else categories
    if num_prompts > len(texts):
        without = f", without {n_left_out} empty or repeated ones" if n_left_out else ""
        raise BenchError(
            f"prompts.{prompt_set}: asks for {num_prompts} prompts, its source has "
            f"{len(texts)}{without}"
        )
    order = list(range(len(texts)))
    random.Random(seed_of("prompts", prompt_set)).shuffle(order)
    digits = max(4, len(str(max(places, default=0))))
    return [
        Prompt(f"{prompt_set}/{places[k]:0{digits}d}", prompt_set, texts[k], styles[k])
        for k in order[:num_prompts]
    ]


def in_proportion(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Sets interleaved, each in the order given: any head holds them in proportion to their sizes.

    The k-th of a set of P prompts stands at (k + 1/2) / P, of equal ones the earlier set's first.
    """
    sizes = Counter(prompt.prompt_set for prompt in prompts)
    seen: Counter[str] = Counter()
    place = []
    for prompt in prompts:
        place.append(Fraction(2 * seen[prompt.prompt_set] + 1, 2 * sizes[prompt.prompt_set]))
        seen[prompt.prompt_set] += 1
    return [prompts[k] for k in sorted(range(len(prompts)), key=place.__getitem__)]


def head_in_proportion(prompts: Sequence[Prompt], num_prompts: int) -> list[Prompt]:
    """The head of each set's prompts, sets in proportion to their sizes, in the order given.

    The first `num_prompts` of `in_proportion`: a larger subset contains the smaller one.
    """
    taken = {prompt.prompt_id for prompt in in_proportion(prompts)[:num_prompts]}
    return [prompt for prompt in prompts if prompt.prompt_id in taken]


def pictured(prompts: Sequence[Prompt], num_prompts: int) -> list[Prompt]:
    """Of the subset of so many on which a training is evaluated: those whose pictures are kept."""
    return head_in_proportion(prompts, min(num_prompts, NUM_PICTURED))


def prompts_key(prompts: Sequence[Prompt]) -> str:
    """Content key over ids and texts, in order."""
    return content_key([[p.prompt_id, p.text] for p in prompts])
