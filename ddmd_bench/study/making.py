"""A study's folder: the page that people see, and the key that only its maker has.

Nothing below `page/` says whose an image is: names are hashes with a secret, pixels are written
anew without what files say beside them, the times of all files are alike.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.data.prompts import Prompt, head_in_proportion
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.decoding import Undecodable, upright
from ddmd_bench.files.locks import locked
from ddmd_bench.files.records import content_key, seed_of, write_json, write_whole, written_whole
from ddmd_bench.reporting.runfiles import RunFiles, StudentFiles, real_in, titles_of
from ddmd_bench.study.design import Showing, blocks_of, orders_of, screens_of, shares_of
from ddmd_bench.study.key import JUDGED, KEY, OBVIOUS, PAGE, SCHEMA
from ddmd_bench.study.pages import SMALL, study_page

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST_SET = 4  # images on one screen
# Of a person's sets, those that are there to look at attention: as many obvious ones as repeated.
CHECKS = 0.05
FEWEST_FOR_CHECKS = 10  # sets of a person
# Whoever is right less often is left out; stated before anybody answers. Repeated sets leave nobody
# out: of images that are nearly alike an attentive person chooses otherwise the next time.
RULE = {"obvious": 0.8}
TILES = 4  # along each side of an image that is broken
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


class _Pictures:
    """The images that the page shows, by names that say nothing."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.facts: dict[str, dict[str, Any]] = {}
        self.make: dict[str, Callable[[], Image]] = {}

    def add(self, make: Callable[[], Image], student: str, prompt: Prompt, what: str = "") -> str:
        told = f"{self.secret}|{student}|{prompt.prompt_id}|{what}"
        name = f"{hashlib.sha256(told.encode()).hexdigest()[:20]}.webp"
        self.facts[name] = {"student": student, "prompt_id": prompt.prompt_id}
        self.make[name] = make
        return name


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
        key = _known(output, made_of)
        secret = key["secret"] if key else secrets.token_hex(16)
        generator = np.random.default_rng(seed_of("study", asked.seed, made_of))
        pictures = _Pictures(secret)
        if asked.form == "side-by-side":
            sets, screens = _whole_models(files, run, chosen, asked, pictures, generator)
        else:
            sets, screens = _by_prompt(files, run, chosen, asked, pictures, generator)
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
                name: {
                    "title": titles_of(run.suite)[name],
                    "drawn": files[name].done.get("generate", {}).get("key"),  # which images
                }
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
        _write_pictures(page / "images", pictures, asked.quality, progress)
        write_whole(
            page / "index.html", study_page(record, [_shown(one) for one in sets], words, small)
        )
        write_json(output / KEY, record)
        for path in page.rglob("*"):
            os.utime(path, (MADE, MADE))
    return record


def _size(files: dict[str, StudentFiles], prompts: Sequence[Prompt]) -> tuple[int, int]:
    """Of all images: every student has one of each prompt."""
    sizes: dict[tuple[int, int], str] = {}
    for name, own in files.items():
        lacking = [p.prompt_id for p in prompts if (p.prompt_id, 0) not in own.images]
        if lacking:
            why = own.missing or f"lacks images of {len(lacking)} prompts, e.g. {lacking[0]}"
            raise BenchError(
                f"{name} {why}. Each student needs an image of every prompt: run the suite to its "
                "end, or leave it out: --students"
            )
        size = _opened(own.images[prompts[0].prompt_id, 0]).size
        sizes.setdefault(size, name)
    if len(sizes) > 1:
        told = ", ".join(f"{name} {w} x {h} px" for (w, h), name in sizes.items())
        raise BenchError(
            f"images of several sizes, which would tell whose they are: {told}. Leave some out, or "
            "bring them to one size first"
        )
    return next(iter(sizes))


def _known(output: Path, made_of: str) -> dict[str, Any] | None:
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
    return record


def _by_prompt(
    files: dict[str, StudentFiles],
    run: RunFiles,
    prompts: Sequence[Prompt],
    asked: Asked,
    pictures: _Pictures,
    generator: np.random.Generator,
) -> tuple[list[_Set], list[list[Showing]]]:
    """Sets of images of one prompt, each seen by as many people as were asked for."""
    size = 2 if asked.form == "pairs" else min(len(files), LARGEST_SET)
    names = list(files)
    blocks = blocks_of(len(prompts), len(names), size, generator)
    judged = [
        _Set(
            JUDGED,
            (prompt,),
            tuple((_picture(files, names[k], prompt, pictures),) for k in block),
        )
        for prompt, block in zip(prompts, blocks, strict=True)
    ]
    shares = shares_of(len(judged), asked.num_people, asked.seen_by, generator)
    smallest = min(map(len, shares))
    num_checks = max(1, round(CHECKS * smallest)) if smallest >= FEWEST_FOR_CHECKS else 0
    obvious = _obvious_sets(run, files, prompts, size, num_checks, pictures, generator)
    # Numbers in the page say nothing of what a set is for.
    places = generator.permutation(len(judged) + len(obvious))
    sets: list[_Set] = [judged[0]] * len(places)
    for one, place in zip([*judged, *obvious], places, strict=True):
        sets[place] = one
    checks = [int(place) for place in places[len(judged) :]]
    screens = [
        screens_of([int(places[n]) for n in share], checks, num_checks, size, generator)
        for share in shares
    ]
    return sets, screens


