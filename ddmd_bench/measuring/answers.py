"""What scorers said of a student's images, kept on disk in parts.

A scorer that is added later, a new reference, or a run that was stopped costs no second pass over
what is there. A part belongs to one scorer, as its weights and code are, and to a range of images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.files.arrays import whole_npz, write_npz
from ddmd_bench.files.forms import misfit
from ddmd_bench.files.records import parse_json
from ddmd_bench.measuring.sheets import Answer

PART_SIZE = 512  # images, about
FACTS = {
    "stamp": str, "num_images": int, "missing": [list], "truncated": [int], "not_asked": [int],
}  # fmt: skip


def part_path(folder: Path, scorer: str, key: str, rows: slice) -> Path:
    """The file of one scorer's answer to the images of a range."""
    return folder / f"{scorer}-{key}" / f"{rows.start:07d}-{rows.stop:07d}.npz"


def write_part(path: Path, answer: Answer, stamp: str) -> None:
    """Write an answer to the images of that stamp, whole or not at all."""
    arrays: dict[str, Any] = {f"column.{name}": values for name, values in answer.columns.items()}
    if answer.features is not None:
        arrays["features"] = answer.features
    facts = {
        "stamp": stamp,
        "num_images": answer.num_images,
        "missing": sorted(answer.missing.items()),
        "truncated": sorted(answer.truncated),
        "not_asked": sorted(answer.not_asked),
    }
    write_npz(path, {"facts": np.array(json.dumps(facts)), **arrays})


def read_part(path: Path, stamp: str) -> Answer | None:
    """The answer in a file; None where there is none, or it is to other images or cut."""
    arrays = whole_npz(path)
    facts = _facts(arrays) if arrays else None
    if arrays is None or facts is None or facts["stamp"] != stamp:
        return None
    columns = {
        name.removeprefix("column."): values
        for name, values in arrays.items()
        if name.startswith("column.")
    }
    if not _whole(facts["num_images"], columns, arrays.get("features")):
        return None
    missing = {int(row): str(reason) for row, reason in facts["missing"]}
    noted = set(facts["truncated"]), set(facts["not_asked"])
    return Answer(facts["num_images"], columns, arrays.get("features"), missing, *noted)


def _facts(arrays: dict[str, NDArray[Any]]) -> dict[str, Any] | None:
    """What a part says of itself; None where it is none of ours."""
    try:
        facts = parse_json(str(arrays["facts"]))
    except (KeyError, ValueError):
        return None
    return None if misfit(facts, FACTS) else facts


def _whole(
    num_images: int, columns: dict[str, NDArray[Any]], features: NDArray[Any] | None
) -> bool:
    """Whether each image has its row."""
    shapes = [values.shape for values in columns.values()]
    numbers = all(values.dtype.kind in "bif" for values in columns.values())
    of_images = features is None or (features.ndim == 2 and features.dtype.kind == "f")
    rows = num_images if features is None else len(features)
    return numbers and of_images and rows == num_images and {*shapes} <= {(num_images,)}


def joined(answers: Sequence[Answer]) -> Answer:
    """Answers of one scorer as one, rows in order; what a part lacks is NaN."""
    num_images = sum(answer.num_images for answer in answers)
    names = list(dict.fromkeys(name for answer in answers for name in answer.columns))
    widths = {a.features.shape[1] for a in answers if a.features is not None}
    whole = Answer(num_images, {name: np.full(num_images, np.nan) for name in names})
    if widths:
        whole.features = np.full((num_images, widths.pop()), np.nan, np.float32)
    start = 0
    for answer in answers:
        rows = slice(start, start + answer.num_images)
        for name, values in answer.columns.items():
            whole.columns[name][rows] = values
        if whole.features is not None and answer.features is not None:
            whole.features[rows] = answer.features
        whole.missing |= {start + row: reason for row, reason in answer.missing.items()}
        whole.truncated |= {start + row for row in answer.truncated}
        whole.not_asked |= {start + row for row in answer.not_asked}
        whole.unread |= {start + row for row in answer.unread}
        start = rows.stop
    return whole
