"""Claims on the paired difference of two students, better, larger, alike; on the worst of all."""

from __future__ import annotations

from ddmd_bench.reporting.claims.verdicts import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    undecided,
)
from ddmd_bench.reporting.differences import ALIKE, TOO_FEW, Compare, Difference, oriented
from ddmd_bench.reporting.runfiles import RunFiles, titles_of, trained_in
from ddmd_bench.suite.claims import Claim


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


def judge_difference(run: RunFiles, compare: Compare, claim: Claim) -> Verdict:
    """The verdict on a claim that two students, or one and all others, differ or do not."""
    metric = claim.metric or ""
    if claim.claim == "worst":
        others = [name for name in trained_in(run.suite) if name != claim.student]
        pairs = {name: compare(metric, name, claim.student) for name in others}
        titles = titles_of(run.suite)
        verdict = worst({titles[name]: oriented(metric, d) for name, d in pairs.items()})
        known = [d for d in pairs.values() if not d.missing]
        return with_why(claim, verdict, known[0]) if len(known) == len(pairs) > 0 else verdict
    difference = compare(metric, claim.student, claim.other or "")
    verdict = {
        "beats": lambda: beats(oriented(metric, difference)),
        "above": lambda: above(difference),
        "same": lambda: same(difference, claim.margin or 0.0),
    }[claim.claim]()
    if difference.missing:
        return verdict
    return with_why(claim, verdict._replace(note=difference.shortfall), difference)


def with_why(claim: Claim, verdict: Verdict, difference: Difference) -> Verdict:
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
