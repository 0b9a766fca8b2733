"""A claim as a sentence, and what its verdict rests on."""

from __future__ import annotations

from typing import Any

from ddmd_bench.objective.series import SERIES
from ddmd_bench.reporting.numbers import interval_shown, metric_shown, shown, significant, unit_of
from ddmd_bench.reporting.runfiles import RunFiles, titles_of, trained_in
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.claims import Claim

_ONE = "this training of"


def claim_text(run: RunFiles, claim: Claim) -> str:
    """The claim as a sentence; of one seed it is about a training, not about a method."""
    student, other = (_who(run, name) for name in (claim.student, claim.other or ""))
    metric = METRICS[claim.metric].title if claim.metric else ""
    series = f"the {SERIES.get(claim.series, claim.series)}" if claim.series else ""
    margin = str(claim.margin)
    if claim.metric:
        margin = metric_shown(claim.metric, claim.margin)
        margin += unit_of(claim.metric, difference=True)
    share = f"{100 * (claim.share or 1):g} %"
    text = {
        "beats": f"{student} is better than {other}: {metric}",
        "worst": f"{student} is the worst of all trained students: {metric}",
        "above": f"{student} has a larger value than {other}: {metric}",
        "same": f"{student} and {other} differ by less than {margin}: {metric}",
        "keeps": f"{student} keeps at least {share} of what {other} has: {metric}",
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


def claim_result(claim: dict[str, Any], num_seeds: int) -> str:
    """The numbers a verdict rests on, in words."""
    value, low, high, metric = (claim[k] for k in ("value", "low", "high", "metric"))
    note: str = claim["note"]
    if value is None:
        return note
    if claim["claim"] == "bounded":
        text = (
            f"between {significant(low)} and {significant(high)} times its start, "
            f"{significant(value)} times at the end"
        )
    elif claim["claim"] == "rises":
        interval = f"{significant(low)} to {significant(high)}"
        which = "95 % interval" if num_seeds == 1 else "the seeds' 95 % intervals lie within"
        text = f"rise over the training {significant(value)} ({which} {interval})"
    elif claim["claim"] == "preferred":
        interval = f"{shown(100 * low, 1)} to {shown(100 * high, 1)}"
        text = f"above in {shown(100 * value, 1)} % (95 % interval {interval})"
    elif claim["claim"] == "keeps":
        which = "95 % interval" + (f" over {claim['over']}" if num_seeds > 1 else "")
        ends = f"{shown(100 * low, 1)} to {shown(100 * high, 1)}"
        text = f"{shown(100 * value, 1)} % ({which} {ends})"
    else:
        which = "95 % interval" + (f" over {claim['over']}" if num_seeds > 1 else "")
        if claim["claim"] == "worst":
            lead = "the others are ahead by at least"
        else:
            lead = "difference"
            # As among the differences: student minus other.
            if claim["claim"] == "beats" and METRICS[metric].better == "lower":
                value, low, high = -value, -high, -low
        amount = metric_shown(metric, value, sign=True) + unit_of(metric, difference=True)
        text = f"{lead} {amount} ({which} {interval_shown(metric, low, high, sign=True)})"
    return "; ".join(filter(None, [text, claim["why"], note]))
