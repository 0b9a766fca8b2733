"""Images that no metric should be asked about: black, of one colour, repeated, without a value."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ddmd_bench.files.decoding import Unusable, upright
from ddmd_bench.reporting.checked import Held
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS
from ddmd_bench.scorers.blank import is_black, is_one_colour


class Defects(NamedTuple):
    """Names of a student's image files by what is wrong with them."""

    num: int
    found: dict[str, list[str]]


def defects_of(paths: Iterable[Path]) -> Defects:
    """Every image is decoded; `repeated` are files that are the same as one before them."""
    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_look, paths))
    found: dict[str, list[str]] = {"black": [], "of one colour": [], "broken": []}
    seen: Counter[str] = Counter()
    repeated = []
    for path, (kind, digest) in zip(paths, looks, strict=True):
        if kind:
            found[kind].append(path.name)
        elif seen[digest]:
            repeated.append(path.name)
        seen[digest] += 1
    return Defects(len(paths), {**found, "repeated": repeated})


def _look(path: Path) -> tuple[str, str]:
    try:
        image = upright(path).convert("RGB")
    except Unusable:
        return "broken", ""
    pixels = np.asarray(image)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    if is_black(pixels):
        return "black", digest
    return ("of one colour" if is_one_colour(pixels) else ""), digest


def held_pictures(run: RunFiles, new: str, old: str, metrics: Collection[str]) -> Iterator[Held]:
    """A student's images beside another's: failed is what it has more of. Images that are no longer
    here are not looked at; of a baseline without them it cannot be told, unless none is whole."""
    if (ours := _defects(run, new)) is not None:
        # The other's excuse what the student has of them; where it has none nobody asks.
        theirs = _defects(run, old) if any(ours.found.values()) else None
        for kind, names in ours.found.items():
            known = len(theirs.found[kind]) if theirs else None
            yield _of_kind(f"{new}, {kind}", names, ours.num, known)
    if not metrics:
        return
    # What is compared leaves out images without a value: to have none is no way to be better.
    more, lost, metric = max(
        (
            (now - was, now, metric)
            for metric in metrics
            for now, was in [(_lacking(run, new, metric), _lacking(run, old, metric))]
        ),
        default=(0, 0, ""),
    )
    if not metric:
        return
    text = f"{lost} have no value of {METRICS[metric].title}, {lost - more} of the baseline's"
    yield _held(f"{new}, not scored", text, "failed" if more > 0 else "ok")


def _of_kind(name: str, names: list[str], num: int, known: int | None) -> Held:
    """So many images have a defect, and so many of the baseline's, None where nobody knows."""
    text = f"{len(names)} of {num} images"
    if not names:
        return _held(name, text, "ok")
    some = f"e.g. {', '.join(names[:3])}"
    if known is not None:
        text = f"{text}, {known} of the baseline's, {some}"
        return _held(name, text, "failed" if len(names) > known else "ok")
    # The baseline was scored: not all of its images can be like this.
    told = f"{text}, {some}; the baseline's images are not here"
    return _held(name, told, "failed" if len(names) == num else "too few")


def _held(name: str, text: str, status: Literal["ok", "failed", "too few"]) -> Held:
    return Held("pictures", name, status, text, 0.0 if status == "ok" else math.inf)


def _defects(run: RunFiles, student: str) -> Defects | None:
    """Over all seeds; None where files are no longer here."""
    each = [one.images for one in run.students[student].values()]
    if not all(each):
        return None
    looked = [defects_of(images.values()) for images in each]
    kinds = {kind: [n for one in looked for n in one.found[kind]] for kind in looked[0].found}
    return Defects(sum(one.num for one in looked), kinds)


def _lacking(run: RunFiles, student: str, metric: str) -> int:
    tables = [one.per_image for one in run.students[student].values()]
    return sum(int(t[metric].isna().sum()) for t in tables if t is not None and metric in t)
