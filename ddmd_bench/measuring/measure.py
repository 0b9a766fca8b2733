"""From images to numbers: a table of one row an image, features, and the metrics over them.

The score stage, the `score` command and the evaluation of a student in training share it; they
differ in where the images come from.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Unusable
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.files.records import content_key, finite_or_none
from ddmd_bench.measuring.answers import PART_SIZE, joined, part_path, read_part, write_part
from ddmd_bench.measuring.one_pass import Answer, Item, OnePass
from ddmd_bench.measuring.refusals import refuse_no_answer, refuse_same_answers
from ddmd_bench.scorers import METRICS, needed_scorers, weights_sha256
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.stats.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]
Asked = Mapping[str, Collection[str]]  # prompt set -> the metrics that are for its prompts
_IDENTITY = ("prompt_id", "prompt_set", "image_index")
CHUNK_SIZE = 64  # images that are decoded at once
# A scorer's answer depends on them, and on its weights.
_SOURCES = ("files/decoding.py", "measuring/one_pass.py", "scorers/**/[!m]*.py")


@dataclass(frozen=True)
class Images:
    """Images to score, those of one prompt beside each other."""

    rows: Sequence[Row]  # prompt_id, prompt_set, prompt, image_index and out_of_range of each
    names: Sequence[str]  # what an error calls each; the path of one that is a file
    open: Callable[[int], Image]  # raises `Unusable` where one cannot be scored

    def stamp(self, part: slice) -> str:
        """Changes with the prompts and with any file's size or time."""
        files = [Path(name) for name in self.names[part]]
        stats = [path.stat() if path.is_file() else None for path in files]
        return content_key(
            [
                [
                    path.name,
                    row["prompt"],
                    row["prompt_set"],
                    stat and [stat.st_size, stat.st_mtime_ns],
                ]
                for path, row, stat in zip(files, self.rows[part], stats, strict=True)
            ]
        )


class Measured(NamedTuple):
    """What was measured on images, rows in their order."""

    table: pd.DataFrame  # the metrics' own columns, then what the scorers say beside them
    features: dict[str, NDArray[np.float32]]  # scorer -> [n, d], NaN where missing
    answers: dict[str, Answer]


@dataclass(frozen=True)
class Kept:
    """Where a pass keeps what it has computed."""

    answers: Path  # of one student's images
    texts: Path  # prompts that the scorers encoded, of every student and suite


def scorer_key(scorer: str, dtype: torch.dtype = torch.float32) -> str:
    """What a scorer's answers depend on beside the image and the prompt."""
    weights = weights_sha256([scorer])
    return content_key([weights, source_sha256(*_SOURCES), str(dtype)])


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


