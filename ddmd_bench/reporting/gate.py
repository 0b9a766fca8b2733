"""Hold students against those of a baseline: not worse by more than a margin, worse, or too few.

The same prompts, with the same noise where the runs share a seed, as a report compares within
itself (`reporting.differences`). A metric is *not worse* where its 95 % interval lies wholly above
minus the margin (non-inferiority, ICH E9); the run is ok where all are, which takes no correction,
since one alone keeps it from being so (an intersection-union test, Berger 1982). It is *worse*
where a loss is significant after Holm's correction over all metrics and students. What is neither
has *too few* images to tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ddmd_bench.errors import BenchError, NotRun, unknown
from ddmd_bench.files.records import differing, finite_or_none
from ddmd_bench.measuring.pairs import shared_rows
from ddmd_bench.reporting.baselines import Baseline
from ddmd_bench.reporting.checked import Checked, Held, Status
from ddmd_bench.reporting.defects import held_pictures
from ddmd_bench.reporting.differences import Difference, make_compare, oriented
from ddmd_bench.reporting.numbers import interval_shown, metric_shown, unit_of
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles
from ddmd_bench.reporting.worst import worst_prompts
from ddmd_bench.scorers import METRICS, needed_scorers
from ddmd_bench.scorers.metrics import gated_by_default
from ddmd_bench.stats.ends import share_ends
from ddmd_bench.stats.intervals import UNBOUNDED, holm
from ddmd_bench.suite.gate import Margin
from ddmd_bench.suite.schema import Suite

OF_IMAGES, OF_SETS = Margin(spreads=0.1), Margin(share=0.1)  # where a suite names none
_SAID = "{found!r}, the baseline's {expected!r}"
Pair = tuple[str, str]  # a student and the baseline's
Seeds = dict[int, int]  # the baseline's by the run's


class Compared(NamedTuple):
    """A student and its rival on one metric, before the verdict."""

    pair: Pair
    metric: str
    difference: Difference  # student minus baseline's, in the metric's own units
    margin: float  # NaN where it cannot be told
    values: tuple[float, float]  # of the student and of the baseline's


def margins_of(suite: Suite) -> dict[str, Margin]:
    """The suite's own, or one for each metric that gates by default."""
    if suite.gate:
        return suite.gate
    directed = gated_by_default(suite.metrics)
    of_sets = [metric for metric in directed if METRICS[metric].kind == "distribution"]
    left_out = of_sets if suite.until_settled is not None else []
    return {
        metric: OF_SETS if metric in of_sets else OF_IMAGES
        for metric in directed
        if metric not in left_out
    }


def pairs_of(
    run: RunFiles, baseline: Baseline, student: str | None, against: str | None
) -> list[Pair]:
    """The named pair, or every student that both runs have but for real scenes."""
    if first := student or against:
        second = against or first
        for name, known in ((first, run.students), (second, baseline.students)):
            if name not in known:
                raise BenchError(unknown("student", name, known))
        return [(first, second)]
    students = run.suite.students
    shared = [n for n in students if n in baseline.students and students[n].source != "real"]
    if not shared:
        raise BenchError("the runs share no student's name: say --student NEW --against OLD")
    return [(name, name) for name in shared]


def against_baseline(run: RunFiles, baseline: Baseline, pairs: Sequence[Pair]) -> Checked:
    """The verdict on every pair and gating metric; incomparable where the protocols differ."""
    if lines := list(differing("protocol", run.protocol, baseline.protocol, _SAID)):
        named = [line.split(": ", 1) for line in lines]
        held = [Held("protocol", name, "failed", text, math.inf) for name, text in named]
        return Checked("incomparable", held, [])
    seeds = _seeds_of(run.suite.seeds, baseline.seeds)
    margins, in_sequence = margins_of(run.suite), run.suite.until_settled is not None
    broken, notes = _not_scored(run, _joined(run, baseline, pairs, seeds), pairs, margins)
    pairs = [pair for pair in pairs if pair not in broken]
    broken_pictures = [one for held in broken.values() for one in held]
    if not pairs:
        return Checked("worse", broken_pictures, notes)
    _refuse_missing(run, baseline, pairs, seeds)
    joined = _joined(run, baseline, pairs, seeds)
    gating = {
        pair: [metric for metric in margins if not _never_known(joined, pair, metric)]
        for pair in pairs
    }
    num = sum(map(len, gating.values()))
    compare = make_compare(joined, together=num)
    found = [
        _compared(joined, pair, metric, margins[metric], compare(metric, pair[0], _old(pair[1])))
        for pair, metrics in gating.items()
        for metric in metrics
    ]
    # Intervals of sequences hold together by themselves: what they exclude needs no p.
    p_values = [0.0 if in_sequence else one.difference.p_value for one in found]
    adjusted = holm(p_values)
    pictures = [
        held
        for (new, old), metrics in gating.items()
        for held in held_pictures(joined, new, _old(old), metrics)
    ]
    metrics = [verdict_on(one, p) for one, p in zip(found, adjusted, strict=True)]
    never_known = [
        Held("metrics", f"{new}, every metric", "too few", "none that gates is known", math.inf)
        for (new, _), names in gating.items()
        if margins and not names
    ]
    held = [*broken_pictures, *pictures, *metrics, *never_known]
    worst = [
        prompt
        for one, its in zip(found, metrics, strict=True)
        if its.status == "failed"
        for prompt in worst_prompts(joined, one.pair[0], _old(one.pair[1]), one.metric, its.name)
    ]
    notes += _notes(joined, num, seeds)
    if left_out := [
        f"{METRICS[metric].title} of {new}"
        for (new, _), metrics in gating.items()
        for metric in margins.keys() - {*metrics}
    ]:
        notes.append(f"left out, as not known of files alone: {', '.join(sorted(left_out))}")
    return Checked(_status(held), held, notes, tuple(worst))


