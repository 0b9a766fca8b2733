"""Claims on what a student keeps of what another has, as of its diversity."""

from __future__ import annotations

import math
from dataclasses import replace

from ddmd_bench.reporting.claims.verdicts import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    undecided,
)
from ddmd_bench.reporting.differences import TOO_FEW, Compare, make_compare
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, titles_of
from ddmd_bench.suite.claims import Claim


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
