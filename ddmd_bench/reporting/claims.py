"""Claims: what a suite expects, and whether the run's numbers say so.

Each rule is a function with its own docstring; the page shows that docstring's first paragraph.
A student that is missing, or a difference without an interval, makes a claim undecided. A claim
rests on its own interval: it is one of a few that were stated before the run.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ddmd_bench.errors import BenchError
from ddmd_bench.objective.series import SERIES
from ddmd_bench.reporting.differences import (
    ALIKE,
    TOO_FEW,
    Compare,
    Difference,
    make_compare,
    oriented,
)
from ddmd_bench.reporting.dynamics import NUM_WINDOWS, window_means
from ddmd_bench.reporting.numbers import metric_shown, unit_of
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, titles_of, trained_in
from ddmd_bench.reporting.seeds import joined_reason
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.claims import Claim

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
_ONE = "this training of"
MIN_WINDOWS = 4  # fewer give a slope no interval worth the name


class Verdict(NamedTuple):
    """The verdict and the numbers it rests on; `note` says in words what decided."""

    verdict: str
    value: float
    low: float
    high: float
    note: str = ""
    over: str = ""  # what the interval is over
    why: str = ""  # of a difference that is undecided: `TOO_FEW` or `ALIKE`


def undecided(reason: str) -> Verdict:
    """No numbers to judge by."""
    return Verdict(UNDECIDED, math.nan, math.nan, math.nan, reason)


def beats(difference: Difference) -> Verdict:
    """Supported if the whole 95 % interval of the paired difference lies on the better side of 0,
    refuted if it lies wholly on the other side.

    The difference is student minus other, oriented so that positive is better.
    """
    return _positive(difference)


def above(difference: Difference) -> Verdict:
    """Supported if the whole 95 % interval of the paired difference, student minus other, lies
    above 0, refuted if it lies wholly below, whether more is better or not.
    """
    return _positive(difference)


def _positive(difference: Difference) -> Verdict:
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
    fewer = [f"{n}: {d.shortfall}" for n, d in known.items() if d.shortfall]
    if lost:
        return Verdict(UNDECIDED, value, low, high, "; ".join(lost))
    verdict = SUPPORTED if low > 0 else UNDECIDED
    note = "; ".join([f"the least margin is to {name}", *fewer])
    return Verdict(verdict, value, low, high, note)


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


def keeps(run: RunFiles, compare: Compare, claim: Claim) -> Verdict:
    """What the student has of what the other has: the ratio of their means. Supported if its whole
    95 % interval lies above the share, refuted if it lies wholly below.

    The interval is the paired difference's of the student and the other times that ratio, over the
    other's mean: that of the ratio to first order.
    """
    metric, student, other = claim.metric or "", claim.student, claim.other or ""
    means = [_mean(run, name, metric) for name in (student, other)]
    if not (means[1] > 0 and math.isfinite(means[0])):
        missing = compare(metric, student, other).missing
        return undecided(missing or f"{titles_of(run.suite)[other]} has none of it")
    ratio, mean = means[0] / means[1], means[1]
    difference = make_compare(_scaled(run, other, metric, ratio))(metric, student, other)
    if difference.missing:
        return undecided(difference.missing)
    # Its value is 0 but for images that one of them lacks.
    value, low, high = (ratio + end / mean for end in difference[:3])
    share = claim.share or 1.0
    verdict = SUPPORTED if low > share else REFUTED if high < share else UNDECIDED
    why = "" if verdict != UNDECIDED else TOO_FEW
    return Verdict(verdict, value, low, high, difference.shortfall, difference.over, why)


def _mean(run: RunFiles, student: str, metric: str) -> float:
    """Over all prompts and seeds, NaN where there is none."""
    cells = [
        files.aggregates.get(metric, {}).get("all", {}) for files in run.students[student].values()
    ]
    known = [cell["value"] for cell in cells if cell.get("value") is not None]
    return math.fsum(known) / len(known) if known else math.nan


def _scaled(run: RunFiles, student: str, metric: str, factor: float) -> RunFiles:
    """The run with a student's values of a metric so many times what they are."""

    def of(files: StudentFiles) -> StudentFiles:
        if files.per_image is None or metric not in files.per_image:
            return files
        values = files.per_image[metric] * factor
        return replace(files, per_image=files.per_image.assign(**{metric: values}))

    own = {seed: of(files) for seed, files in run.students[student].items()}
    return replace(run, students={**run.students, student: own})


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


