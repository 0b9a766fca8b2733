"""Score one student's images: one pass over the files, then intervals over prompts.

While its drawing goes on, the table of its images so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddmd_bench.errors import BenchError
from ddmd_bench.files import ranks
from ddmd_bench.files.arrays import read_features, write_npy
from ddmd_bench.files.decoding import Undecodable, Unread, decoded, upright
from ddmd_bench.files.device import default_device
from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.made import anew, require_made
from ddmd_bench.files.records import SO_FAR, mark_done, read_done, read_jsonl, seed_of, write_json
from ddmd_bench.files.tables import write_parquet
from ddmd_bench.measuring.aggregates import aggregate, cell_of, counted, shortcomings
from ddmd_bench.measuring.looks import rule_of
from ddmd_bench.measuring.measure import (
    Images,
    KeptAnswers,
    Measured,
    Row,
    answer_own,
    measure,
)
from ddmd_bench.measuring.reference import find_statistics, load_reference
from ddmd_bench.scorers import METRICS, needed_scorers, weights_sha256
from ddmd_bench.stats.frechet import RealFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

    from ddmd_bench.planning.plan import Plan
    from ddmd_bench.planning.task import Task


# What is read of metadata.jsonl, of a student's images and of the reference's.
IMAGE_ROW = {
    "file_name": str, "prompt_id": str, "prompt_set": str, "prompt": str, "image_index": int,
    "out_of_range": MAYBE_NUMBER,
}  # fmt: skip
REAL_ROW = {"prompt_id": str}


def score(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write a student's per-image metrics, features and aggregates; `done.json` last.

    Ranks share the images; the first one joins what all of them have kept, and writes.
    """
    metrics = plan.suite.metrics
    start, before = time.perf_counter(), _seconds_before(task.folder)
    drawing = plan.task("generate", task.student, task.seed)
    source = drawing.folder
    rows = _image_rows(plan, task.student, source)
    kept = KeptAnswers(task.folder.parents[1] / "answers" / source.name, plan.embeddings)
    dtype = getattr(torch, plan.suite.scoring.dtype)
    images = replace(_images(source, rows), ends=_ends(plan))
    how: dict[str, Any] = {
        "asked": plan.suite.metrics_of(),
        "progress": progress,
        "device": default_device(),
        "dtype": dtype,
    }
    if ranks.num() > 1:
        answer_own(images, metrics, kept, **how)
        if not ranks.is_first():
            return
    measured = measure(images, metrics, task.label, kept=kept, **how)
    write_parquet(task.folder / "per_image.parquet", measured.table)
    if plan.suite.until_settled is not None and not drawing.complete():
        seconds = time.perf_counter() - start + before
        so_far = {"key": task.key, "n": len(rows), "seconds": seconds}
        mark_done(task.folder, so_far, ["per_image.parquet"], SO_FAR)
        return
    reference = plan.shared("reference")
    aggregates = {name: _aggregates(name, plan, task, measured, reference) for name in metrics}
    for name, features in measured.features.items():
        write_npy(task.folder / f"features_{name}.npy", features)
    write_json(task.folder / "aggregates.json", aggregates)
    record = {
        "key": task.key,
        "n": len(rows),
        "n_expected": len(rows),
        "seconds": time.perf_counter() - start + before,
        "weights_sha256": weights_sha256(needed_scorers(metrics)),
        **shortcomings(measured),
    }
    features_files = (f"features_{name}.npy" for name in measured.features)
    files = ["per_image.parquet", *features_files, "aggregates.json"]
    mark_done(task.folder, record, files)


def _seconds_before(folder: Path) -> float:
    """What scoring took of earlier blocks of prompts."""
    return float((read_done(folder, SO_FAR) or {}).get("seconds", 0.0))


def _ends(plan: Plan) -> tuple[int, ...]:
    """Images after each block of prompts: what was said of one stays as more are drawn."""
    rule = rule_of(plan.suite)
    if rule is None:
        return ()
    per_prompt = next(iter(plan.suite.images_per_prompt().values()))  # the same of all sets
    return tuple(range(0, len(plan.prompts) * per_prompt, rule.block * per_prompt))


