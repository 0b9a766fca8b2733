"""What people prefer: shares, ranks, strengths and agreement, with and without who is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import finite_or_none
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.choices import strengths_of
from ddmd_bench.stats.ends import Array
from ddmd_bench.stats.intervals import Interval, holm
from ddmd_bench.stats.rater_agreement import alpha_interval, kendall_w
from ddmd_bench.stats.raters import (
    Judges,
    independent_answers,
    judged_mean,
    judged_share,
    p_value,
    spread_of,
)
from ddmd_bench.study.answers import Judgment, Person
from ddmd_bench.study.key import Key
from ddmd_bench.study.people import judged_by, people_record
from ddmd_bench.suite.studies import SCHEMA


class Judged(NamedTuple):
    """Everybody's rankings: n of them, of K students."""

    ranks: Array  # [n, K], NaN of who was not shown
    judges: Judges
    people: NDArray[np.str_]  # [n]
    judgments: list[Judgment]


def tally(key: Key, people: Sequence[Person]) -> dict[str, Any]:
    """The record of a study: each result of those who are counted, and of all."""
    rows = people_record(key, people)
    counted = [person for person, row in zip(people, rows, strict=True) if not row["left_out"]]
    record = {name: key.record[name] for name in ("study", "suite", "title", "form", "ties")}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        **record,
        "students": {
            name: {"title": key.title(name), "drawn": key.record["students"][name].get("drawn")}
            for name in key.students
        },
        "fingerprint": key.record.get("fingerprint"),
        "image_seed": key.record.get("image_seed"),
        "rule": key.record["rule"],
        "people": rows,
        "counted": results(key, counted) if counted else None,
    }
    if len(counted) < len(people):
        result["everybody"] = results(key, people)
    return result


def results(key: Key, people: Sequence[Person]) -> dict[str, Any]:
    """All that is computed of some people's answers."""
    judged = gather(key, people)
    return {
        "rankings": len(judged.ranks),
        "prompts": len({p for one in judged.judgments for p in key.sets[one.set].prompt_ids}),
        "people": len(np.unique(judged.people)),
        "students": _of_students(key, judged),
        "strengths_missing": strengths_of(judged.ranks).missing,
        "pairs": _pairs(key, judged),
        "agreement": _agreement(key, judged),
        "metrics": _of_metrics(key, judged),
        "reasons": [
            {"person": str(person), "student": _preferred(key, one), "reason": one.reason}
            for person, one in zip(judged.people, judged.judgments, strict=True)
            if one.reason
        ],
    }


def gather(key: Key, people: Sequence[Person]) -> Judged:
    """The rankings of sets that are judged, each person's first of each."""
    columns = {name: k for k, name in enumerate(key.students)}
    ranks, prompts, drawn, names, judgments = [], [], [], [], []
    for person in people:
        for one in judged_by(key, person):
            of_set = key.sets[one.set]
            row = np.full(len(columns), np.nan)
            row[[columns[key.student_of(column)] for column in of_set.columns]] = one.ranks
            ranks.append(row)
            # Whole models are judged over the same prompts by all: there people alone are drawn.
            whole = len(of_set.prompt_ids) > 1
            prompts.append(person.name if whole else of_set.prompt_ids[0])
            drawn.append("all" if whole else person.name)
            names.append(person.name)
            judgments.append(one)
    if not ranks:
        raise BenchError("no set was judged in these answers")
    judges = Judges.of(np.array(prompts), np.array(drawn))
    return Judged(np.stack(ranks), judges, np.array(names), judgments)


def told(interval: Interval) -> dict[str, Any]:
    """As JSON has it."""
    value, low, high, n = interval
    return {"value": finite_or_none(value), "low": finite_or_none(low),
            "high": finite_or_none(high), "n": n}  # fmt: skip


def _of_students(key: Key, judged: Judged) -> dict[str, Any]:
    found: dict[str, Any] = {}
    strengths = strengths_of(judged.ranks)
    for k, name in enumerate(key.students):
        shown = ~np.isnan(judged.ranks[:, k])
        if not shown.any():
            found[name] = {"n": 0}
            continue
        ranks, judges = judged.ranks[shown], judged.judges.at(shown)
        own, size = ranks[:, k], (~np.isnan(ranks)).sum(axis=1)
        first = _first(ranks)[:, k]
        places = [
            float(np.mean((own >= place - 0.25) & (own <= place + 0.25)))
            for place in range(1, int(size.max()) + 1)
        ]
        spread = spread_of(strengths.influence[:, k], judged.judges)
        value, half = float(strengths.values[k]), spread.half_width()
        found[name] = {
            "n": int(shown.sum()),
            "first": told(judged_share(first, judges)),
            "mean_rank": told(judged_mean(own, judges)),
            "places": places,  # shares of whole ranks; of ties there are others between
            "strength": told(Interval(value, value - half, value + half, len(judged.ranks))),
        }
    return found


