"""From images to a table of one row an image, and features: one pass, kept on disk in parts.

The score stage, the `score` command and the evaluation of a student in training share it; they
differ in where the images come from.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ddmd_bench.files import ranks
from ddmd_bench.files.decoding import Unusable
from ddmd_bench.files.locks import locked, locked_together
from ddmd_bench.files.records import content_key, file_sha256
from ddmd_bench.files.remembered import remembered
from ddmd_bench.files.versions import scorer_versions
from ddmd_bench.measuring.aggregates import MetricsOf
from ddmd_bench.measuring.answers import PART_SIZE, joined, part_path, read_part, write_part
from ddmd_bench.measuring.one_pass import CHUNK_SIZE, OnePass
from ddmd_bench.measuring.per_image import per_image_table
from ddmd_bench.measuring.refusals import refuse_no_answer, refuse_same_answers
from ddmd_bench.measuring.sheets import Answer, Item
from ddmd_bench.measuring.turns import turns
from ddmd_bench.scorers import needed_scorers, weights_sha256

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]


@dataclass(frozen=True)
class Images:
    """Images to score, those of one prompt beside each other."""

    rows: Sequence[Row]  # prompt_id, prompt_set, prompt, image_index and out_of_range of each
    names: Sequence[str]  # what an error calls each; the path of one that is a file
    open: Callable[[int], Image]  # raises `Unusable` where one cannot be scored
    ends: Sequence[int] = ()  # rows, rising, where answers that are kept together end too

    def sha256(self) -> list[str | None]:
        """Of the bytes of each that is a file."""
        files = [Path(name) for name in self.names]
        found = remembered("scored_images", (path for path in files if path.is_file()), file_sha256)
        return [found.get(path) for path in files]


class Measured(NamedTuple):
    """What was measured on images, rows in their order."""

    table: pd.DataFrame  # the metrics' own columns, then what the scorers say beside them
    features: dict[str, NDArray[np.float32]]  # scorer -> [n, d], NaN where missing
    answers: dict[str, Answer]


@dataclass(frozen=True)
class _Part:
    """Images whose answers are kept together."""

    rows: slice
    stamp: str
    files: Mapping[str, Path]  # by scorer; none where nothing is kept
    answers: dict[str, Answer]  # by scorer

    @property
    def num_images(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def put(self, new: Mapping[str, Answer]) -> None:
        """Keep what scorers have said of it."""
        self.answers.update(new)
        for name in new.keys() & self.files.keys():
            if not new[name].unread:  # they are asked for again
                write_part(self.files[name], new[name], self.stamp)

    def chunks(self, images: Images) -> Iterator[slice]:
        """Its rows, as many as are answered together."""
        for chunk in whole_prompts(images.rows[self.rows]):
            yield slice(self.rows.start + chunk.start, self.rows.start + chunk.stop)


class _Progress:
    """Tells how many images are done, where each is done once for every scorer."""

    def __init__(self, num_images: int, num_scorers: int, tell: Callable[[int, int], None]) -> None:
        self.num_images, self.num_scorers, self.tell = num_images, num_scorers, tell
        self.answers = 0

    def add(self, num_images: int, num_scorers: int) -> None:
        """So many scorers have answered to so many images."""
        self.answers += num_images * num_scorers
        done = self.answers // self.num_scorers if self.num_scorers else self.num_images
        if done:
            # A scorer that was set aside begins a part anew.
            self.tell(min(done, self.num_images), self.num_images)


@dataclass(frozen=True)
class KeptAnswers:
    """Where a pass keeps what it has computed."""

    answers: Path  # of one student's images
    encoded_prompts: Path  # by the scorers, of every student and suite


def scorer_key(scorer: str, dtype: torch.dtype = torch.float32) -> str:
    """What a scorer's answers depend on beside the image and the prompt."""
    weights = weights_sha256([scorer])
    return content_key([weights, scorer_versions([scorer]), str(dtype)])


def whole_prompts(rows: Sequence[Row], size: int = CHUNK_SIZE) -> Iterator[slice]:
    """Parts of about `size` rows that split no prompt: diversity compares the images of one."""
    start = 0
    for k in range(1, len(rows)):
        whole = rows[k]["prompt_id"] != rows[k - 1]["prompt_id"]
        if whole and k - start >= size:
            yield slice(start, k)
            start = k
    if rows:
        yield slice(start, len(rows))


def _kept_together(images: Images) -> Iterator[slice]:
    """Rows whose answers one file keeps."""
    ends = [end for end in images.ends if 0 < end < len(images.rows)]
    for start, end in pairwise([0, *ends, len(images.rows)]):
        for part in whole_prompts(images.rows[start:end], PART_SIZE):
            yield slice(start + part.start, start + part.stop)


