"""What a claim's verdict rests on, in words."""

from __future__ import annotations

from typing import Any

from ddmd_bench.reporting.numbers import interval_shown, metric_shown, shown, significant, unit_of
from ddmd_bench.scorers import METRICS


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
