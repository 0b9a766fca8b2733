"""A study's folder: the page that people see, and the key that only its maker has.

Nothing below `page/` says whose an image is: names are hashes with a secret, pixels are written
anew without what files say beside them, the times of all files are alike.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddmd_bench.data.prompts import Prompt, head_in_proportion
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.locks import locked
from ddmd_bench.files.records import content_key, seed_of, write_json, write_whole
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, real_in, titles_of
from ddmd_bench.study.design import Showing, blocks_of, orders_of, screens_of, shares_of
from ddmd_bench.study.key import JUDGED, KEY, OBVIOUS, PAGE, SCHEMA
from ddmd_bench.study.pages import SMALL, study_page
from ddmd_bench.study.pictures import Pictures, broken, opened, size_of, write_pictures

LARGEST_SET = 4  # images on one screen
# Of a person's sets, those that are there to look at attention: as many obvious ones as repeated.
CHECKS = 0.05
FEWEST_FOR_CHECKS = 10  # sets of a person
# Whoever is right less often is left out; stated before anybody answers. Repeated sets leave nobody
# out: of images that are nearly alike an attentive person chooses otherwise the next time.
RULE = {"obvious": 0.8}
MADE = 1_700_000_000  # the time that all files have, in seconds since 1970


@dataclass(frozen=True)
class Asked:
    """What a study is of."""

    students: tuple[str, ...]
    num_prompts: int
    num_people: int
    seen_by: int
    form: str  # ranking, pairs or side-by-side
    ties: bool
    seed: int
    quality: int | None  # of lossy WebP; None: without loss


@dataclass(frozen=True)
class _Set:
    kind: str
    prompts: tuple[Prompt, ...]
    columns: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Made:
    """What every part of a study is made of."""

    asked: Asked
    run: RunFiles
    files: dict[str, StudentFiles]  # of each student
    prompts: Sequence[Prompt]
    pictures: Pictures
    generator: np.random.Generator


def make_study(
    run: RunFiles,
    prompts: Sequence[Prompt],
    asked: Asked,
    words: dict[str, Any],
    output: Path,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write the folder, or finish it; the key, which is what tells. Nothing else is asked again.

    The images are those of the suite's first seed, the first of each prompt.
    """
    files = {name: run.first_seed(name) for name in asked.students}
    chosen = head_in_proportion(prompts, asked.num_prompts)
    small = max(_size(files, chosen)) < SMALL
    made_of = content_key(
        [asdict(asked), run.fingerprint, run.suite.name, [p.prompt_id for p in chosen]]
    )
    with locked(output, "Wait until that has ended, or choose another folder"):
        drawn = {name: own.done.get("generate", {}).get("key") for name, own in files.items()}
        key = _known(output, made_of, drawn)
        secret = key["secret"] if key else secrets.token_hex(16)
        generator = np.random.default_rng(seed_of("study", asked.seed, made_of))
        pictures = Pictures(secret)
        made = _Made(asked, run, files, chosen, pictures, generator)
        sets, screens = (_whole_models if asked.form == "side-by-side" else _by_prompt)(made)
        record = {
            "schema": SCHEMA,
            "study": made_of,
            "suite": run.suite.name,
            "title": run.suite.title,
            "form": asked.form,
            "ties": asked.ties,
            "seed": asked.seed,
            "num_prompts": len(chosen),
            "num_people": asked.num_people,
            "seen_by": asked.seen_by,
            "fingerprint": run.fingerprint,
            "image_seed": run.suite.seeds[0],
            "secret": secret,
            "rule": RULE,
            "students": {
                name: {"title": titles_of(run.suite)[name], "drawn": drawn[name]}  # which images
                for name in asked.students
            },
            "images": pictures.facts,
            "sets": [
                {
                    "kind": one.kind,
                    "prompt_ids": [p.prompt_id for p in one.prompts],
                    "columns": [list(column) for column in one.columns],
                }
                for one in sets
            ],
            "screens": [[screen.told() for screen in person] for person in screens],
            "metrics": _metrics(files, chosen),
        }
        page = output / PAGE
        write_pictures(page / "images", pictures, asked.quality, progress)
        write_whole(
            page / "index.html", study_page(record, [_shown(one) for one in sets], words, small)
        )
        write_json(output / KEY, record)
        for path in page.rglob("*"):
            os.utime(path, (MADE, MADE))
    return record


