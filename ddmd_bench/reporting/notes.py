"""What the pages say about their numbers: what an interval is over, and what it does not cover."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ddmd_bench.objective.methods import METHODS
from ddmd_bench.reporting.numbers import unit_of
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.metrics import gated_by_default

CLAIM = (
    "A claim rests on its own interval alone; an outcome among the differences also needs p below "
    "0.05 after Holm's correction for all of them, so a claim may be supported where the outcome "
    "is undecided."
)
COULD_SHOW = (
    "Could show: the least difference that so many prompts and seeds show with 80 % power at 5 %, "
    "one comparison alone; where an undecided one is smaller, there were too few to tell."
)
WINS = (
    "Wins: % of prompts on which the student is better (has the larger value, where neither "
    "direction is better), ties half."
)
BANDS = "A line is the mean over the seeds, its band reaches from the lowest seed to the highest."
LITERATURE = (
    "Numbers of others, as their sources print them, beside this run's in its own display unit. "
    "They are context, never a gate: no verdict and no check rests on them. Of one and the same "
    "checkpoint, DMD2's for SDXL, ImageReward differs by 0.22 between three papers."
)
LITERATURE_DIFFERENCES = "What differs between that table and this run:"
LITERATURE_NOTHING_SHARED = (
    "No value of that table was measured here. What differs between it and this run:"
)
_ONE_SEED = (
    "Intervals cover the choice of prompts and noise, not the training seed: one training each."
)
_SEVERAL_SEEDS = (
    "Intervals cover the seed of training and noise ({num} seeds) and, of metrics that each image "
    "has, the choice of prompts; of distances between distributions not the prompts, which are the "
    "same for every seed."
)
_SAME_NUMBER = "Fréchet distances compare only where they are over the same number of images."
# Of the embedded world alone.
_SHAPES = (
    "The Fréchet distances are not FID: other networks read the images, with other features.",
    _SAME_NUMBER,
    "This is a small embedded world of 32-pixel scenes; large models may behave otherwise.",
    "The paper's results at the size of SDXL are not measured here.",
)
_OTHER_CODE = (
    "Parts of this report were made by different {what}; see the provenance at the end of the page."
)
_MAKERS = {"sources": "code", "packages": "versions of packages", "device": "devices"}
_BEST = (
    "{title} is drawn from the weights that were best by {metric} while it trained (after {after} "
    "of {num} updates). They were chosen on some of the prompts and noise that it is compared on, "
    "which favours it, most of all in that metric."
)
BLANK = {"black": "are black", "one_colour": "are of one colour"}
_NO_GAN = "No student has the GAN loss that the paper's large-scale table keeps."


def directions(suite: Mapping[str, Any]) -> str:
    """What the arrows at a metric say, in a suite with real images or without."""
    has_real = any(student["source"] == "real" for student in suite["students"].values())
    alike = "nearer to the real scenes is better" if has_real else "neither direction is better"
    return f"↑ more is better, ↓ less is better, ≈ {alike}."


def limits(record: dict[str, Any]) -> list[str]:
    """What the numbers do not say, and what went into none of them."""
    suite, students = record["suite"], record["students"]
    num_seeds = len(suite["seeds"])
    seeds = _ONE_SEED if num_seeds == 1 else _SEVERAL_SEEDS.format(num=num_seeds)
    methods = [student["method"] for student in students.values() if student["method"]]
    has_gan = any(METHODS[method].gan for method in methods)
    embedded = suite["backend"] == "shapes"
    return [
        seeds,
        *(_SHAPES if embedded else [_SAME_NUMBER]),
        *([_NO_GAN] if methods and not has_gan else []),
        *(_loras(students[name]["title"], row) for name, row in _stacked(suite)),
        *(_best(student) for student in students.values() if student.get("best")),
        *_other_sizes(students.values(), record["protocol"].get("resolution")),
        *_makers(record["provenance"]["varying"]),
        *small_numbers(record),
        *_imported(record),
        *(line for student in students.values() for line in _not_scored(student)),
        *_truncated(students.values()),
    ]


def small_numbers(record: Mapping[str, Any]) -> list[str]:
    """What distances of few images lack, over all prompts; images that are another's bytes, and
    those that are blank."""
    students, several = record["students"], len(record["suite"]["seeds"]) > 1
    concerned: dict[tuple[str, str], list[str]] = {}
    for metric in record["suite"]["metrics"]:
        for name in students:
            cell = record["table"][name].get(metric, {}).get("all", {})
            if text := cell.get("missing") or cell.get("note"):
                concerned.setdefault((metric, text), []).append(name)
    told: dict[tuple[str, str], list[str]] = {}
    for (metric, text), names in concerned.items():
        told.setdefault((_whose(names, students), text), []).append(METRICS[metric].title)
    return [
        *(f"{', '.join(titles)}{whose}: {text}." for (whose, text), titles in told.items()),
        *(
            f"{student['title']}: {number} images{' of a seed' * several} are another's byte for "
            "byte, and add nothing."
            for student in students.values()
            if (number := student.get("equal_images"))
        ),
        *(_blank(student) for student in students.values() if student.get("blank_images")),
    ]


def _imported(record: Mapping[str, Any]) -> Iterator[str]:
    """What is unknown of the real images that metrics compare with, where others saw them."""
    for extractor, told in record.get("imported_reference", {}).items():
        metrics = record["suite"]["metrics"]
        titles = [METRICS[name].title for name in metrics if METRICS[name].extractor == extractor]
        yield f"{', '.join(titles)}: the reference is {told}."


def _blank(student: Mapping[str, Any]) -> str:
    """How many of a student's images are black, and how many of one colour."""
    found = student["blank_images"]
    told = [f"{row['n']} of {row['of']} images {BLANK[m]}" for m, row in found.items()]
    return f"{student['title']}: {' and '.join(told)}."


