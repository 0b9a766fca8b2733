"""Differences between two students on one metric: same prompts, same noise, interval, p-value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ddmd_bench.files.records import seed_of
from ddmd_bench.measuring.aggregates import counted, how_often
from ddmd_bench.measuring.looks import Rule, as_it_stands, looks_at, outcome_named, rule_of
from ddmd_bench.measuring.pairs import KEYS, shared_rows
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, titles_of
from ddmd_bench.reporting.seeds import interval_over, joined_reason, shortfall
from ddmd_bench.reporting.spreads import Pairs, numbered, shared_prompts, with_power
from ddmd_bench.scorers import METRICS
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.ends import LEVEL
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.stats.intervals import holm, paired_difference
from ddmd_bench.stats.seeds import NO_PROMPTS, OfPrompts, paired_t
from ddmd_bench.stats.sequential import Look, level_of
from ddmd_bench.suite.schema import Suite

NAN = math.nan
NOT_ASKED = "not asked"  # outcome of a metric that drawing was not to settle
OF_SETS = "distances of sets compare at numbers of images that were fixed beforehand"
TOO_FEW, ALIKE = "too few to tell", "alike within the margin"  # why something is undecided
TOO_FEW_VARY = "too few prompts, or too few that differ, for an interval at any number of them"


class Difference(NamedTuple):
    """a - b in the metric's own units. `missing` says why there is none, or is empty."""

    value: float
    low: float
    high: float
    p_value: float
    n: int
    wins: float  # share of prompts where a has the larger value, ties half
    missing: str = ""
    # a - b with each of the suite's seeds, NaN where there is none.
    by_seed: Mapping[int, float] = MappingProxyType({})
    wins_low: float = NAN
    wins_high: float = NAN
    over: str = "prompts"  # what the interval is over
    least: float = NAN  # that would have been shown, with 80 % power at 5 %
    spreads: Mapping[str, float] = MappingProxyType({})  # `stats.power.Spreads`

    @property
    def n_seeds(self) -> int:
        """The seeds that went into the difference."""
        return sum(map(math.isfinite, self.by_seed.values()))

    @property
    def shortfall(self) -> str:
        """How many seeds went into it where some are missing, else ''."""
        return shortfall(self.n_seeds, len(self.by_seed))


Compare = Callable[[str, str, str], Difference]  # metric, student a, student b


class _How(NamedTuple):
    """Of all pairs alike."""

    intervals: bool
    resampled: bool  # within a seed
    rule: Rule | None  # where drawing ended when comparisons were settled
    level: Callable[[str, str, str], float]  # of a metric and two students: where there is a rule
    # What the distances of one student need, by metric, the files, which the run holds, and which
    # of its images.
    examined: dict[tuple[str, int, bytes], Any]
    numbers: dict[str, int]  # of prompts


def no_difference(missing: str) -> Difference:
    """A difference that cannot be told, with the reason."""
    return Difference(NAN, NAN, NAN, NAN, 0, NAN, missing)


def negated(d: Difference) -> Difference:
    """b - a from a - b."""
    by_seed = {seed: -value for seed, value in d.by_seed.items()}
    return d._replace(
        value=-d.value,
        low=-d.high,
        high=-d.low,
        wins=1 - d.wins,
        by_seed=by_seed,
        wins_low=1 - d.wins_high,
        wins_high=1 - d.wins_low,
    )


def oriented(metric: str, d: Difference) -> Difference:
    """Positive = a is better. Where less is better the sign turns."""
    return negated(d) if METRICS[metric].better == "lower" else d


def make_compare(run: RunFiles, *, resampled: bool = True, together: int | None = None) -> Compare:
    """A function that compares any two students and computes each pair once.

    A pair is always computed in one order and then negated, so a - b is exactly -(b - a). What is
    not resampled has a value and wins, but neither interval nor p. Where drawing ended when
    comparisons were settled, so many of them hold `together`; without it, those to settle.
    """
    # Over several seeds the spread of the seeds is the interval: their values are enough.
    fixed, rule = resampled and run.suite.intervals_over == "prompts", rule_of(run.suite)

    def level(metric: str, a: str, b: str) -> float:
        if together is not None:
            return level_of(together)
        to_settle = rule is not None and metric in rule.metrics and run.suite.baseline in (a, b)
        return rule.level if rule is not None and to_settle else LEVEL

    how = _How(resampled, fixed and rule is None, rule, level, {}, {})
    known: dict[tuple[str, str, str], Difference] = {}

    def compare(metric: str, a: str, b: str) -> Difference:
        first, second = sorted((a, b))
        if (metric, first, second) not in known:
            known[metric, first, second] = _difference(run, metric, first, second, how)
        difference = known[metric, first, second]
        return difference if a == first else negated(difference)

    return compare