def _size(files: dict[str, StudentFiles], prompts: Sequence[Prompt]) -> tuple[int, int]:
    """Of all images: every student has one of each prompt."""
    sizes: dict[tuple[int, int], str] = {}  # an image of each
    for name, own in files.items():
        lacking = [p.prompt_id for p in prompts if (p.prompt_id, 0) not in own.images]
        if lacking:
            why = own.missing or f"lacks images of {len(lacking)} prompts, e.g. {lacking[0]}"
            raise BenchError(
                f"{name} {why}. Each student needs an image of every prompt: run the suite to its "
                "end, or leave it out: --students"
            )
        for prompt in prompts:
            sizes.setdefault(size_of(own.images[prompt.prompt_id, 0]), f"{name} {prompt.prompt_id}")
    if len(sizes) > 1:
        told = ", ".join(f"{image} {w} x {h} px" for (w, h), image in sizes.items())
        raise BenchError(
            f"images of several sizes, which would tell whose they are: {told}. Leave some out, or "
            "bring them to one size first"
        )
    return next(iter(sizes))


def _known(output: Path, made_of: str, drawn: dict[str, str | None]) -> dict[str, Any] | None:
    """The key that is there; people may have answered to it."""
    from ddmd_bench.study.key import read_key

    if not (output / KEY).is_file():
        return None
    record = read_key(output).record
    if record["study"] != made_of:
        raise BenchError(
            f"{output}: holds another study ({record['study']}, this one is {made_of}), and there "
            "may be answers to it. Choose another folder: --output"
        )
    # The page keeps the pictures that it has: a key of today's would vouch for what nobody saw.
    other = [name for name, one in record["students"].items() if one.get("drawn") != drawn[name]]
    if other:
        raise BenchError(
            f"{output}: holds another study, of earlier images of {', '.join(other)}, and there "
            "may be answers to it. Choose another folder: --output"
        )
    return record


def _by_prompt(made: _Made) -> tuple[list[_Set], list[list[Showing]]]:
    """Sets of images of one prompt, each seen by as many people as were asked for."""
    size = 2 if made.asked.form == "pairs" else min(len(made.files), LARGEST_SET)
    names = list(made.files)
    blocks = blocks_of(len(made.prompts), len(names), size, made.generator)
    judged = [
        _Set(
            JUDGED,
            (prompt,),
            tuple((_picture(made, names[k], prompt),) for k in block),
        )
        for prompt, block in zip(made.prompts, blocks, strict=True)
    ]
    shares = shares_of(len(judged), made.asked.num_people, made.asked.seen_by, made.generator)
    smallest = min(map(len, shares))
    num_checks = max(1, round(CHECKS * smallest)) if smallest >= FEWEST_FOR_CHECKS else 0
    obvious = _obvious_sets(made, size, num_checks)
    # Numbers in the page say nothing of what a set is for.
    places = made.generator.permutation(len(judged) + len(obvious))
    sets: list[_Set] = [judged[0]] * len(places)
    for one, place in zip([*judged, *obvious], places, strict=True):
        sets[place] = one
    checks = [int(place) for place in places[len(judged) :]]
    screens = [
        screens_of([int(places[n]) for n in share], checks, num_checks, size, made.generator)
        for share in shares
    ]
    return sets, screens


