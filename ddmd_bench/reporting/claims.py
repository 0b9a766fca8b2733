"""Claims: what a suite expects, and whether the run's numbers say so.

Each rule is a function with its own docstring; the page shows that docstring's first paragraph.
A student that is missing, or a difference without an interval, makes a claim undecided.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ddmd_bench.errors import BenchError
from ddmd_bench.reporting.differences import Compare, Difference, oriented
from ddmd_bench.reporting.dynamics import NUM_WINDOWS, SERIES, window_means
from ddmd_bench.reporting.numbers import metric_shown, unit_of
from ddmd_bench.reporting.runfiles import RunFiles, titles_of, trained_in
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite import Claim

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
MIN_WINDOWS = 4  # fewer give a slope no interval worth the name


class Verdict(NamedTuple):
    """The verdict and the numbers it rests on; `note` says in words what decided."""

    verdict: str
    value: float
    low: float
    high: float
    note: str = ""


def undecided(reason: str) -> Verdict:
    """No numbers to judge by."""
    return Verdict(UNDECIDED, math.nan, math.nan, math.nan, reason)


def beats(difference: Difference) -> Verdict:
    """Supported if the whole 95 % interval of the paired difference lies on the better side of 0,
    refuted if it lies wholly on the other side.

    The difference is student minus other, oriented so that positive is better.
    """
    value, low, high = difference[:3]
    if difference.missing:
        return undecided(difference.missing)
    if low > 0:
        return Verdict(SUPPORTED, value, low, high)
    return Verdict(REFUTED if high < 0 else UNDECIDED, value, low, high)


def worst(margins: dict[str, Difference]) -> Verdict:
    """Supported if every other trained student is better with a 95 % interval that excludes 0,
    refuted if this student is significantly better than any of them. The least margin is shown.

    `margins`: other student minus this one, oriented so that positive = the other is better.
    """
    known = {name: d for name, d in margins.items() if not d.missing}
    if not known:
        return undecided("; ".join(sorted({d.missing for d in margins.values()})) or "no others")
    beaten = [name for name, d in known.items() if d.high < 0]
    name = beaten[0] if beaten else min(known, key=lambda n: known[n].low)
    value, low, high = known[name][:3]
    if beaten:
        return Verdict(REFUTED, value, low, high, f"it is better than {', '.join(beaten)}")
    lost = [f"{n}: {d.missing}" for n, d in margins.items() if d.missing]
    if lost:
        return Verdict(UNDECIDED, value, low, high, "; ".join(lost))
    verdict = SUPPORTED if low > 0 else UNDECIDED
    return Verdict(verdict, value, low, high, f"the least margin is to {name}")


def same(difference: Difference, margin: float) -> Verdict:
    """Supported if the 95 % interval of the paired difference lies inside the margin on both sides
    of 0, refuted if it lies wholly outside.
    """
    value, low, high = difference[:3]
    if difference.missing:
        return undecided(difference.missing)
    if -margin < low and high < margin:
        return Verdict(SUPPORTED, value, low, high)
    outside = low > margin or high < -margin
    return Verdict(REFUTED if outside else UNDECIDED, value, low, high)


def rises(values: np.ndarray) -> Verdict:
    """Training is cut in ten equal windows. Supported if the Theil-Sen slope of the window means
    has a 95 % interval above 0 and the last window is the highest; refuted if that interval is
    below 0 or the last window lies below the first. The slope is the rise over the training.
    """
    from scipy.stats import theilslopes

    means = window_means(values, NUM_WINDOWS)
    means = means[np.isfinite(means)]
    if len(means) < MIN_WINDOWS:
        return undecided(f"the training is too short: {len(means)} windows")
    slope, _, low, high = theilslopes(means, np.linspace(0, 1, len(means)), 0.95)
    value, low, high = float(slope), float(low), float(high)
    note = f"from {means[0]:.4g} in the first window to {means[-1]:.4g} in the last"
    if high < 0 or means[-1] < means[0]:
        return Verdict(REFUTED, value, low, high, note)
    if low > 0 and means[-1] == means.max():
        return Verdict(SUPPORTED, value, low, high, note)
    return Verdict(UNDECIDED, value, low, high, note)


def bounded(values: np.ndarray, margin: float) -> Verdict:
    """Training is cut in ten equal windows; each window's mean is divided by the first's. Supported
    if all ratios stay within a factor of the margin, else refuted. The interval is the lowest and
    the highest ratio, the value the last one.
    """
    means = window_means(values, NUM_WINDOWS)
    if len(means) < MIN_WINDOWS:
        return undecided(f"the training is too short: {len(means)} windows")
    if not math.isfinite(means[0]) or means[0] == 0:
        return undecided("the first window has no value to compare with")
    if not np.isfinite(means).all():
        return undecided("the series has windows without a finite value")
    ratios = means / means[0]
    low, high = float(ratios.min()), float(ratios.max())
    inside = 1 / margin <= low and high <= margin
    return Verdict(SUPPORTED if inside else REFUTED, float(ratios[-1]), low, high)


RULES: dict[str, Callable[..., Verdict]] = {
    "beats": beats,
    "worst": worst,
    "same": same,
    "rises": rises,
    "bounded": bounded,
}


def rule_text(kind: str) -> str:
    """The rule of one kind of claim, in words: the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(RULES[kind]) or "").split("\n\n")[0].split())


