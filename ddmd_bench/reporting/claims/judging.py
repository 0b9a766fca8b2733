"""Every claim of a suite judged by the run's numbers, and the rules in words."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from ddmd_bench.reporting.claims.of_differences import above, beats, judge_difference, same, worst
from ddmd_bench.reporting.claims.of_series import bounded, judge_series, rises
from ddmd_bench.reporting.claims.of_shares import keeps
from ddmd_bench.reporting.claims.of_studies import preferred
from ddmd_bench.reporting.claims.verdicts import Verdict, over_seeds
from ddmd_bench.reporting.claims.words import claim_text
from ddmd_bench.reporting.differences import Compare
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.suite.claims import Claim

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
        return judge_series(run, claim)
    if claim.study is not None:
        return preferred(run, claim)
    if claim.claim == "keeps":
        return keeps(run, compare, claim)
    return judge_difference(run, compare, claim)


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
