"""Our values beside those of the authors' packages, of the same image files and weights.

Both compute in float32 on the CPU, where sums in another order are all that may differ.
"""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ddmd_bench.files.arrays import read_features
from ddmd_bench.files.decoding import Unusable, open_image, upright
from ddmd_bench.measuring.aggregates import aggregate
from ddmd_bench.measuring.few_images import lacking
from ddmd_bench.measuring.folder import FolderImages, measured_folder
from ddmd_bench.measuring.measure import Measured
from ddmd_bench.measuring.reference import find_statistics, load_reference
from ddmd_bench.scorers import METRICS, SCORERS, loaded, needed_scorers
from ddmd_bench.scorers.weights import require
from ddmd_bench.vendors.asking import ask
from ddmd_bench.vendors.catalogue import SAME_FILES, VENDORS, Vendor
from ddmd_bench.vendors.qwen2_vl import write_base

ALL = "all images"
_ORIENTATION = 0x0112  # of EXIF
_READ = ("L", "LA", "P", "RGB", "RGBA")  # modes that show what they hold
Progress = Callable[[str, int, int], None]  # of what, done, total


class Compared(NamedTuple):
    """One value of ours beside theirs."""

    metric: str  # or the features of a scorer
    package: str
    file_name: str  # or `ALL`
    prompt: str
    ours: float  # NaN: missing
    theirs: float  # NaN: missing
    difference: float  # ours - theirs, divided by theirs where that is what is allowed; NaN: none
    allowed: float
    note: str  # why a value is missing, or what they were given instead of the file

    @property
    def size(self) -> float:
        """The difference as a multiple of what is allowed; -1 where nothing was compared."""
        return abs(self.difference) / self.allowed if math.isfinite(self.difference) else -1.0


class Job(NamedTuple):
    """Metrics that one process of theirs computes."""

    vendor: Vendor
    metrics: list[str]


def jobs_of(metrics: Iterable[str]) -> list[Job]:
    """Scores one by one, so that one network at a time is in memory; distances together."""
    found: dict[tuple[str, str], Job] = {}
    for name in metrics:
        vendor = VENDORS[name]
        alone = name if METRICS[name].distance is None else ""
        found.setdefault((vendor.job, alone), Job(vendor, [])).metrics.append(name)
    return list(found.values())


def crosscheck(
    images: FolderImages,
    metrics: Sequence[str],
    reference: str | None,
    output: Path,
    python: Path,
    progress: Progress,
) -> list[Compared]:
    """Every value of both sides, the largest difference first, by what its metric allows.

    Ours are kept in the output folder, so that they are computed once. They are asked only about
    images that ours have a value of: one that cannot be decoded, or is the same everywhere, is
    missing with its reason.
    """
    ours = measured_folder(
        images, metrics, output, "cpu", torch.float32,
        lambda done, total: progress("ours", done, total),
    )  # fmt: skip
    loaded.cache_clear()  # their networks are as large, and ours are done
    gc.collect()
    rows: list[Compared] = []
    with TemporaryDirectory() as scratch:
        given = [_given(path, Path(scratch), k) for k, path in enumerate(images.paths)]
        asking = _Asking(images, given, ours, reference, python, Path(scratch), progress)
        for job in jobs_of(metrics):
            compare = _scores if METRICS[job.metrics[0]].distance is None else _distances
            rows += compare(job, asking)
    return sorted(rows, key=lambda row: row.size, reverse=True)


class _Given(NamedTuple):
    path: Path
    note: str


class _Asking(NamedTuple):
    """What every job needs."""

    images: FolderImages
    given: Sequence[_Given]  # in the images' order
    ours: Measured
    reference: str | None
    python: Path  # the interpreter of their environment
    scratch: Path
    progress: Progress


def _given(path: Path, scratch: Path, k: int) -> _Given:
    """The file, or where its pixels are not what it shows, a copy that is upright with 8 bits a
    channel: the packages neither obey an EXIF tag nor scale 16 bits, and ours do."""
    whole = _Given(path.absolute(), "")
    try:
        shown = upright(path)
        with open_image(path) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1 and image.mode in _READ:
                return whole
    except Unusable:  # ours has no value of it, so that nobody is asked about it
        return whole
    copy = scratch / f"{k}.png"
    shown.save(copy)
    return _Given(copy, "upright copy with 8 bits a channel")