def _difference(run: RunFiles, metric: str, a: str, b: str, how: _How) -> Difference:
    pairs: Pairs = []
    found = {seed: _of_seed(run, metric, a, b, seed, how, pairs) for seed in run.suite.seeds}
    if not how.intervals:
        return over_seeds(found)
    difference = over_seeds(found, shared_prompts(pairs))
    if not difference.missing and not math.isfinite(difference.low + difference.high):
        return difference._replace(missing="no interval could be computed")
    difference = with_power(difference, pairs, len(run.prompts))
    # What so many prompts could have shown is no question where their number was not fixed.
    return difference if how.rule is None else difference._replace(least=NAN)


def over_seeds(found: dict[int, Difference], prompts: OfPrompts = NO_PROMPTS) -> Difference:
    """Of several seeds the mean of their differences, with the interval and the p of `paired_t`
    over the seeds and the prompts; one seed's difference as it is, with its interval over prompts.
    """
    by_seed = {seed: d.value for seed, d in found.items()}
    known = [d for d in found.values() if math.isfinite(d.value)]
    if len(found) == 1 or not known:
        reason = joined_reason({seed: d.missing for seed, d in found.items()})
        first = next(iter(found.values()))
        return first._replace(missing=reason, by_seed=by_seed)
    value, low, high, p_value = paired_t([d.value for d in known], prompts)
    missing = ""
    if len(known) == 1:
        reasons = joined_reason({seed: d.missing for seed, d in found.items()})
        missing = f"{shortfall(1, len(found))}; {reasons}"
    wins = float(np.mean([d.wins for d in known]))
    n = sum(d.n for d in known)
    over = interval_over(len(found), prompts)
    return Difference(value, low, high, p_value, n, wins, missing, by_seed, over=over)


def _of_seed(
    run: RunFiles, metric: str, a: str, b: str, seed: int, how: _How, pairs: Pairs
) -> Difference:
    files_a, files_b = (run.students[name][seed] for name in (a, b))
    for name, files in ((a, files_a), (b, files_b)):
        if files.missing:
            return no_difference(f"{titles_of(run.suite)[name]} {files.missing}")
    draws = seed_of("report", run.suite.name, metric, a, b)
    if METRICS[metric].kind == "distribution":
        if how.rule is not None:
            return no_difference(OF_SETS)
        return _distribution(run, metric, files_a, files_b, draws, how)
    found = _paired(metric, files_a, files_b, draws, how, pairs)
    if how.rule is None or not how.intervals or found.missing:
        return found
    return _in_sequence(how.rule, metric, files_a, files_b, how.level(metric, a, b), found)


def _in_sequence(
    rule: Rule, metric: str, a: StudentFiles, b: StudentFiles, level: float, found: Difference
) -> Difference:
    """With the confidence sequence's interval: it holds whenever the drawing ended."""
    assert a.per_image is not None
    assert b.per_image is not None
    now = as_it_stands(rule, metric, a.per_image, b.per_image, level)
    known = math.isfinite(now.low + now.high)
    return found._replace(
        value=now.mean, low=now.low, high=now.high, missing="" if known else TOO_FEW_VARY
    )


def _paired(
    metric: str,
    a: StudentFiles,
    b: StudentFiles,
    seed: int,
    how: _How,
    pairs: Pairs,
) -> Difference:
    assert a.per_image is not None
    assert b.per_image is not None
    for files in (a, b):
        if metric not in files.per_image:  # type: ignore[operator]
            return no_difference("the metric was not scored")
    rows = shared_rows(a.per_image, b.per_image)
    values_a, values_b = (
        files.per_image[metric].to_numpy(np.float64)[own]  # type: ignore[index]
        for files, own in zip((a, b), rows, strict=True)
    )
    groups = a.per_image["prompt_id"].to_numpy()[rows[0]]
    # Only images that both students have and that were scored for both are a pair.
    kept = np.flatnonzero(~(np.isnan(values_a) | np.isnan(values_b)))
    _, first = np.unique(groups[kept], return_index=True)
    if len(first) < 2:
        return no_difference("fewer than two prompts were scored for both students")
    if METRICS[metric].kind == "prompt":
        # A prompt's value stands on each of its images; count it once.
        kept = kept[np.sort(first)]
    kept = kept.repeat(how_often(metric, a.per_image)[rows[0]][kept])
    values_a, values_b, groups = (x[kept] for x in (values_a, values_b, groups))
    if how.intervals:
        pairs.append((values_a - values_b, numbered(groups, how.numbers)))
    bounds = METRICS[metric].bounds
    found = paired_difference(
        values_a, values_b, groups, seed=seed, bounds=bounds, tested=how.resampled
    )
    return Difference(**found._asdict())