def _obvious_sets(made: _Made, size: int, num: int) -> list[_Set]:
    """A whole image, first, beside its own tiles in disorder: whoever looks finds it."""
    good = _best_known(made.run) or made.run.suite.baseline
    images = made.run.first_seed(good).images or made.files[next(iter(made.files))].images
    known = [p for p in made.prompts if (p.prompt_id, 0) in images]
    sets = []
    for k in made.generator.permutation(len(known))[:num]:
        prompt = known[k]
        make = partial(opened, images[prompt.prompt_id, 0])
        columns = [(made.pictures.add(make, "", prompt, "whole"),)]
        for j in range(size - 1):
            disordered = partial(broken, make, int(made.generator.integers(2**32)))
            columns.append((made.pictures.add(disordered, "", prompt, f"broken {j}"),))
        sets.append(_Set(OBVIOUS, (prompt,), tuple(columns)))
    return sets


def _best_known(run: RunFiles) -> str | None:
    """Whose images nobody takes for broken: real ones, or a teacher's."""
    teachers = [n for n, one in run.suite.students.items() if one.source == "teacher"]
    return real_in(run.suite) or next(iter(teachers), None)


def _whole_models(made: _Made) -> tuple[list[_Set], list[list[Showing]]]:
    """Each student beside the baseline, or the first named, over all prompts: one vote a person."""
    baseline = made.run.suite.baseline
    if baseline not in made.files:
        baseline = next(iter(made.files))
    sets = [
        _Set(
            JUDGED,
            tuple(made.prompts),
            tuple(
                tuple(_picture(made, name, prompt) for prompt in made.prompts)
                for name in (baseline, other)
            ),
        )
        for other in made.files
        if other != baseline
    ]
    orders = orders_of(made.asked.num_people, 2, made.generator)
    screens = []
    for person in range(made.asked.num_people):
        numbers = made.generator.permutation(len(sets))
        sides = [np.roll(orders[person], int(number)) for number in numbers]
        screens.append(
            [Showing(int(n), tuple(map(int, o))) for n, o in zip(numbers, sides, strict=True)]
        )
    return sets, screens


def _picture(made: _Made, student: str, prompt: Prompt) -> str:
    path = made.files[student].images[prompt.prompt_id, 0]
    return made.pictures.add(partial(opened, path), student, prompt)


def _shown(one: _Set) -> dict[str, Any]:
    """What the page knows of a set."""
    return {"prompts": [p.text for p in one.prompts], "columns": [list(c) for c in one.columns]}


def _metrics(
    files: dict[str, StudentFiles], prompts: Iterable[Prompt]
) -> dict[str, dict[str, float | None]]:
    """Of each metric the value of each student's image of a prompt, where it was scored."""
    wanted = {prompt.prompt_id for prompt in prompts}
    return {
        metric: dict(values)
        for metric in sorted({m for own in files.values() for m in _columns(own)})
        if (values := list(_values(files, metric, wanted)))
    }


def _columns(own: StudentFiles) -> list[str]:
    from ddmd_bench.scorers import METRICS

    return [] if own.per_image is None else [c for c in own.per_image.columns if c in METRICS]


def _values(
    files: dict[str, StudentFiles], metric: str, wanted: set[str]
) -> Iterator[tuple[str, float | None]]:
    for student, own in files.items():
        if metric not in _columns(own) or own.per_image is None:
            continue
        table = own.per_image
        rows = table[(table["image_index"] == 0) & table["prompt_id"].isin(wanted)]
        for prompt_id, value in zip(rows["prompt_id"], rows[metric], strict=True):
            yield f"{student}|{prompt_id}", float(value) if np.isfinite(value) else None


def students_of(run: RunFiles, named: Sequence[str]) -> tuple[str, ...]:
    """Those that were named, or all but real images."""
    for name in named:
        if name not in run.suite.students:
            raise BenchError(unknown("student", name, run.suite.students))
    found = tuple(named) or tuple(n for n, s in run.suite.students.items() if s.source != "real")
    if len(found) < 2:
        raise BenchError(f"a study compares two students or more, found {', '.join(found) or 0}")
    return found
