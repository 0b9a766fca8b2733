"""How each person answered: attention, time, habits. What the study's rule leaves out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.intervals import holm
from ddmd_bench.study.answers import Judgment, Person
from ddmd_bench.study.key import JUDGED, OBVIOUS, Key

SURE = 0.001  # p of a habit that is told, after Holm's correction over the people
FEW = 20  # judgments, with fewer of which no habit is looked for


class Attention(NamedTuple):
    """What somebody did with the screens that are there to look at attention."""

    right: int  # obvious sets whose whole image came first, alone
    obvious: int
    same: float  # of repeated sets the mean share of pairs in the same order
    repeated: int

    def why_left_out(self, rule: dict[str, float]) -> str:
        """By the study's rule; '' of who is counted."""
        if self.obvious and self.right / self.obvious < rule["obvious"]:
            asked = f"{100 * rule['obvious']:.0f} % asked"
            return f"{self.right} of {self.obvious} obvious sets right, {asked}"
        return ""


def attention_of(key: Key, person: Person) -> Attention:
    """Of the screens that were answered."""
    right = obvious = 0
    same = list[float]()
    first: dict[int, Judgment] = {}
    for one in person.judgments:
        if key.sets[one.set].kind == OBVIOUS:
            obvious += 1
            right += bool(one.ranks[0] == 1)
        elif one.set in first:
            same.append(_same_order(first[one.set].ranks, one.ranks))
        else:
            first[one.set] = one
    return Attention(right, obvious, float(np.mean(same)) if same else math.nan, len(same))


def _same_order(a: Array, b: Array) -> float:
    """Share of pairs in the same order; a tie in one of them counts half."""
    signs = [
        (np.sign(a[j] - a[k]), np.sign(b[j] - b[k])) for j, k in combinations(range(len(a)), 2)
    ]
    return float(np.mean([1.0 if x == y else 0.5 if x * y == 0 else 0.0 for x, y in signs]))


def judged_by(key: Key, person: Person) -> list[Judgment]:
    """Of each set that is judged the first answer."""
    first: dict[int, Judgment] = {}
    for one in person.judgments:
        if key.sets[one.set].kind == JUDGED:
            first.setdefault(one.set, one)
    return list(first.values())


def habits(key: Key, people: Sequence[Person]) -> list[list[str]]:
    """What is odd about each person's answers, in words: told, and nobody is left out for it.

    Places: which place has the first choice, against each being as likely. Agreement: how often
    somebody's order of two students is that of the others' majority, against the others' own;
    and in the second half of the answers against the first.
    """
    judged = [judged_by(key, person) for person in people]
    agreed = _agreement(key, judged)
    tests: dict[str, list[float]] = {
        "places": [_places_p(own) for own in judged],
        "agreement": [_lower_p(agreed[k], _others(agreed, k)) for k in range(len(people))],
        "tired": [_lower_p(own[len(own) // 2 :], own[: len(own) // 2]) for own in agreed],
    }
    told: list[list[str]] = [[] for _ in people]
    for name, p_values in tests.items():
        for k, p in enumerate(holm(p_values)):
            if p < SURE:
                told[k].append(_words(name, judged[k], agreed[k], _others(agreed, k)))
    return told


def _words(name: str, judged: Sequence[Judgment], own: Array, others: Array) -> str:
    half = len(own) // 2
    if name == "places":
        places = _first_places(judged)
        most = int(np.bincount(places).argmax())
        return f"place {most + 1} has the first choice in {_percent(places == most)} of the sets"
    if name == "agreement":
        return f"agrees with the others in {_percent(own)} of pairs, they in {_percent(others)}"
    return (
        f"agrees with the others in {_percent(own[:half])} of pairs at first, in "
        f"{_percent(own[half:])} in the second half"
    )


def _percent(values: NDArray[Any]) -> str:
    return f"{100 * values.mean():.0f} %"


def _first_places(judged: Sequence[Judgment]) -> NDArray[np.int64]:
    """Where the first choice stood, of sets that have a single one."""
    found = []
    for one in judged:
        if (one.ranks == 1).sum() == 1:
            found.append(one.places[int(one.ranks.argmin())])
    return np.array(found, np.int64)


def _places_p(judged: Sequence[Judgment]) -> float:
    from scipy.stats import chisquare

    places = _first_places(judged)
    if len(places) < FEW:
        return math.nan
    return float(chisquare(np.bincount(places, minlength=len(judged[0].ranks))).pvalue)


def _agreement(key: Key, judged: Sequence[Sequence[Judgment]]) -> list[Array]:
    """Of each person and each pair that they ordered whether the others' majority does so too."""
    rows = [list(_pairs(key, own)) for own in judged]
    total: dict[tuple[str, str], float] = {}
    for own in rows:
        for pair, sign in own:
            total[pair] = total.get(pair, 0.0) + sign
    found = []
    for own in rows:
        mine: dict[tuple[str, str], float] = {}
        for pair, sign in own:
            mine[pair] = mine.get(pair, 0.0) + sign
        without = {pair: total[pair] - mine[pair] for pair in mine}
        shares = [(1 + sign * np.sign(without[pair])) / 2 for pair, sign in own if without[pair]]
        found.append(np.array(shares, np.float64))
    return found


def _pairs(key: Key, judged: Sequence[Judgment]) -> Iterator[tuple[tuple[str, str], float]]:
    """Two students, by name, and 1 where the first was ranked above the second, -1 below."""
    for one in judged:
        names = [key.student_of(column) for column in key.sets[one.set].columns]
        for j, k in combinations(range(len(names)), 2):
            a, b = sorted((j, k), key=names.__getitem__)
            yield (names[a], names[b]), float(np.sign(one.ranks[b] - one.ranks[a]))


def _others(agreed: Sequence[Array], k: int) -> Array:
    return np.concatenate([own for j, own in enumerate(agreed) if j != k] or [np.empty(0)])


def _lower_p(a: Array, b: Array) -> float:
    """One-sided p that the mean of a is no lower than that of b, by the normal approximation."""
    from scipy.stats import norm

    if min(len(a), len(b)) < FEW:
        return math.nan
    error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return float(norm.cdf((a.mean() - b.mean()) / error)) if error else 1.0


def people_record(key: Key, people: Sequence[Person]) -> list[dict[str, Any]]:
    """A row for each person."""
    odd = habits(key, people)
    rows = []
    for person, told in zip(people, odd, strict=True):
        attention = attention_of(key, person)
        seconds = [one.seconds for one in person.judgments]
        rows.append(
            {
                "person": person.number,
                "code": person.code,
                "answers": len(person.judgments),
                "screens": person.num_screens,
                "completion": person.completion,
                "median_seconds": float(np.median(seconds)) if seconds else None,
                "obvious": [attention.right, attention.obvious],
                "repeated": attention.same if attention.repeated else None,
                "left_out": attention.why_left_out(key.record["rule"]),
                "habits": told,
            }
        )
    return rows