def measure(
    images: Images,
    metrics: Sequence[str],
    student: str,
    *,
    kept: KeptAnswers | None = None,
    asked: MetricsOf | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Measured:
    """Hand each image to every scorer that the metrics need, in one pass if they fit into memory.

    `asked` names the metrics of each prompt set; without it all are for all. What one scorer has
    said is kept even where another fails.
    """
    scorers, wanted = needed_scorers(metrics), _wanted(images, metrics, asked)
    ranges = [*_kept_together(images)]
    with locked(kept.answers) if kept else nullcontext():
        parts = _all_parts(images, ranges, scorers, wanted, kept, progress, device, dtype)
    answers = {name: joined([part.answers[name] for part in parts]) for name in scorers}
    prompts = [row["prompt_id"] for row in images.rows]
    for name, answer in answers.items():
        refuse_no_answer(name, student, answer)
        refuse_same_answers(name, student, answer, prompts, lambda: _two_that_differ(images))
    features = {name: a.features for name, a in answers.items() if a.features is not None}
    return Measured(per_image_table(images.rows, metrics, answers, asked), features, answers)


def answer_own(
    images: Images,
    metrics: Sequence[str],
    kept: KeptAnswers,
    *,
    asked: MetricsOf | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Keep what the scorers say of this rank's parts: when all ranks have, `measure` finds all."""
    ranges = ranks.dealt([*_kept_together(images)])
    wanted = _wanted(images, metrics, asked)
    with locked_together(kept.answers):
        _all_parts(images, ranges, needed_scorers(metrics), wanted, kept, progress, device, dtype)


def _wanted(
    images: Images, metrics: Sequence[str], asked: MetricsOf | None
) -> dict[str, frozenset[str]]:
    """The scorers of each prompt set."""
    return {
        prompt_set: frozenset(needed_scorers(asked[prompt_set] if asked else metrics))
        for prompt_set in {row["prompt_set"] for row in images.rows}
    }


def _all_parts(
    images: Images,
    ranges: Sequence[slice],
    scorers: Sequence[str],
    wanted: Mapping[str, frozenset[str]],
    kept: KeptAnswers | None,
    progress: Callable[[int, int], None],
    device: str,
    dtype: torch.dtype,
) -> list[_Part]:
    """Parts of these rows with every scorer's answers: those that are kept, and the others' now."""
    keys = {name: scorer_key(name, dtype) for name in scorers}
    encoded = partial(_encoded_prompts_folder, kept.encoded_prompts, keys) if kept else None
    digests = images.sha256() if kept else []
    parts = [_part(images, rows, kept, keys, wanted, digests[rows]) for rows in ranges]
    lacking: dict[tuple[str, ...], list[_Part]] = defaultdict(list)
    for part in parts:
        lacking[tuple(name for name in scorers if name not in part.answers)].append(part)
    told = _Progress(sum(part.num_images for part in parts), len(scorers), progress)
    for names, of_parts in lacking.items():
        told.add(sum(part.num_images for part in of_parts), len(scorers) - len(names))
        for one_pass in turns(names, device, dtype, encoded):
            one_pass.read({name: _prompts(images, wanted, name) for name in one_pass.models})
            # A scorer that was set aside may have answered to some.
            todo = [part for part in of_parts if one_pass.models.keys() - part.answers.keys()]
            for part, new in _answered(one_pass, images, todo, wanted, told):
                part.put(new)
    return parts


def _part(
    images: Images,
    rows: slice,
    kept: KeptAnswers | None,
    keys: Mapping[str, str],
    wanted: Mapping[str, frozenset[str]],
    digests: Sequence[str | None],
) -> _Part:
    """A part with what is known of it: of images of these bytes with these prompts."""
    if kept is None:
        return _Part(rows, "", {}, {})
    asked_of = [(row["prompt"], row["prompt_set"]) for row in images.rows[rows]]
    prompts = [row["prompt_id"] for row in images.rows[rows]]
    # Where texts tell the prompts apart it is as it always was: what was said stays.
    alike = [prompts] if len({*prompts}) != len({*asked_of}) else []
    stamp = content_key([*zip(digests, asked_of, strict=True), *alike])
    known: dict[str, Answer] = {}
    files = {name: part_path(kept.answers, name, key, rows) for name, key in keys.items()}
    for name, path in files.items():
        asked = [name in wanted[row["prompt_set"]] for row in images.rows[rows]]
        answer = read_part(path, stamp)
        # Other rows may have been asked before: a metric was named for other prompts.
        if answer is not None and answer.not_asked == {k for k, one in enumerate(asked) if not one}:
            known[name] = answer
    return _Part(rows, stamp, files, known)


def _prompts(images: Images, wanted: Mapping[str, frozenset[str]], scorer: str) -> list[str]:
    """The prompts that a scorer reads, each once."""
    rows = (row for row in images.rows if scorer in wanted[row["prompt_set"]])
    return list(dict.fromkeys(row["prompt"] for row in rows))


def _answered(
    one_pass: OnePass,
    images: Images,
    parts: Sequence[_Part],
    wanted: Mapping[str, frozenset[str]],
    told: _Progress,
) -> Iterator[tuple[_Part, dict[str, Answer]]]:
    """Each part with its answers by scorer; the images of the next are decoded meanwhile."""
    chunks = [(part, rows) for part in parts for rows in part.chunks(images)]
    items = (
        [
            Item(
                images.names[k],
                images.rows[k]["prompt"],
                partial(images.open, k),
                wanted[images.rows[k]["prompt_set"]],
                images.rows[k]["prompt_id"],
            )
            for k in range(rows.start, rows.stop)
        ]
        for _, rows in chunks
    )
    found: dict[str, list[Answer]] = {name: [] for name in one_pass.models}
    for (part, rows), answers in zip(chunks, one_pass.over(items), strict=True):
        for name, answer in answers.items():
            found[name].append(answer)
        told.add(rows.stop - rows.start, len(answers))
        if rows.stop == part.rows.stop:
            found = {name: found[name] for name in answers}  # without those set aside
            yield part, {name: joined(of_part) for name, of_part in found.items()}
            found = {name: [] for name in found}


def _encoded_prompts_folder(folder: Path, keys: dict[str, str], scorer: str) -> Path:
    return folder / f"{scorer}-{keys[scorer]}"


def _two_that_differ(images: Images) -> tuple[str, str] | None:
    """The names of the first image and of one with other pixels."""
    first: tuple[str, bytes] | None = None
    for k, name in enumerate(images.names):
        try:
            digest = hashlib.sha256(images.open(k).convert("RGB").tobytes()).digest()
        except Unusable:
            continue
        if first is None:
            first = name, digest
        elif digest != first[1]:
            return first[0], name
    return None
