"""A folder of images made elsewhere: which file shows which prompt.

The folder is an imagefolder of `datasets`: a `metadata.jsonl` with `file_name` and `prompt` a line.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError
from ddmd_bench.prompts import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    return files


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
    """An image file as uint8 [H, W, 3], turned as its EXIF tag says."""
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise BenchError(f"{path}: cannot be read as an image: {error}") from error