def preferred(run: RunFiles, claim: Claim) -> Verdict:
    """Supported if the whole 95 % interval of the share of judgments that put the student above the
    other lies above 50 %, refuted if it lies wholly below; undecided where the study was not
    tallied, or shows other images than the report.
    """
    tally = run.preferences.get(claim.study or "")
    if tally is None:
        return undecided(f"study {claim.study} is not tallied yet")
    names = claim.student, claim.other or ""
    for name in names:
        shown = tally["students"].get(name, {}).get("drawn")
        if shown is None or shown != run.first_seed(name).done.get("generate", {}).get("key"):
            title = titles_of(run.suite)[name]
            return undecided(f"study {claim.study} shows other images of {title}")
    pairs = (tally["counted"] or {"pairs": []})["pairs"]
    for row in pairs:
        if {row["student"], row["other"]} == {*names} and row["low"] is not None:
            ends = row["value"], row["low"], row["high"]
            value, low, high = ends if row["student"] == claim.student else _mirrored(*ends)
            verdict = SUPPORTED if low > 0.5 else REFUTED if high < 0.5 else UNDECIDED
            note = f"{row['n']} judgments of {tally['counted']['people']} people"
            return Verdict(verdict, value, low, high, note, "prompts and people")
    return undecided(f"study {claim.study} has no interval for these two")


def _mirrored(value: float, low: float, high: float) -> tuple[float, float, float]:
    return 1 - value, 1 - high, 1 - low


RULES: dict[str, Callable[..., Verdict]] = {
    "beats": beats,
    "worst": worst,
    "above": above,
    "same": same,
    "keeps": keeps,
    "rises": rises,
    "bounded": bounded,
    "preferred": preferred,
}


def over_seeds(verdicts: dict[int, Verdict]) -> Verdict:
    """A difference's interval is over the seeds and, of metrics that each image has, over the
    prompts. `rises` and `bounded` are judged on each seed: supported if supported on every seed of
    the suite, refuted if refuted on more than half of them, else undecided; shown are the mean of
    the seeds' values, their lowest lower end and their highest upper end.
    """
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))
    counts = Counter(v.verdict for v in verdicts.values())
    if counts[SUPPORTED] == len(verdicts):
        verdict = SUPPORTED
    else:
        verdict = REFUTED if 2 * counts[REFUTED] > len(verdicts) else UNDECIDED
    known = [v for v in verdicts.values() if math.isfinite(v.value)]
    told = [f"{num} {word}" for word in (SUPPORTED, REFUTED, UNDECIDED) if (num := counts[word])]
    lost = joined_reason({s: "" if v in known else v.note for s, v in verdicts.items()})
    note = "; ".join(filter(None, [f"of {len(verdicts)} seeds {', '.join(told)}", lost]))
    if not known:
        return undecided(note)
    value = math.fsum(v.value for v in known) / len(known)
    return Verdict(verdict, value, min(v.low for v in known), max(v.high for v in known), note)


def rules_of(kinds: Collection[str], num_seeds: int) -> dict[str, str]:
    """The rules of some kinds of claim, in words: the first paragraph of each one's docstring; and
    what several seeds change."""
    rules = {kind: rule for kind, rule in RULES.items() if kind in kinds}
    if rules and num_seeds > 1:
        rules["several seeds"] = over_seeds
    return {
        name: " ".join((inspect.getdoc(rule) or "").split("\n\n")[0].split())
        for name, rule in rules.items()
    }


