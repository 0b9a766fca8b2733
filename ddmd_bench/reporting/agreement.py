"""Whether the metrics tell the same story: of a student and the baseline, prompt by prompt.

The rank correlation, over prompts, of the paired differences that two metrics see. Values alone
would correlate by how hard a prompt is, students' means by how far the students are apart: what is
asked is whether two metrics prefer the same image of two.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.measuring.pairs import KEYS
from ddmd_bench.reporting.numbers import ARROWS, shown
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.agreement import correlation_ends, disagreeing, rank_correlations
from ddmd_bench.suite.schema import Suite

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("metric", "other", "correlation", "low", "high", "n_prompts", "n_comparisons")
RULE = (
    "Spearman's rank correlation, over prompts, of student minus baseline, each metric turned so "
    "that more is better where it has a better direction; the mean over the students and seeds. "
    "1: two metrics prefer the same image on every prompt, 0: what one prefers says nothing of the "
    "other, below 0: they contradict each other. A metric disagrees with the rest where, of three "
    "or more with a better direction, the mean of its correlations with the others is below 0, at "
    "5 % for all of them together, while the others' among themselves is above 0."
)


def agreement(run: RunFiles) -> dict[str, Any]:
    """The correlations of each two image metrics; {} of fewer than two or of no comparison.

    `disagree` holds the metrics that disagree with the rest, as `RULE` says.
    """
    metrics = [m for m in run.suite.metrics if METRICS[m].kind != "distribution"]
    comparisons = list(_comparisons(run, metrics)) if len(metrics) > 1 else []
    if not comparisons:
        return {}
    found, rows = rank_correlations(comparisons)
    directed = [k for k, m in enumerate(metrics) if METRICS[m].better != "reference"]
    within = np.ix_(directed, directed)
    against = disagreeing(found[within], rows[within])
    pairs = []
    for (a, one), (b, other) in combinations(enumerate(metrics), 2):
        low, high = correlation_ends(float(found[a, b]), float(rows[a, b]))
        cells = (one, other, found[a, b], low, high, int(rows[a, b]), len(comparisons))
        pairs.append(dict(zip(COLUMNS, cells, strict=True)))
    return {"pairs": pairs, "disagree": [metrics[directed[k]] for k in against]}


def _comparisons(run: RunFiles, metrics: list[str]) -> Iterator[NDArray[np.float64]]:
    """Student minus baseline [P, k] of each student and seed: means over a prompt's images."""
    signs = np.array([-1.0 if METRICS[m].better == "lower" else 1.0 for m in metrics])
    for seed, base in run.students[run.suite.baseline].items():
        for name in _others(run.suite):
            own = run.students[name][seed]
            if own.per_image is None or base.per_image is None:
                continue
            a, b = _aligned(own.per_image, base.per_image)
            gaps = a.reindex(columns=metrics).sub(b.reindex(columns=metrics))
            by_prompt = gaps.groupby(a["prompt_id"].to_numpy(), sort=False).mean()
            yield by_prompt.to_numpy(np.float64) * signs


def _others(suite: Suite) -> list[str]:
    """All that differences are of: real scenes share no noise."""
    rows = suite.students.items()
    return [name for name, s in rows if name != suite.baseline and s.source != "real"]


def _aligned(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the images that both have, in the same order."""
    if a[KEYS].equals(b[KEYS]):
        return a.reset_index(drop=True), b.reset_index(drop=True)
    both = a[KEYS].merge(b[KEYS], on=KEYS)
    return both.merge(a, on=KEYS), both.merge(b, on=KEYS)


def correlation_table(record: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the matrix, as shown; empty of a report without one."""
    pairs = record["agreement"].get("pairs", [])
    known = {
        frozenset((p["metric"], p["other"])): shown(p["correlation"], 2, sign=True) for p in pairs
    }
    metrics = list(dict.fromkeys(name for p in pairs for name in (p["metric"], p["other"])))
    titles = [f"{METRICS[m].title} {ARROWS[METRICS[m].better]}" for m in metrics]
    rows = [
        [title, *(known.get(frozenset((a, b)), "") for b in metrics)]
        for a, title in zip(metrics, titles, strict=True)
    ]
    return ["", *titles], rows


def sentences(record: dict[str, Any]) -> list[str]:
    """Which metric disagrees with the rest prompt by prompt, and which on whole students."""
    against = [METRICS[metric].title for metric in record["agreement"].get("disagree", [])]
    said = [f"{title} disagrees with the other metrics, prompt by prompt." for title in against]
    return said + list(_opposed(record))


def _opposed(record: dict[str, Any]) -> Iterator[str]:
    """One metric whose outcome of a student is the opposite of two others or more."""
    outcomes: dict[str, dict[str, list[str]]] = {}
    for d in record["differences"]:
        of_student = outcomes.setdefault(d["student"], {"better": [], "worse": []})
        if d["outcome"] in of_student:
            of_student[d["outcome"]].append(METRICS[d["metric"]].title)
    for name, found in outcomes.items():
        few, many = sorted(found, key=lambda outcome: len(found[outcome]))
        if len(found[few]) == 1 and len(found[many]) > 1:
            yield (
                f"{found[few][0]} says that {record['students'][name]['title']} is {few} than the "
                f"baseline, where {' and '.join(found[many])} say {many}."
            )