def _image_rows(plan: Plan, student: str, folder: Path) -> list[Row]:
    """The metadata of every image of the suite, in its one order: comparisons pair by row."""
    path = folder / "images" / "metadata.jsonl"
    if not path.is_file():
        raise BenchError(f"{path}: missing. Delete {folder} and run again")
    require_made(folder)
    rows = read_jsonl(path, IMAGE_ROW, anew(folder))
    images = plan.images_of(student)
    expected = [(i.prompt.prompt_id, i.image_index) for i in images]
    found = [(row["prompt_id"], row["image_index"]) for row in rows]
    if found != expected:
        lost, strange = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise BenchError(
            f"{path}: expected the suite's {len(expected)} images in order, found {len(found)}; "
            f"missing {lost[:3]}, not of the suite {strange[:3]}. Delete {folder} and run again"
        )
    return rows


def _images(folder: Path, rows: Sequence[Row]) -> Images:
    """The images that the harness wrote: what is wrong with a file has happened since."""
    paths = [folder / "images" / row["file_name"] for row in rows]

    def whole(path: Path, read: Callable[[Path], Image] = decoded) -> Image:
        try:
            return read(path)
        except Undecodable as error:
            raise BenchError(f"{path}: {error}. Delete {folder} and run again") from error
        except Unread as error:
            raise BenchError(f"{path}: {error}. Run again once it can be") from error

    @cache
    def size() -> tuple[int, int]:
        return whole(paths[0], upright).size  # of a blank one too: the others have values

    def read(row: int) -> Image:
        image = whole(paths[row])
        if image.size != size():
            raise BenchError(
                f"{paths[row]}: {image.width} x {image.height} px, but {paths[0].name} has "
                f"{size()[0]} x {size()[1]}. Images of a suite have one size"
            )
        return image

    return Images(rows, [str(path) for path in paths], read)


def _aggregates(
    metric: str, plan: Plan, task: Task, measured: Measured, reference: Task | None
) -> dict[str, dict[str, Any]]:
    """The metric over all images and over each prompt set."""
    extractor, result = METRICS[metric].extractor, {}
    for group in ("all", *plan.suite.prompts):
        inside = counted(metric, measured.table, group, plan.suite.metrics_of())
        prompts = measured.table["prompt_id"].to_numpy()[inside]
        real = _real_features(plan, reference, extractor, prompts) if extractor else None
        # No student in the seed: all students are resampled alike.
        resampled = plan.suite.intervals_over == "prompts"
        seed = seed_of("score", task.seed, metric, group) if resampled else None
        interval = aggregate(metric, measured, inside, real, seed)
        result[group] = cell_of(interval, inside)
    return result


def _real_features(
    plan: Plan, reference: Task | None, extractor: str, prompts: NDArray[Any]
) -> RealFeatures | None:
    """The suite's statistics, the same for all prompts, or the real scenes of these."""
    if plan.suite.reference.statistics is not None:
        return load_reference(find_statistics(plan.suite.reference.statistics), extractor)
    if reference is None:
        return None
    folder = reference.folder
    path = folder / f"features_{extractor}.npy"
    if not path.is_file():
        raise BenchError(f"{path}: missing. Delete {folder} and run again")
    require_made(folder, [path.name, "metadata.jsonl"])
    features = read_features(path, anew(folder))
    rows = read_jsonl(folder / "metadata.jsonl", REAL_ROW, anew(folder))
    if len(rows) != len(features) or not np.isfinite(features).all():
        raise BenchError(
            f"{path}: expected finite features [{len(rows)}, d] beside metadata.jsonl, found "
            f"shape {features.shape}. Delete {folder} and run again"
        )
    shown = np.array([row["prompt_id"] for row in rows])
    inside = np.isin(shown, prompts.astype(str))
    return RealFeatures(features[inside], shown[inside])