def judge(run: RunFiles, compare: Compare, claim: Claim) -> Verdict:
    """The verdict on one claim of the suite."""
    if claim.claim in ("beats", "worst") and METRICS[claim.metric or ""].better == "reference":
        raise BenchError(
            f"claims: {claim.student} {claim.claim} on {claim.metric}: this metric has no better "
            "direction of its own, only nearer to the real scenes. Use a metric where more or less "
            "is better, or the claim 'same'."
        )
    if claim.series is not None:
        return _judge_series(run, claim, claim.series)
    metric = claim.metric or ""
    if claim.claim == "worst":
        others = [name for name in trained_in(run.suite) if name != claim.student]
        pairs = {name: compare(metric, name, claim.student) for name in others}
        titles = titles_of(run.suite)
        return worst({titles[name]: oriented(metric, d) for name, d in pairs.items()})
    difference = compare(metric, claim.student, claim.other or "")
    if claim.claim == "same":
        return same(difference, claim.margin or 0.0)
    return beats(oriented(metric, difference))


def _judge_series(run: RunFiles, claim: Claim, series: str) -> Verdict:
    files = run.students[claim.student]
    if files.diagnostics is None:
        title = titles_of(run.suite)[claim.student]
        return undecided(f"{title} {files.missing or 'has no training diagnostics'}")
    if series not in files.diagnostics:
        known = ", ".join(c for c in map(str, files.diagnostics) if c != "iteration")
        raise BenchError(f"claims: {claim.student} has no series {series!r}. Known: {known}.")
    values = files.diagnostics[series].to_numpy(np.float64)
    return rises(values) if claim.claim == "rises" else bounded(values, claim.margin or 1.0)


def claim_text(run: RunFiles, claim: Claim) -> str:
    """The claim as a sentence."""
    titles = titles_of(run.suite)
    student, other = titles[claim.student], titles.get(claim.other or "", "")
    metric = METRICS[claim.metric].title if claim.metric else ""
    series = f"the {SERIES.get(claim.series, claim.series)}" if claim.series else ""
    margin = str(claim.margin)
    if claim.metric:
        margin = metric_shown(claim.metric, claim.margin)
        margin += unit_of(claim.metric, difference=True)
    return {
        "beats": f"{student} is better than {other}: {metric}",
        "worst": f"{student} is the worst of all trained students: {metric}",
        "same": f"{student} and {other} differ by less than {margin}: {metric}",
        "rises": f"{student}: {series} rises throughout training",
        "bounded": f"{student}: {series} stays within a factor of {margin} of its start",
    }[claim.claim]


def judged(run: RunFiles, compare: Compare) -> list[dict[str, Any]]:
    """Every claim of the suite with its verdict, in the suite's order."""
    return [
        {
            "text": claim_text(run, claim),
            **claim.model_dump(),
            **judge(run, compare, claim)._asdict(),
        }
        for claim in run.suite.claims
    ]
