"""Claims on a training's diagnostics: a series rises, or stays within bounds."""

from __future__ import annotations

import math

import numpy as np

from ddmd_bench.errors import BenchError
from ddmd_bench.reporting.claims.verdicts import (
    REFUTED,
    SUPPORTED,
    UNDECIDED,
    Verdict,
    over_seeds,
    undecided,
)
from ddmd_bench.reporting.dynamics import NUM_WINDOWS, window_means
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, titles_of
from ddmd_bench.suite.claims import Claim

MIN_WINDOWS = 4  # fewer give a slope no interval worth the name


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


def judge_series(run: RunFiles, claim: Claim) -> Verdict:
    """The verdict on a claim about a series, over the seeds."""
    found = run.students[claim.student]
    return over_seeds({seed: _of_seed(run, claim, found[seed]) for seed in found})


def _of_seed(run: RunFiles, claim: Claim, files: StudentFiles) -> Verdict:
    series = claim.series or ""
    if files.diagnostics is None:
        title = titles_of(run.suite)[claim.student]
        return undecided(f"{title} {files.missing or 'has no training diagnostics'}")
    if series not in files.diagnostics:
        known = ", ".join(c for c in map(str, files.diagnostics) if c != "iteration")
        raise BenchError(f"claims: {claim.student} has no series {series!r}. Known: {known}.")
    values = files.diagnostics[series].to_numpy(np.float64)
    return rises(values) if claim.claim == "rises" else bounded(values, claim.margin or 1.0)