def _first(ranks: Array) -> Array:
    """1 for whoever is first, shared by those of a tie."""
    best = ranks == np.nanmin(ranks, axis=1, keepdims=True)
    shared: Array = best / best.sum(axis=1, keepdims=True)
    return shared


def _pairs(key: Key, judged: Judged) -> list[dict[str, Any]]:
    """Of each two students how often the first is ranked above the second, ties as halves."""
    rows = []
    for a, b in combinations(range(len(key.students)), 2):
        values = _above(judged.ranks, a, b)
        known = ~np.isnan(values)
        if not known.any():
            continue
        own, judges = values[known], judged.judges.at(known)
        mean = float(own.mean())
        rows.append(
            {
                "student": key.students[a],
                "other": key.students[b],
                **told(judged_share(own, judges)),
                "independent": finite_or_none(independent_answers(own, judges)),
                "p": finite_or_none(p_value(mean - 0.5, own - mean, judges)),
            }
        )
    p_values = [math.nan if row["p"] is None else row["p"] for row in rows]
    for row, p in zip(rows, holm(p_values), strict=True):
        row["p_holm"] = finite_or_none(p)
    return rows


def _above(ranks: Array, a: int, b: int) -> Array:
    """1 where a is ranked above b, 0 below, a half where they are equal, NaN without both."""
    above: Array = (1 - np.sign(ranks[:, a] - ranks[:, b])) / 2
    return above


def _agreement(key: Key, judged: Judged) -> dict[str, Any]:
    """Among those who saw the same sets."""
    names = {name: k for k, name in enumerate(np.unique(judged.people))}
    by_set: dict[int, list[int]] = {}
    for row, one in enumerate(judged.judgments):
        by_set.setdefault(one.set, []).append(row)
    seen_twice = [rows for rows in by_set.values() if len(rows) > 1]
    units, groups, concordance, by_chance = [], [], [], []
    for number, rows in enumerate(seen_twice):
        ranks = np.stack([judged.judgments[row].ranks for row in rows])
        if math.isfinite(of_set := kendall_w(ranks)):
            concordance.append(of_set)
            by_chance.append(1 / len(rows))
        for values in ranks.T:
            unit = np.full(len(names), np.nan)
            unit[[names[judged.people[row]] for row in rows]] = values
            units.append(unit)
            groups.append(number)
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    alpha = alpha_interval(np.stack(units), np.array(groups)) if units else nothing
    each = np.arange(len(concordance))
    of_sets = Judges(each, np.zeros_like(each))
    w = judged_share(np.array(concordance), of_sets) if concordance else nothing
    return {
        "sets": len(seen_twice),
        "alpha": told(alpha),
        "w": told(w),
        "w_by_chance": finite_or_none(float(np.mean(by_chance)) if by_chance else math.nan),
    }


def _of_metrics(key: Key, judged: Judged) -> dict[str, Any]:
    """How often a metric orders two images as somebody did, ties of either as halves."""
    found = {}
    for metric, values in key.record["metrics"].items():
        if metric not in METRICS or METRICS[metric].better not in ("higher", "lower"):
            continue
        sign = 1 if METRICS[metric].better == "higher" else -1
        rows = [_agrees(key, one, values, sign) for one in judged.judgments]
        shares = np.array([math.nan if row is None else row for row in rows], np.float64)
        known = ~np.isnan(shares)
        if known.any():
            found[metric] = told(judged_share(shares[known], judged.judges.at(known)))
    return found


def _agrees(
    key: Key, judgment: Judgment, values: Mapping[str, float | None], sign: int
) -> float | None:
    of_set = key.sets[judgment.set]
    if len(of_set.prompt_ids) > 1:
        return None  # one vote over many images
    (prompt_id,) = of_set.prompt_ids
    own = [values.get(f"{key.student_of(column)}|{prompt_id}") for column in of_set.columns]
    shares = []
    for j, k in combinations(range(len(own)), 2):
        a, b = own[j], own[k]
        preferred = np.sign(judgment.ranks[k] - judgment.ranks[j])
        if a is not None and b is not None and preferred:
            shares.append((1 + preferred * np.sign(sign * (a - b))) / 2)
    return float(np.mean(shares)) if shares else None


def _preferred(key: Key, judgment: Judgment) -> str | None:
    """Whom a vote is for; None of a tie."""
    if (judgment.ranks == 1).sum() != 1:
        return None
    return key.student_of(key.sets[judgment.set].columns[int(judgment.ranks.argmin())])
