"""Claims on what people preferred in a study."""

from __future__ import annotations

from ddmd_bench.reporting.claims.verdicts import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    undecided,
)
from ddmd_bench.reporting.runfiles import RunFiles, titles_of
from ddmd_bench.suite.claims import Claim


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