def _status(held: Sequence[Held]) -> Status:
    found = {one.status for one in held}
    return "worse" if "failed" in found else "too few" if "too few" in found else "ok"


def _old(student: str) -> str:
    return f"{student} of the baseline"


def _not_scored(
    run: RunFiles, joined: RunFiles, pairs: Sequence[Pair], margins: dict[str, Margin]
) -> tuple[dict[Pair, list[Held]], list[str]]:
    """Of students without scores what is wrong with their images, where something is: images that
    are all black have no value that could be compared."""
    broken, notes = dict[Pair, list[Held]](), []
    for new, old in pairs:
        missing = [one.missing for one in run.students[new].values() if one.missing]
        if missing:
            pictures = held_pictures(joined, new, _old(old), margins)
            if found := [one for one in pictures if one.status == "failed"]:
                broken[new, old] = found
                notes.append(f"{new} {missing[0]}: its images alone were looked at")
    return broken, notes


def _never_known(joined: RunFiles, pair: Pair, metric: str) -> bool:
    """Whether a metric is counted where images are drawn, and a side's were drawn elsewhere."""
    if needed_scorers([metric]):
        return False
    names = pair[0], _old(pair[1])
    sides = ([one.per_image for one in joined.students[name].values()] for name in names)
    return any(
        all(t is None or metric not in t or t[metric].isna().all() for t in side) for side in sides
    )


def _refuse_missing(run: RunFiles, baseline: Baseline, pairs: Sequence[Pair], seeds: Seeds) -> None:
    missing = [
        f"{shown}, seed {seed}: {why}"
        for shown, by_seed in _sides(run, baseline, pairs, seeds).items()
        for seed, files in by_seed.items()
        if (why := files.missing)
    ]
    if missing:
        raise NotRun("\n  ".join(["nothing to compare yet:", *missing]))


def _joined(run: RunFiles, baseline: Baseline, pairs: Sequence[Pair], seeds: Seeds) -> RunFiles:
    """One run of both sides' students, so that they are compared as students of one report are."""
    rows = {new: run.suite.students[new] for new, _ in pairs}
    rows |= {
        _old(old): run.suite.students[new].model_copy(update={"title": _old(old)})
        for new, old in pairs
    }
    suite = run.suite.model_copy(update={"students": rows, "seeds": tuple(seeds)})
    return replace(run, suite=suite, students=_sides(run, baseline, pairs, seeds))


def _sides(
    run: RunFiles, baseline: Baseline, pairs: Sequence[Pair], seeds: Seeds
) -> dict[str, dict[int, StudentFiles]]:
    """The files of both sides' students by the seeds of the run."""
    found: dict[str, dict[int, StudentFiles]] = {}
    for new, old in pairs:
        found[new], found[_old(old)] = {}, {}
        for seed, was in seeds.items():
            both = run.students[new][seed], baseline.students[old][was]
            if run.suite.until_settled is not None:
                both = _of_shared(both[0], both[1]), _of_shared(both[1], both[0])
            found[new][seed], found[_old(old)][seed] = both
    return found


def _of_shared(files: StudentFiles, other: StudentFiles) -> StudentFiles:
    """The files of images that the other has too: of others there may be more without a value."""
    if files.per_image is None or other.per_image is None:
        return files
    rows, _ = shared_rows(files.per_image, other.per_image)
    table = files.per_image.iloc[rows].reset_index(drop=True)
    shared = {*zip(table["prompt_id"], table["image_index"], strict=True)}
    images = {of: path for of, path in files.images.items() if of in shared}
    return replace(files, per_image=table, images=images)


def _seeds_of(ours: Sequence[int], theirs: Sequence[int]) -> Seeds:
    """The seeds that both have, else as many as both have, in order."""
    shared = [seed for seed in ours if seed in theirs]
    return dict(zip(shared, shared, strict=True)) or dict(zip(ours, theirs, strict=False))