def _distribution(
    run: RunFiles, metric: str, a: StudentFiles, b: StudentFiles, seed: int, how: _How
) -> Difference:
    extractor, name = METRICS[metric].extractor, METRICS[metric].distance
    assert extractor
    assert name
    assert a.per_image is not None
    assert b.per_image is not None
    if extractor not in run.reference:
        return no_difference("the reference has no features")
    if extractor not in a.features or extractor not in b.features:
        return no_difference("the students' features are missing")
    if not a.per_image[KEYS].equals(b.per_image[KEYS]):
        return no_difference("the students have images of different prompts")
    reference = run.reference[extractor]
    num_real, d = reference.num_images, reference.features.shape[1]
    distance = DISTANCES[name]
    # Only images that both students have features of, so that both sets are as large.
    known = np.logical_and(*(np.isfinite(f.features[extractor]).all(1) for f in (a, b)))
    known &= counted(metric, a.per_image, "all", run.suite.metrics_of())
    fewest = distance.fewest(d)
    if known.sum() < fewest or (num_real is not None and num_real < fewest):
        return no_difference(f"too few images: {fewest} are needed of students and real ones")
    groups = a.per_image["prompt_id"].to_numpy()[known]
    if reference.fixed is None and not known.all():
        # Real images are drawn with their prompts: those of a prompt that is left out are too.
        kept = np.isin(reference.groups.astype(str), groups.astype(str))
        reference = RealFeatures(reference.features[kept], reference.groups[kept])

    def of(files: StudentFiles) -> Any:
        key = metric, id(files), known.tobytes()
        if key not in how.examined:
            features = files.features[extractor][known]
            how.examined[key] = distance.examine(features, reference, groups, how.resampled)
        return how.examined[key]

    found = distance.compare(of(a), of(b), groups, seed, how.resampled)
    return Difference(**found._asdict())


def against_baseline(run: RunFiles, compare: Compare) -> list[dict[str, Any]]:
    """Every other student minus the baseline on every metric, Holm's correction over all of them.

    Real scenes are left out: they share prompts with the students but not noise.
    """
    suite = run.suite
    others = [n for n, s in suite.students.items() if n != suite.baseline and s.source != "real"]
    pairs = [(metric, other) for metric in suite.metrics for other in others]
    found = [compare(metric, other, suite.baseline) for metric, other in pairs]
    adjusted = holm([d.p_value for d in found])
    rule = rule_of(suite)
    return [
        {
            "student": other,
            "baseline": suite.baseline,
            "metric": metric,
            **d._asdict(),
            **_wins(oriented(metric, d)),
            "spreads": {**d.spreads},
            "n_seeds": d.n_seeds,
            "n_seeds_expected": len(d.by_seed),
            "p_holm": p_holm,
            "outcome": outcome_of(metric, d, p_holm)
            if rule is None
            else _settled(run, rule, metric, other),
            "why": _why(suite, metric, d, p_holm) if rule is None else "",
        }
        for (metric, other), d, p_holm in zip(pairs, found, adjusted, strict=True)
    ]


def _wins(d: Difference) -> dict[str, float]:
    """How often a student is better; where neither direction is, how often it has more."""
    return {"wins": d.wins, "wins_low": d.wins_low, "wins_high": d.wins_high}


def _settled(run: RunFiles, rule: Rule, metric: str, student: str) -> str:
    """What the first look that told said, undecided where none did."""
    if metric not in rule.metrics:
        return NOT_ASKED
    last = last_look(run, rule, metric, student)
    return outcome_named(metric, last.answer) if last and last.answer else "undecided"


def last_look(run: RunFiles, rule: Rule, metric: str, student: str) -> Look | None:
    """The look at a student and the baseline that told, else the last one; None without tables."""
    tables = [run.first_seed(name).per_image for name in (student, run.suite.baseline)]
    known = [table for table in tables if table is not None and metric in table]
    if len(known) < 2:
        return None
    found = looks_at(rule, metric, known[0], known[1], rule.level)
    return found[-1] if found else None


def outcome_of(metric: str, d: Difference, p_holm: float) -> str:
    """better / worse / undecided; where neither direction is better, differs / undecided."""
    low, high = oriented(metric, d)[1:3]
    if d.missing or not p_holm < 0.05 or low <= 0 <= high:
        return "undecided"
    if METRICS[metric].better == "reference":
        return "differs"
    return "better" if low > 0 else "worse"


def _why(suite: Suite, metric: str, d: Difference, p_holm: float) -> str:
    """Why a difference is undecided: alike where the suite's gate has a margin and the interval
    lies inside it, else too few to tell."""
    if d.missing or outcome_of(metric, d, p_holm) != "undecided":
        return ""
    margin = suite.gate[metric].margin if metric in suite.gate else None
    return ALIKE if margin is not None and -margin < d.low and d.high < margin else TOO_FEW


def win_rates(run: RunFiles, compare: Compare, metric: str) -> dict[str, dict[str, float]]:
    """wins[a][b]: share of prompts where a is better than b on an image metric, ties half."""
    names = [n for n, s in run.suite.students.items() if s.source != "real"]
    return {
        a: {b: oriented(metric, compare(metric, a, b)).wins for b in names if b != a} for a in names
    }