def measure(
    images: Images,
    metrics: Sequence[str],
    student: str,
    *,
    kept: Kept | None = None,
    asked: Asked | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Measured:
    """Hand each image to every scorer that the metrics need, in one pass.

    `asked` names the metrics of each prompt set; without it all are for all. What one scorer has
    said is kept even where another fails.
    """
    scorers = needed_scorers(metrics)
    wanted = {
        prompt_set: frozenset(needed_scorers(asked[prompt_set])) if asked else frozenset(scorers)
        for prompt_set in {row["prompt_set"] for row in images.rows}
    }
    keys = {name: scorer_key(name, dtype) for name in scorers}
    texts = partial(_texts_of, kept.texts, keys) if kept else None
    parts: dict[str, list[Answer]] = {name: [] for name in scorers}
    panels: dict[tuple[str, ...], OnePass] = {}
    for rows in whole_prompts(images.rows, PART_SIZE):
        found: dict[str, Answer | None] = dict.fromkeys(scorers)
        if kept is not None:
            stamp = images.stamp(rows)
            paths = {name: part_path(kept.answers, name, keys[name], rows) for name in scorers}
            found = {name: read_part(path, stamp) for name, path in paths.items()}
        if lacking := tuple(name for name, answer in found.items() if answer is None):
            if lacking not in panels:
                panels[lacking] = OnePass(lacking, device, dtype, texts)
                panels[lacking].read({name: _prompts(images, wanted, name) for name in lacking})
            new = _pass(panels[lacking], images, rows, wanted, progress)
            for name, answer in new.items() if kept is not None else ():
                write_part(paths[name], answer, stamp)
            found |= new
        else:
            progress(rows.stop, len(images.rows))
        for name, known in found.items():
            assert known is not None, "every scorer has answered"
            parts[name].append(known)
    answers = {name: joined(part) for name, part in parts.items()}
    for name, answer in answers.items():
        refuse_no_answer(name, student, answer)
        refuse_same_answers(name, student, answer, lambda: _two_that_differ(images))
    features = {name: a.features for name, a in answers.items() if a.features is not None}
    return Measured(_table(images.rows, metrics, answers), features, answers)


def _prompts(images: Images, wanted: Mapping[str, frozenset[str]], scorer: str) -> list[str]:
    """The prompts that a scorer reads, each once."""
    rows = (row for row in images.rows if scorer in wanted[row["prompt_set"]])
    return list(dict.fromkeys(row["prompt"] for row in rows))


def cell_of(interval: Interval, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """A value as a record holds it, with how many of the rows inside went into it."""
    return {
        "value": finite_or_none(interval.value),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
        "n": interval.n,
        "n_expected": int(inside.sum()),
    }


def shortcomings(measured: Measured) -> dict[str, Any]:
    """For a record: how many images each scorer has no value of, by reason, and how many prompts
    are longer than it reads."""
    prompts = measured.table["prompt_id"].to_numpy()
    missing = {
        name: dict(Counter(answer.missing.values()).most_common())
        for name, answer in measured.answers.items()
        if answer.missing
    }
    truncated = {
        name: len({prompts[row] for row in answer.truncated})
        for name, answer in measured.answers.items()
        if answer.truncated
    }
    return {"missing": missing, "truncated_prompts": truncated}


def features_of(
    pictures: Sequence[Image], prompts: Sequence[str], extractors: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Features [n, d] of images in memory by extractor, none of them missing."""
    items = [
        Item(f"image {k} of prompt {prompt!r}", prompt, partial(_give, picture))
        for k, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True))
    ]
    return whole_features(OnePass(extractors), items)


def whole_features(
    panel: OnePass, items: Sequence[Item], progress: Callable[[int], None] = lambda done: None
) -> dict[str, NDArray[np.float32]]:
    """Features [n, d] by the panel's scorers; an image without any is an error that names it."""
    chunks = [items[k : k + CHUNK_SIZE] for k in range(0, len(items), CHUNK_SIZE)]
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in panel.models}
    done = 0
    for chunk, answers in zip(chunks, panel.over(chunks), strict=True):
        for name, answer in answers.items():
            if answer.missing:
                row, reason = next(iter(answer.missing.items()))
                raise BenchError(f"{chunk[row].name}: {reason} (scorer {name})")
            assert answer.features is not None, f"{name} extracts features"
            found[name].append(answer.features)
        done += len(chunk)
        progress(done)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _give(picture: Image) -> Image:
    return picture


def _pass(
    panel: OnePass,
    images: Images,
    rows: slice,
    wanted: Mapping[str, frozenset[str]],
    progress: Callable[[int, int], None],
) -> dict[str, Answer]:
    """One part's answers by scorer."""
    chunks = list(whole_prompts(images.rows[rows]))
    items = (
        [
            Item(
                images.names[k],
                images.rows[k]["prompt"],
                partial(images.open, k),
                wanted[images.rows[k]["prompt_set"]],
            )
            for k in range(rows.start + chunk.start, rows.start + chunk.stop)
        ]
        for chunk in chunks
    )
    found: dict[str, list[Answer]] = {name: [] for name in panel.models}
    for chunk, answers in zip(chunks, panel.over(items), strict=True):
        for name, answer in answers.items():
            found[name].append(answer)
        progress(rows.start + chunk.stop, len(images.rows))
    return {name: joined(part) for name, part in found.items()}


def _texts_of(folder: Path, keys: dict[str, str], scorer: str) -> Path:
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


def _table(rows: Sequence[Row], metrics: Sequence[str], answers: dict[str, Answer]) -> pd.DataFrame:
    # Counted where the images were made: a file holds clipped values only.
    shares = [math.nan if row["out_of_range"] is None else row["out_of_range"] for row in rows]
    known: dict[str, Any] = {"saturation": shares}
    for answer in answers.values():
        known |= answer.columns
    wanted = [name for name in metrics if METRICS[name].kind != "distribution"]
    beside = [name for name in known if name not in METRICS]
    table = pd.DataFrame({name: [row[name] for row in rows] for name in _IDENTITY})
    for name in [*wanted, *beside]:
        # A scorer that was asked about none of the images has no column.
        table[name] = np.asarray(known.get(name, [math.nan] * len(rows)), np.float64)
    return table


def in_group(prompt_sets: NDArray[Any], group: str) -> NDArray[np.bool_]:
    """Which images belong to a prompt set, or to 'all'."""
    everything = np.ones(len(prompt_sets), bool)
    return everything if group == "all" else np.asarray(prompt_sets == group)


def counted(
    metric: str, table: pd.DataFrame, group: str, asked: Asked | None = None
) -> NDArray[np.bool_]:
    """Which rows of the table a metric over a group counts: those of prompts that it is for."""
    sets = table["prompt_set"].to_numpy()
    inside = in_group(sets, group)
    if asked is not None:
        inside &= np.isin(sets, [name for name, metrics in asked.items() if metric in metrics])
    if METRICS[metric].kind == "prompt":  # its value stands on each image of the prompt
        inside &= ~table["prompt_id"].duplicated().to_numpy()
    return inside


def aggregate(
    metric: str,
    measured: Measured,
    inside: NDArray[np.bool_],
    real: RealFeatures | None,
    seed: int | None,
) -> Interval:
    """A metric over the rows inside; one of kind distribution compares them with `real`.

    Such a distance has its interval from resamples drawn with the seed; without one, none.
    """
    if not inside.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    groups = measured.table["prompt_id"].to_numpy()[inside]
    row = METRICS[metric]
    if row.extractor is None or row.distance is None:
        values = measured.table[metric].to_numpy()[inside]
        if row.counts is not None:
            times = np.nan_to_num(measured.table[row.counts].to_numpy()[inside]).astype(int)
            values, groups = values.repeat(times), groups.repeat(times)
        return mean_interval(values, groups)
    assert real is not None, f"{metric} compares with real images"
    features, distance = measured.features[row.extractor][inside], DISTANCES[row.distance]
    known = np.isfinite(features).all(1)
    features, groups = features[known], groups[known]
    # Missing where either side has too few images.
    if min(len(features), len(real.features)) < distance.fewest(features.shape[1]):
        return Interval(math.nan, math.nan, math.nan, len(features))
    if seed is None:
        value = distance.value(features, real)
        return Interval(value, math.nan, math.nan, len(features))
    return distance.interval(features, real, groups, seed)