def _compared(
    joined: RunFiles, pair: Pair, metric: str, margin: Margin, difference: Difference
) -> Compared:
    new, old = (list(joined.students[name].values()) for name in (pair[0], _old(pair[1])))
    values = _value(new, metric), _value(old, metric)
    if margin.margin is not None:
        allowed = margin.margin
    elif margin.share is not None:
        allowed = margin.share * abs(values[1])
    else:
        allowed = (margin.spreads or math.nan) * _spread(old, metric)
    return Compared(pair, metric, difference, allowed, values)


def _value(files: Sequence[StudentFiles], metric: str) -> float:
    cells = [one.aggregates.get(metric, {}).get("all", {}) for one in files]
    known = [cell["value"] for cell in cells if cell.get("value") is not None]
    return float(np.mean(known)) if known else math.nan


def _spread(files: Sequence[StudentFiles], metric: str) -> float:
    """Standard deviation over prompts of their means, over all seeds together; of a distribution
    metric, which has no value of a prompt, NaN.

    Shares that are all 0, or all 1, show none. Theirs is that of the share which unseen prompts may
    come to, as an interval of them has it, so that both fall with the number of prompts.
    """
    tables = [one.per_image for one in files if one.per_image is not None]
    means = [t.groupby("prompt_id")[metric].mean() for t in tables if metric in t]
    spread = float(np.mean([m.std(ddof=1) for m in means])) if means else math.nan
    lowest, highest = METRICS[metric].bounds or UNBOUNDED
    if spread == 0 and math.isfinite(highest - lowest):
        number = min(m.count() for m in means)
        unseen = share_ends(0.0, number, number)[1]
        spread = (highest - lowest) * math.sqrt(unseen * (1 - unseen))
    return spread


def verdict_on(one: Compared, p_holm: float) -> Held:
    """The verdict on one metric; `beyond` is how many margins the interval reaches down.

    Where a metric is right at real images' value it may reach neither down nor up.
    """
    metric, difference, margin = one.metric, one.difference, one.margin
    either_way = METRICS[metric].better == "reference"
    name = f"{one.pair[0]}, {METRICS[metric].title}"
    if one.pair[0] != one.pair[1]:
        name = f"{one.pair[0]} against {one.pair[1]}, {METRICS[metric].title}"
    if difference.missing:
        return Held("metrics", name, "too few", difference.missing, math.inf)
    value, low, high = oriented(metric, difference)[:3]
    reaches = max(-low, high) if either_way else -low
    lost = low > margin or high < -margin if either_way else high < 0
    beyond = reaches / margin if margin > 0 else math.inf if reaches > 0 else 0.0
    beyond = max(beyond, 0.0)
    if beyond < 1:
        return Held("metrics", name, "ok", f"{_told(one)}: not worse", beyond)
    if lost and p_holm < 0.05:
        word = "moved" if either_way else "worse"
        return Held("metrics", name, "failed", f"{_told(one)}: {word}", beyond)
    more = _more(-abs(value) if either_way else value, low, high, margin)
    return Held("metrics", name, "too few", f"{_told(one)}: too few to tell{more}", beyond)


def _told(one: Compared) -> str:
    metric, d = one.metric, one.difference
    unit, points = unit_of(metric), unit_of(metric, difference=True)
    return (
        f"{metric_shown(metric, one.values[0])}{unit}, was {metric_shown(metric, one.values[1])}"
        f"{unit}; by {metric_shown(metric, d.value, sign=True)}{points} "
        f"({interval_shown(metric, d.low, d.high, sign=True)}), "
        f"margin {metric_shown(metric, finite_or_none(one.margin))}{points}"
    )


def _more(value: float, low: float, high: float, margin: float) -> str:
    """How many times the images would tell, if the difference were as it seems: an interval is as
    wide as one over the root of their number."""
    room = value + margin
    if not room > 0:
        return ""
    return f"; {max(((high - low) / 2 / room) ** 2, 1.1):.1f} times the prompts may"


def _notes(joined: RunFiles, num: int, seeds: Seeds) -> list[str]:
    over = "seeds" if joined.suite.intervals_over == "seeds" else "prompts"
    told = f"gating metrics of {len(joined.students) // 2} students, "
    if joined.suite.until_settled is None:
        told += f"Holm over {num} comparisons; 95 % intervals over {over}"
    else:
        told += (
            f"{num} comparisons by confidence sequences that hold together with "
            "95 %, over the prompts that both have, since drawing ended when others were settled"
        )
    if not joined.suite.gate:
        told += (
            "; the suite has no `gate`, so margins are 0.1 standard deviations over the "
            "baseline's prompts, and of distances between sets a tenth"
        )
    if any(not one.images for by_seed in joined.students.values() for one in by_seed.values()):
        told += "; not all images are here: those were not looked at"
    notes = [told]
    if any(seed != was for seed, was in seeds.items()):
        of = ", ".join(f"{seed} with {was}" for seed, was in seeds.items())
        notes.append(f"no seed in common ({of}): the prompts are the same, the noise is not")
    if len(seeds) == 1:
        notes.append("one seed: of trained students this is said of these trainings alone")
    return notes