def _obvious_sets(
    run: RunFiles,
    files: dict[str, StudentFiles],
    prompts: Sequence[Prompt],
    size: int,
    num: int,
    pictures: _Pictures,
    generator: np.random.Generator,
) -> list[_Set]:
    """A whole image, first, beside its own tiles in disorder: whoever looks finds it."""
    good = _best_known(run) or run.suite.baseline
    images = run.first_seed(good).images or files[next(iter(files))].images
    known = [p for p in prompts if (p.prompt_id, 0) in images]
    sets = []
    for k in generator.permutation(len(known))[:num]:
        prompt = known[k]
        make = partial(_opened, images[prompt.prompt_id, 0])
        columns = [(pictures.add(make, "", prompt, "whole"),)]
        for j in range(size - 1):
            broken = partial(_broken, make, int(generator.integers(2**32)))
            columns.append((pictures.add(broken, "", prompt, f"broken {j}"),))
        sets.append(_Set(OBVIOUS, (prompt,), tuple(columns)))
    return sets


def _best_known(run: RunFiles) -> str | None:
    """Whose images nobody takes for broken: real ones, or a teacher's."""
    teachers = [n for n, one in run.suite.students.items() if one.source == "teacher"]
    return real_in(run.suite) or next(iter(teachers), None)


def _whole_models(
    files: dict[str, StudentFiles],
    run: RunFiles,
    prompts: Sequence[Prompt],
    asked: Asked,
    pictures: _Pictures,
    generator: np.random.Generator,
) -> tuple[list[_Set], list[list[Showing]]]:
    """Each student beside the baseline, or the first named, over all prompts: one vote a person."""
    baseline = run.suite.baseline if run.suite.baseline in files else next(iter(files))
    sets = [
        _Set(
            JUDGED,
            tuple(prompts),
            tuple(
                tuple(_picture(files, name, prompt, pictures) for prompt in prompts)
                for name in (baseline, other)
            ),
        )
        for other in files
        if other != baseline
    ]
    orders = orders_of(asked.num_people, 2, generator)
    screens = []
    for person in range(asked.num_people):
        numbers = generator.permutation(len(sets))
        sides = [np.roll(orders[person], int(number)) for number in numbers]
        screens.append(
            [Showing(int(n), tuple(map(int, o))) for n, o in zip(numbers, sides, strict=True)]
        )
    return sets, screens


def _picture(
    files: dict[str, StudentFiles], student: str, prompt: Prompt, pictures: _Pictures
) -> str:
    path = files[student].images[prompt.prompt_id, 0]
    return pictures.add(partial(_opened, path), student, prompt)


def _opened(path: Path) -> Image:
    try:
        return upright(path).convert("RGB")
    except Undecodable as error:
        raise BenchError(f"{path}: {error}") from error


def _broken(make: Callable[[], Image], seed: int) -> Image:
    """Its tiles in another order, none at its own place."""

    image = make()
    width, height = image.width // TILES, image.height // TILES
    places = [
        (x * width, y * height, (x + 1) * width, (y + 1) * height)
        for y in range(TILES)
        for x in range(TILES)
    ]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(places))
    turned = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    result = image.copy()
    for source, target in turned.items():
        result.paste(image.crop(places[source]), places[target][:2])
    return result


def _write_pictures(
    folder: Path, pictures: _Pictures, quality: int | None, progress: Callable[[int, int], None]
) -> None:
    """Those that are not there yet; nothing that a file says beside its pixels goes along."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pictures.make:
            path.unlink()
    missing = [name for name in pictures.make if not (folder / name).is_file()]

    def write(name: str) -> None:
        with written_whole(folder / name) as temporary:
            options = {"lossless": True} if quality is None else {"quality": quality}
            pictures.make[name]().save(temporary, "WEBP", **options)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = len(pictures.make) - len(missing)
        for k, _ in enumerate(pool.map(write, missing), 1):
            progress(done + k, len(pictures.make))


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
