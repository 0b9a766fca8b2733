"""Differences between two students on one metric: same prompts, same noise, interval, p-value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ddmd_bench.records import seed_of
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, title_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.frechet import frechet_difference
from ddmd_bench.stats.intervals import PairedDifference, holm, paired_difference


class Difference(NamedTuple):
    """a - b in the metric's own units. `missing` says why there is none, or is empty."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    wins: float  # share of prompts where a has the larger value, ties half
    missing: str = ""


Compare = Callable[[str, str, str], Difference]  # metric, student a, student b

NAN = math.nan


def no_difference(missing: str) -> Difference:
    """A difference that cannot be told, with the reason."""
    return Difference(NAN, NAN, NAN, NAN, 0, NAN, missing)


def negated(d: Difference) -> Difference:
    """b - a from a - b."""
    return Difference(-d.value, -d.high, -d.low, d.p_value, d.n, 1 - d.wins, d.missing)


def oriented(metric: str, d: Difference) -> Difference:
    """Positive = a is better. Where less is better the sign turns."""
    return negated(d) if METRICS[metric].better == "lower" else d


def make_compare(run: RunFiles) -> Compare:
    """A function that compares any two students and computes each pair once.

    A pair is always computed in one order and then negated, so a - b is exactly -(b - a).
    """
    known: dict[tuple[str, str, str], Difference] = {}

    def compare(metric: str, a: str, b: str) -> Difference:
        first, second = sorted((a, b))
        if (metric, first, second) not in known:
            known[metric, first, second] = _difference(run, metric, first, second)
        difference = known[metric, first, second]
        return difference if a == first else negated(difference)

    return compare


def _difference(run: RunFiles, metric: str, a: str, b: str) -> Difference:
    for name in (a, b):
        if run.students[name].missing:
            title = title_of(name, run.suite.students[name])
            return no_difference(f"{title} {run.students[name].missing}")
    seed = seed_of("report", run.suite.name, metric, a, b)
    files_a, files_b = run.students[a], run.students[b]
    if METRICS[metric].kind == "distribution":
        return _distribution(run, metric, files_a, files_b, seed)
    return _paired(metric, files_a, files_b, seed)


def _paired(metric: str, a: StudentFiles, b: StudentFiles, seed: int) -> Difference:
    assert a.per_image is not None
    assert b.per_image is not None
    keys = ["prompt_id", "image_index"]
    for files in (a, b):
        if metric not in files.per_image:  # type: ignore[operator]
            return no_difference("the metric was not scored")
    # Only images that both students have and that were scored for both are a pair.
    pairs = a.per_image[[*keys, metric]].merge(
        b.per_image[[*keys, metric]], on=keys, suffixes=("_a", "_b"), validate="one_to_one"
    )
    pairs = pairs.dropna()
    if METRICS[metric].kind == "prompt":
        # A prompt's value stands on each of its images; count it once.
        pairs = pairs.drop_duplicates("prompt_id")
    if pairs["prompt_id"].nunique() < 2:
        return no_difference("fewer than two prompts were scored for both students")
    values_a, values_b = (pairs[f"{metric}_{side}"].to_numpy(np.float64) for side in "ab")
    groups = pairs["prompt_id"].to_numpy()
    return _with_reason(paired_difference(values_a, values_b, groups, seed=seed))


def _distribution(
    run: RunFiles, metric: str, a: StudentFiles, b: StudentFiles, seed: int
) -> Difference:
    extractor = METRICS[metric].extractor
    assert extractor
    assert a.per_image is not None
    assert b.per_image is not None
    if extractor not in run.reference:
        return no_difference("the reference has no features")
    if extractor not in a.features or extractor not in b.features:
        return no_difference("the students' features are missing")
    keys = ["prompt_id", "image_index"]
    if not a.per_image[keys].equals(b.per_image[keys]):
        return no_difference("the students have images of different prompts")
    reference = run.reference[extractor]
    n, d = reference.features.shape
    if min(len(a.features[extractor]), n) <= d:
        return no_difference("too few images for a covariance of full rank")
    groups = a.per_image["prompt_id"].to_numpy()
    return _with_reason(
        frechet_difference(
            a.features[extractor], b.features[extractor], reference, groups, seed=seed
        )
    )


def _with_reason(d: PairedDifference) -> Difference:
    known = math.isfinite(d.low) and math.isfinite(d.high)
    reason = "" if known else "no interval could be computed"
    return Difference(d.value, d.low, d.high, d.p_value, d.n, d.wins, reason)


def against_baseline(run: RunFiles, compare: Compare) -> list[dict[str, Any]]:
    """Every other student minus the baseline on every metric, Holm's correction over all of them.

    Real scenes are left out: they share prompts with the students but not noise.
    """
    suite = run.suite
    others = [n for n, s in suite.students.items() if n != suite.baseline and s.source != "real"]
    pairs = [(metric, other) for metric in suite.metrics for other in others]
    found = [compare(metric, other, suite.baseline) for metric, other in pairs]
    adjusted = holm([d.p_value for d in found])
    return [
        {
            "student": other,
            "baseline": suite.baseline,
            "metric": metric,
            **d._asdict(),
            "p_holm": p_holm,
            "outcome": _outcome(metric, d, p_holm),
        }
        for (metric, other), d, p_holm in zip(pairs, found, adjusted, strict=True)
    ]


def _outcome(metric: str, d: Difference, p_holm: float) -> str:
    """better / worse / undecided; where neither direction is better, differs / undecided."""
    low, high = oriented(metric, d)[1:3]
    if d.missing or not p_holm < 0.05 or low <= 0 <= high:
        return "undecided"
    if METRICS[metric].better == "reference":
        return "differs"
    return "better" if low > 0 else "worse"


def win_rates(run: RunFiles, compare: Compare, metric: str) -> dict[str, dict[str, float]]:
    """wins[a][b]: share of prompts where a is better than b on an image metric, ties half."""
    names = [n for n, s in run.suite.students.items() if s.source != "real"]
    return {
        a: {b: oriented(metric, compare(metric, a, b)).wins for b in names if b != a} for a in names
    }
