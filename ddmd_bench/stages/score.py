"""Score one student's images: one pass over the files, then intervals over prompts."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.images import image_ids
from ddmd_bench.records import (
    finite_or_none,
    mark_done,
    read_jsonl,
    seed_of,
    write_json,
    write_whole,
)
from ddmd_bench.scorers import (
    BATCH_SIZE,
    METRICS,
    ScoredImages,
    extract,
    joined,
    needed_scorers,
    weights_sha256,
)
from ddmd_bench.scorers.images import diversity
from ddmd_bench.scorers.refusals import refuse_constant, refuse_not_finite
from ddmd_bench.stats.frechet import Reference, frechet_interval
from ddmd_bench.stats.intervals import Interval, mean_interval

if TYPE_CHECKING:
    from ddmd_bench.plan import Plan, Task

Row = dict[str, Any]
MISSING = float("nan")


_IDENTITY = ("prompt_id", "prompt_set", "image_index")


def score(plan: Plan, task: Task, progress: Callable[[int, int], None]) -> None:
    """Write a student's per-image metrics, features and aggregates; `done.json` last."""
    metrics = plan.suite.metrics
    start = time.perf_counter()
    source = plan.task("generate", task.student, task.seed).folder
    rows = _image_rows(plan, source)
    scorers = needed_scorers(metrics)
    scored, diversities = _one_pass(source, rows, scorers, task.label, progress)
    table = _table(rows, metrics, scored, diversities)
    reference = plan.task("reference").folder
    aggregates = {
        name: _aggregate(name, plan, task, table, scored.features, reference) for name in metrics
    }
    _write_parquet(task.folder / "per_image.parquet", table)
    for name, features in scored.features.items():
        _write_npy(task.folder / f"features_{name}.npy", features)
    write_json(task.folder / "aggregates.json", aggregates)
    record = {
        "key": task.key,
        "n": len(rows),
        "n_expected": len(rows),
        "seconds": time.perf_counter() - start,
        "weights_sha256": weights_sha256(scorers),
    }
    mark_done(task.folder, record)


def _image_rows(plan: Plan, folder: Path) -> list[Row]:
    """The metadata of every image of the suite, in its one order: comparisons pair by row."""
    path = folder / "images" / "metadata.jsonl"
    if not path.is_file():
        raise BenchError(f"{path}: missing. Delete {folder} and run again")
    rows = read_jsonl(path)
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    expected = [(i.prompt.prompt_id, i.image_index) for i in images]
    found = [(row["prompt_id"], row["image_index"]) for row in rows]
    if found != expected:
        lost, strange = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise BenchError(
            f"{path}: expected the suite's {len(expected)} images in order, found {len(found)}; "
            f"missing {lost[:3]}, not of the suite {strange[:3]}. Delete {folder} and run again"
        )
    return rows


def _decode(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H, W, 3]."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise BenchError(f"{path}: missing. Delete {path.parents[1]} and run again") from error
    # Pillow reports a broken chunk of a PNG as a SyntaxError, a cut file as an OSError.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise BenchError(
            f"{path}: cannot be decoded ({error}). Delete {path.parents[1]} and run again"
        ) from error


def _iter_batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Whole prompts together, since diversity compares the images of one; about BATCH_SIZE rows."""
    batch: list[Row] = []
    for row in rows:
        whole = batch and row["prompt_id"] != batch[-1]["prompt_id"]
        if whole and len(batch) >= BATCH_SIZE:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _one_pass(
    folder: Path,
    rows: list[Row],
    scorers: list[str],
    student: str,
    progress: Callable[[int, int], None],
) -> tuple[ScoredImages, list[float]]:
    """Decode each image once and hand it to every scorer; also the diversity of its prompt."""
    parts: list[ScoredImages] = []
    diversities: list[float] = []
    distinct: dict[bytes, Path] = {}
    for batch in _iter_batches(rows):
        paths = [folder / "images" / row["file_name"] for row in batch]
        images = _decode_batch(paths)
        for path, image in zip(paths, images, strict=True):
            distinct.setdefault(sha256(image.numpy().tobytes()).digest(), path)
        parts.append(extract(images, [row["prompt"] for row in batch], scorers))
        refuse_not_finite(student, parts[-1], paths)
        diversities += _diversity(images, [row["prompt_id"] for row in batch])
        progress(len(diversities), len(rows))
    scored = joined(parts)
    refuse_constant(student, scored, list(distinct.values()))
    return scored, diversities


def _decode_batch(paths: Sequence[Path]) -> Tensor:
    """Images uint8 [B, 3, H, W] of one size."""
    images = [_decode(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise BenchError(
                f"{path}: {image.shape[1]} x {image.shape[0]} px, but {paths[0].name} has "
                f"{images[0].shape[1]} x {images[0].shape[0]}. Images of a suite have one size"
            )
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _diversity(images: Tensor, prompt_ids: Sequence[str]) -> list[float]:
    """Each prompt's diversity, repeated for each of its images."""
    x = images.float() / 127.5 - 1
    ids = np.array(prompt_ids)
    value = {name: diversity(x[torch.from_numpy(ids == name)]) for name in set(prompt_ids)}
    return [value[name] for name in prompt_ids]


