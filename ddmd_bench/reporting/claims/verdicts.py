"""What is said of a claim: supported, refuted or undecided, and the numbers that it rests on."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from ddmd_bench.reporting.seeds import joined_reason

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"


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