def judge(run: RunFiles, compare: Compare, claim: Claim) -> Verdict:
    """The verdict on one claim of the suite."""
    if claim.series is not None:
        found = run.students[claim.student]
        return over_seeds({seed: _judge_series(run, claim, found[seed]) for seed in found})
    if claim.study is not None:
        return preferred(run, claim)
    if claim.claim == "keeps":
        return keeps(run, compare, claim)
    metric = claim.metric or ""
    if claim.claim == "worst":
        others = [name for name in trained_in(run.suite) if name != claim.student]
        pairs = {name: compare(metric, name, claim.student) for name in others}
        titles = titles_of(run.suite)
        verdict = worst({titles[name]: oriented(metric, d) for name, d in pairs.items()})
        known = [d for d in pairs.values() if not d.missing]
        return _with_why(claim, verdict, known[0]) if len(known) == len(pairs) > 0 else verdict
    difference = compare(metric, claim.student, claim.other or "")
    verdict = {
        "beats": lambda: beats(oriented(metric, difference)),
        "above": lambda: above(difference),
        "same": lambda: same(difference, claim.margin or 0.0),
    }[claim.claim]()
    if difference.missing:
        return verdict
    return _with_why(claim, verdict._replace(note=difference.shortfall), difference)


def _with_why(claim: Claim, verdict: Verdict, difference: Difference) -> Verdict:
    """What its interval is over and, where it is undecided, whether more would tell.

    A margin of a claim that asks for a difference is what would not matter; without one, alike is
    never said.
    """
    verdict = verdict._replace(over=difference.over)
    if verdict.verdict != UNDECIDED:
        return verdict
    margin = claim.margin if claim.claim != "same" and claim.margin else 0.0
    alike = -margin < verdict.low and verdict.high < margin
    return verdict._replace(why=ALIKE if alike else TOO_FEW)


def _judge_series(run: RunFiles, claim: Claim, files: StudentFiles) -> Verdict:
    series = claim.series or ""
    if files.diagnostics is None:
        title = titles_of(run.suite)[claim.student]
        return undecided(f"{title} {files.missing or 'has no training diagnostics'}")
    if series not in files.diagnostics:
        known = ", ".join(c for c in map(str, files.diagnostics) if c != "iteration")
        raise BenchError(f"claims: {claim.student} has no series {series!r}. Known: {known}.")
    values = files.diagnostics[series].to_numpy(np.float64)
    return rises(values) if claim.claim == "rises" else bounded(values, claim.margin or 1.0)


def claim_text(run: RunFiles, claim: Claim) -> str:
    """The claim as a sentence; of one seed it is about a training, not about a method."""
    student, other = (_who(run, name) for name in (claim.student, claim.other or ""))
    metric = METRICS[claim.metric].title if claim.metric else ""
    series = f"the {SERIES.get(claim.series, claim.series)}" if claim.series else ""
    margin = str(claim.margin)
    if claim.metric:
        margin = metric_shown(claim.metric, claim.margin)
        margin += unit_of(claim.metric, difference=True)
    text = {
        "beats": f"{student} is better than {other}: {metric}",
        "worst": f"{student} is the worst of all trained students: {metric}",
        "above": f"{student} has a larger value than {other}: {metric}",
        "same": f"{student} and {other} differ by less than {margin}: {metric}",
        "keeps": f"{student} keeps at least {claim.share or 1:.0%} of what {other} has: {metric}",
        "rises": f"{student}: {series} rises throughout training",
        "bounded": f"{student}: {series} stays within a factor of {margin} of its start",
        "preferred": f"people prefer {student} to {other}",
    }[claim.claim]
    own = text.startswith(_ONE) or claim.study is not None
    return text[:1].upper() + text[1:] if own else text


def _who(run: RunFiles, name: str) -> str:
    title = titles_of(run.suite).get(name, "")
    one = len(run.suite.seeds) == 1 and name in trained_in(run.suite)
    return f"{_ONE} {title}" if one else title


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