def _table(
    rows: Sequence[Row], metrics: Sequence[str], scored: ScoredImages, diversities: list[float]
) -> pd.DataFrame:
    """One row an image: the suite's own metrics, then what the scorers say beside them."""
    # Counted where the images were made: a file holds clipped values only.
    shares = [MISSING if row["out_of_range"] is None else row["out_of_range"] for row in rows]
    known: dict[str, Any] = {"saturation": shares, "diversity": diversities}
    for columns in scored.columns.values():
        known |= columns
    wanted = [name for name in metrics if METRICS[name].kind != "distribution"]
    beside = [name for name in known if name not in METRICS]
    table = pd.DataFrame({name: [row[name] for row in rows] for name in _IDENTITY})
    for name in [*wanted, *beside]:
        table[name] = np.asarray(known[name], np.float64)
    return table


def _aggregate(
    metric: str,
    plan: Plan,
    task: Task,
    table: pd.DataFrame,
    features: dict[str, NDArray[np.float32]],
    reference: Path,
) -> dict[str, dict[str, Any]]:
    """The metric over all images and over each prompt set."""
    row, result = METRICS[metric], {}
    for group in ("all", *plan.suite.prompts):
        inside = _inside(table["prompt_set"].to_numpy(), group)
        if row.kind == "prompt":  # its value stands on each image of the prompt; count it once
            inside &= ~table["prompt_id"].duplicated().to_numpy()
        groups = table["prompt_id"].to_numpy()[inside]
        if row.extractor is None:
            interval = mean_interval(table[metric].to_numpy()[inside], groups)
        else:
            real = _real_features(reference, row.extractor, group)
            # No student in the seed: all students are resampled alike.
            seed = seed_of("score", task.seed, metric, group)
            interval = _distance(features[row.extractor][inside], real, groups, seed)
        result[group] = {
            "value": finite_or_none(interval.value),
            "low": finite_or_none(interval.low),
            "high": finite_or_none(interval.high),
            "n": interval.n,
            "n_expected": int(inside.sum()),
        }
    return result


def _inside(prompt_sets: NDArray[Any], group: str) -> NDArray[np.bool_]:
    everything = np.ones(len(prompt_sets), bool)
    return everything if group == "all" else np.asarray(prompt_sets == group)


def _distance(
    features: NDArray[np.float32], real: Reference, groups: NDArray[Any], seed: int
) -> Interval:
    """Missing where either side has too few images for a covariance of full rank."""
    if min(len(features), len(real.features)) < features.shape[1] + 1:
        return Interval(MISSING, MISSING, MISSING, len(features))
    return frechet_interval(features, real, groups, seed=seed)


def _real_features(folder: Path, extractor: str, group: str) -> Reference:
    """Features of the real scenes of one group's prompts."""
    path = folder / f"features_{extractor}.npy"
    if not path.is_file():
        raise BenchError(f"{path}: missing. Delete {folder} and run again")
    features = np.load(path, allow_pickle=False)
    rows = read_jsonl(folder / "metadata.jsonl")
    if features.ndim != 2 or len(rows) != len(features) or not np.isfinite(features).all():
        raise BenchError(
            f"{path}: expected finite features [{len(rows)}, d] beside metadata.jsonl, found "
            f"shape {features.shape}. Delete {folder} and run again"
        )
    inside = _inside(np.array([row["prompt_set"] for row in rows]), group)
    return Reference(features[inside], np.array([row["prompt_id"] for row in rows])[inside])


def _write_parquet(path: Path, table: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


def _write_npy(path: Path, array: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(path, buffer.getvalue())