def _whose(names: Collection[str], students: Mapping[str, Any]) -> str:
    """Of which students something is told, in as few words as say it: '' of all."""
    others = [student["title"] for name, student in students.items() if name not in names]
    if not others:
        return ""
    if len(others) < len(names):
        return f" (all but {', '.join(others)})"
    return f" ({', '.join(students[name]['title'] for name in names)})"


def _makers(varying: Mapping[str, Any]) -> list[str]:
    """One line where not everything was made alike."""
    found = [words for field, words in _MAKERS.items() if field in varying]
    return [_OTHER_CODE.format(what=" and ".join(found))] if found else []


def _stacked(suite: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The students with LoRAs on top of their weights."""
    return ((name, row) for name, row in suite["students"].items() if row.get("adapters"))


def _loras(title: str, student: Mapping[str, Any]) -> str:
    named = (
        f"{one['repository']}{'/' + one['file'] if one['file'] else ''} at {one['scale']:g}"
        for one in student["adapters"]
    )
    return f"{title} is drawn with LoRAs on top of its weights: {', '.join(named)}."


def _best(student: Mapping[str, Any]) -> str:
    return _BEST.format(
        title=student["title"],
        metric=METRICS[student["best"]["metric"]].title,
        after=", ".join(map(str, student["best"]["iterations"])),
        num=student["facts"]["num_iterations"],
    )


def _other_sizes(students: Iterable[dict[str, Any]], resolution: int | None) -> Iterator[str]:
    """A line for each student whose images have another size than the suite's."""
    for student in students:
        size = student["facts"].get("resolution")
        if size and resolution and size != [resolution, resolution]:
            yield (
                f"{student['title']}: its images have {size[1]} x {size[0]} pixels, the suite's "
                f"{resolution} x {resolution}; what metrics read of another size is not the same."
            )


def _not_scored(student: dict[str, Any]) -> Iterator[str]:
    """A line for each reason why a scorer has no value of some of a student's images."""
    for where, scorer, reasons in _by_scorer(student["not_scored"]):
        for reason, number in reasons.items():
            yield (
                f"{student['title']}{where}: {scorer} has no value for {number} images, which its "
                f"means leave out: {reason}."
            )


def _truncated(students: Iterable[dict[str, Any]]) -> list[str]:
    """A line for each scorer that reads only the start of some prompts, alike for all students."""
    numbers: dict[str, int] = {}
    for student in students:
        for _, scorer, number in _by_scorer(student["truncated_prompts"]):
            numbers[scorer] = max(number, numbers.get(scorer, 0))
    return [
        f"{scorer} reads only the start of {number} prompts, which are longer than it can read."
        for scorer, number in numbers.items()
    ]


def _by_scorer(noted: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(of which seed, in words; scorer; what is noted)."""
    for name, value in noted.items():
        if name.isdecimal():
            yield from ((f", seed {name}", scorer, one) for scorer, one in value.items())
        else:
            yield "", name, value


def values(num_seeds: int) -> str:
    """What a value and its interval are over."""
    if num_seeds == 1:
        return "Mean over all prompts and its 95 % interval over prompts."
    return (
        f"Mean over {num_seeds} seeds and its 95 % interval over seeds and prompts, of distances "
        "between distributions the t-interval over the seeds."
    )


def differences(num_seeds: int) -> str:
    """What a difference, its interval and its p-value are over."""
    if num_seeds == 1:
        return "Student minus baseline on the same prompts and noise, with its 95 % interval."
    return (
        "Student minus baseline with each seed, on the same prompts and noise; the mean over "
        f"{num_seeds} seeds with its 95 % interval and its p over seeds and prompts, of distances "
        "between distributions the t-interval over the seeds and the paired t-test's p."
    )


def family(record: dict[str, Any]) -> str:
    """How many comparisons there are, and which of them Holm corrects together."""
    rows = record["differences"]
    students, metrics = ({d[key] for d in rows} for key in ("student", "metric"))
    untested = sum(d["p_value"] is None for d in rows)
    aside = f"; the {untested} without a p-value do not count" if untested else ""
    return (
        f"{len(rows)} comparisons: {len(students)} students with the baseline on {len(metrics)} "
        f"metrics over all prompts. p is corrected over all of them together (Holm){aside}; an "
        "outcome is named only where it is below 0.05."
    )


def gating(suite: Mapping[str, Any]) -> str:
    """Which claims and metrics gate, and by which margins."""
    num_own = sum(claim["metric"] is not None for claim in suite["claims"])
    num = len(suite["claims"])
    own = {m: _margin(m, row) for m, row in suite.get("gate", {}).items()}
    titles = [METRICS[m].title + own.get(m, "") for m in own or gated_by_default(suite["metrics"])]
    which = "the suite's own margins" if own else "margins where a suite names none"
    claims = (
        f"{num} claims, {num_own} of them on a metric, are outside that correction, and none "
        "gates: a verdict changes no exit code. "
    )
    gates = f"What gates in a check with a baseline: {', '.join(titles) or 'nothing'} ({which})."
    return (claims if num else "") + gates


def _margin(metric: str, row: Mapping[str, float | None]) -> str:
    """What a metric may lose, in the words of the suite's gate."""
    row = {name: value for name, value in row.items() if value is not None}
    ((name, value),) = row.items()
    size = value or 0.0
    if name == "margin":
        return f" by {size * METRICS[metric].scale:g}{unit_of(metric, difference=True)}"
    return f" by {size:g} spreads" if name == "spreads" else f" by a share of {size:g}"