def _request(
    job: Job, asking: _Asking, rows: Iterable[int], settings: Mapping[str, str]
) -> dict[str, Any]:
    """What `authors.py` reads: the same weight files, images and prompts as ours."""
    files = {
        name: str(path)
        for scorer in needed_scorers(job.metrics)
        for weights in SCORERS[scorer].weights
        for name, path in require(weights).items()
    }
    made = {}
    if job.vendor.job == "hps_v3":
        from ddmd_bench.scorers.hps_v3.network import ARCHITECTURE

        made["base"] = str(base := asking.scratch / "base")
        base.mkdir()
        shutil.copy(files["tokenizer.json"], base)
        write_base(base, ARCHITECTURE)
    return {
        "metrics": job.metrics,
        "files": files,
        "settings": {**job.vendor.settings, **made, **settings},
        "images": [(str(asking.given[k].path), asking.images.rows[k]["prompt"]) for k in rows],
        "scratch": str(asking.scratch),
    }


def _scores(job: Job, asking: _Asking) -> Iterator[Compared]:
    """A row for each image."""
    (metric,), (package,) = job.metrics, job.vendor.packages
    (scorer,) = needed_scorers(job.metrics)
    values = asking.ours.table[metric].to_numpy(np.float64)
    known = [k for k, value in enumerate(values) if math.isfinite(value)]
    theirs: dict[int, tuple[float, str]] = {}
    request = _request(job, asking, known, {})
    for answer in ask(asking.python, job.vendor.job, request) if known else ():
        k = known[answer["image"]]
        value = math.nan if answer["value"] is None else float(answer["value"])
        notes = asking.given[k].note, answer.get("note", "")
        theirs[k] = value, "; ".join(filter(None, notes))
        asking.progress(f"{metric} by {package}", len(theirs), len(known))
    for k, row in enumerate(asking.images.rows):
        value, note = theirs.get(k, (math.nan, asking.ours.answers[scorer].missing.get(k, "")))
        yield Compared(
            metric, package, row["file_name"], row["prompt"], float(values[k]), value,
            _difference(float(values[k]), value, job.vendor), job.vendor.tolerance, note,
        )  # fmt: skip


def _distances(job: Job, asking: _Asking) -> Iterator[Compared]:
    """A row for each image, of the feature that differs most, and one for each package's distance.

    The real images' features are the reference's on both sides.
    """
    extractor = METRICS[job.metrics[0]].extractor
    assert extractor is not None, f"{job.metrics} compare features"
    assert asking.reference is not None, f"{job.metrics} compare with real images"
    folder = find_statistics(asking.reference)
    real = load_reference(folder, extractor)
    own = asking.ours.features[extractor]
    inside = np.isfinite(own).all(1)
    known = [int(k) for k in np.flatnonzero(inside)]
    file = asking.scratch / "features.npy"
    settings = {"features": str(file), "real": str((folder / f"{extractor}.npy").absolute())}
    first, *_ = job.vendor.packages
    values: list[tuple[str, str, float]] = []
    request = _request(job, asking, known, settings)
    for answer in ask(asking.python, job.vendor.job, request):
        if "done" in answer:
            asking.progress(f"features by {first}", answer["done"], len(known))
        else:
            values.append((answer["metric"], answer["package"], float(answer["value"])))
    rows, given = asking.images.rows, asking.given
    of = [(rows[k]["file_name"], rows[k]["prompt"], given[k].note) for k in known]
    yield from _features(own[known], read_features(file), first, of, extractor)
    for k in np.flatnonzero(~inside):
        row, why = rows[k], asking.ours.answers[extractor].missing.get(int(k), "")
        yield Compared(
            f"features of {extractor}", first, row["file_name"], row["prompt"], math.nan, math.nan,
            math.nan, SAME_FILES, why,
        )  # fmt: skip
    everywhere = np.ones(len(own), bool)
    for metric, package, theirs in values:
        value = aggregate(metric, asking.ours, everywhere, real, None).value
        why = lacking(metric, len(known), own.shape[1], real.num_images) or ""
        yield Compared(
            metric, package, ALL, "", value, theirs, _difference(value, theirs, VENDORS[metric]),
            VENDORS[metric].tolerance, why,
        )  # fmt: skip


def _features(
    own: NDArray[Any],
    theirs: NDArray[Any],
    package: str,
    of: Sequence[tuple[str, str, str]],
    extractor: str,
) -> Iterator[Compared]:
    """Features [n, d] of both, differences divided by the largest of theirs in all images."""
    largest = float(np.abs(theirs).max())
    most = np.abs(own - theirs).argmax(1)
    for k, (name, prompt, note) in enumerate(of):
        a, b = float(own[k, most[k]]), float(theirs[k, most[k]])
        yield Compared(
            f"features of {extractor}", package, name, prompt, a, b, (a - b) / largest, SAME_FILES,
            note,
        )  # fmt: skip


def _difference(ours: float, theirs: float, vendor: Vendor) -> float:
    return (ours - theirs) / (max(abs(theirs), 1e-12) if vendor.relative else 1.0)
