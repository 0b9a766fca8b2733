"""All prompts of a run inside its page: their texts, each student's values, where images lie.

Values are those of the suite's first seed, as are the pictures: of a prompt the mean over its
images, in 65,535 steps between a metric's least and largest value. 10,000 prompts of twelve
students and ten metrics are some 3 MB.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.measuring.aggregates import values_of
from ddmd_bench.reporting.escaping import visible
from ddmd_bench.reporting.figures import styles_in
from ddmd_bench.reporting.html.places import beside, left_files
from ddmd_bench.reporting.html.sheets import EMBEDDED, FOLDER, TILE, Layout, sheet_uri, sheets_key
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.scorers import METRICS

if TYPE_CHECKING:
    import pandas as pd

MISSING = 65535  # the code of a value that is not there
RIGHT, WRONG, UNJUDGED = 1, 0, 2


def browsing(record: dict[str, Any], run: RunFiles, folder: Path | None) -> dict[str, Any]:
    """What the page's browser reads: {packed, pictures}, both data URIs.

    packed: gzip of the length of a JSON header (4 bytes, little-endian), the header, values
    [S, M, P] of 16 bits in its order of students, metrics and prompts, and marks [S, P, K] of 8.
    """
    layout = Layout.of(run, TILE)
    metrics = [m for m in run.suite.metrics if METRICS[m].kind != "distribution"]
    values, ranges = _quantised(_values(run, metrics))
    baseline = run.suite.baseline
    header = {
        "students": list(_students(record, run, folder)),
        "metrics": [_metric(name, *ends) for name, ends in zip(metrics, ranges, strict=True)],
        "prompts": [visible(text) for text in run.prompts.values()],
        "ids": list(run.prompts),
        "categories": run.categories,
        "num_images": layout.num_images,
        "tile": layout.tile,
        "sheets": f"{FOLDER}/{key}/" if (key := sheets_key(run)) else None,
        "a": record["pictures"]["challenger"]
        or next((n for n in run.students if n != baseline), baseline),
        "b": baseline,
        "metric": record["wins"]["metric"] or (metrics[0] if metrics else None),
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    parts = (
        len(text).to_bytes(4, "little"),
        text,
        values.astype("<u2").tobytes(),
        _marks(run, layout),
    )
    packed = gzip.compress(b"".join(parts), 6, mtime=0)
    embedded, small = [*record["pictures"]["grid"]], Layout.of(run, EMBEDDED)
    places = {prompt_id: k for k, prompt_id in enumerate(run.prompts)}
    return {
        "packed": f"data:application/gzip;base64,{base64.b64encode(packed).decode()}",
        "pictures": {
            places[row["prompt_id"]]: sheet_uri(run, small, row["prompt_id"]) for row in embedded
        },
    }


def _students(
    record: dict[str, Any], run: RunFiles, folder: Path | None
) -> Iterator[dict[str, Any]]:
    styles = styles_in(record)
    for name in run.students:
        images = run.first_seed(name).images
        names = [
            [path.name if (path := images.get((p, k))) is not None else None for k in range(num)]
            for p, num in _images_of(run)
        ]
        parents = {path.parent for path in images.values()}
        yield {
            "name": name,
            "title": visible(record["students"][name]["title"]),
            "color": styles[name].color if name in styles else None,
            "folder": beside(parents.pop(), folder) if folder and len(parents) == 1 else None,
            "files": names,
            "left": left_files(run, name, folder) if folder else [],
        }


def _images_of(run: RunFiles) -> Iterator[tuple[str, int]]:
    """Each prompt and how many images it has."""
    numbers = run.suite.images_per_prompt()
    for prompt_id in run.prompts:
        yield prompt_id, numbers[prompt_id.rpartition("/")[0]]


def _metric(name: str, low: float, high: float) -> dict[str, Any]:
    row = METRICS[name]
    return {
        "name": name, "title": row.title, "unit": row.unit, "scale": row.scale,
        "decimals": row.decimals, "better": row.better, "low": low, "high": high,
    }  # fmt: skip


def _values(run: RunFiles, metrics: Sequence[str]) -> NDArray[np.float64]:
    """Means over the images of each prompt [S, M, P], NaN where there are none."""
    places = {prompt_id: k for k, prompt_id in enumerate(run.prompts)}
    found = np.full((len(run.students), len(metrics), len(places)), np.nan)
    for s, name in enumerate(run.students):
        table = run.first_seed(name).per_image
        for m, metric in enumerate(metrics):
            if table is not None and metric in table:
                found[s, m] = _means(metric, table, places)
    return found


def _means(metric: str, table: pd.DataFrame, places: dict[str, int]) -> NDArray[np.float64]:
    values, prompts = values_of(metric, table, np.ones(len(table), bool))
    at = np.array([places.get(prompt_id, -1) for prompt_id in prompts])
    known = np.isfinite(values.astype(np.float64)) & (at >= 0)
    sums = np.bincount(at[known], values[known].astype(np.float64), len(places))
    counts = np.bincount(at[known], minlength=len(places))
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = sums / counts
    return means


def _quantised(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.uint16], list[tuple[float, float]]]:
    """Codes of the values [S, M, P], and each metric's range."""
    codes = np.full(values.shape, MISSING, np.uint16)
    ranges = []
    for m in range(values.shape[1]):
        own = values[:, m]
        known = np.isfinite(own)
        low, high = (float(own[known].min()), float(own[known].max())) if known.any() else (0, 0)
        share = (own[known] - low) / ((high - low) or 1.0)
        codes[:, m][known] = np.rint(share * (MISSING - 1)).astype(np.uint16)
        ranges.append((low, high))
    return codes, ranges


def _marks(run: RunFiles, layout: Layout) -> bytes:
    """Of each student, prompt and image whether it is right, where the first metric judges."""
    judges = next((m for m in run.suite.metrics if METRICS[m].judges), None)
    places = {prompt_id: k for k, prompt_id in enumerate(run.prompts)}
    marks = np.full((len(run.students), len(places), layout.num_images), UNJUDGED, np.uint8)
    for s, name in enumerate(run.students):
        table = run.first_seed(name).per_image
        if judges is None or table is None or judges not in table:
            continue
        for prompt_id, k, value in zip(
            table["prompt_id"], table["image_index"], table[judges], strict=True
        ):
            if prompt_id in places and k < layout.num_images and np.isfinite(value):
                marks[s, places[prompt_id], k] = RIGHT if value > 0 else WRONG
    return marks.tobytes()
