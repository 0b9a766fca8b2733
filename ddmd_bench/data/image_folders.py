"""A folder of images made elsewhere: which file shows which prompt.

The folder is an imagefolder of `datasets`: a `metadata.jsonl` with `file_name` and `prompt` a line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

METADATA = "metadata.jsonl"


def read_listing(
    folder: Path, prompts: Sequence[Prompt], images_per_prompt: Mapping[str, int]
) -> dict[tuple[str, int], Path]:
    """File by prompt id and image index; the k-th line of a prompt's text is its k-th image."""
    by_text: dict[str, list[Path]] = defaultdict(list)
    for line, row in enumerate(_rows(folder), 1):
        if not isinstance(row.get("file_name"), str) or not isinstance(row.get("prompt"), str):
            raise BenchError(
                f"{folder / METADATA}, line {line}: expected file_name and prompt, found "
                f"{sorted(row)}"
            )
        by_text[row["prompt"]].append(folder / row["file_name"])
    files: dict[tuple[str, int], Path] = {}
    lacking = []
    for prompt in prompts:
        wanted, found = images_per_prompt[prompt.prompt_set], by_text[prompt.text]
        absent = [path for path in found[:wanted] if not path.is_file()]
        if absent:
            raise BenchError(f"{folder / METADATA} names {absent[0]}, which is not there")
        if len(found) < wanted:
            lacking.append(f"{prompt.text!r} has {len(found)} of {wanted}")
        files |= {(prompt.prompt_id, k): path for k, path in enumerate(found[:wanted])}
    if lacking:
        raise BenchError(
            f"{folder}: {len(lacking)} of {len(prompts)} prompts lack images, e.g. {lacking[0]}"
        )
    _require_one_size(files.values())
    return files


def _require_one_size(paths: Iterable[Path]) -> None:
    """Images of one student are measured together, as those of every other."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        with _opened(path) as image:
            seen.setdefault(image.size, path)
    if len(seen) > 1:
        sizes = [f"{path} has {w} x {h} pixels" for (w, h), path in seen.items()]
        raise BenchError(f"{', '.join(sizes[:2])}: expected one size. Resize or crop them alike")


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / METADATA
    if not path.is_file():
        raise BenchError(
            f"{folder}: expected a folder of images with a {METADATA}, a line for each image: "
            '{"file_name": "0001.png", "prompt": "a red cat"}'
        )
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise BenchError(f"{path}: not JSON lines: {error}") from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H, W, 3]."""
    import numpy as np

    with _opened(path) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image turned as its EXIF tag says; what is no image is named."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError) as error:
        raise BenchError(f"{path}: cannot be read as an image: {error}") from error
