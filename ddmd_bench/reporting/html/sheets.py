"""Small pictures of all prompts beside a report: one file a prompt, students side by side in it.

A row of the page's browser needs one file, whatever it is sorted by, and 10,000 prompts of twelve
students are 10,000 files. Images of one prompt and student stand below each other.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ddmd_bench.data.images import SHARP
from ddmd_bench.files.decoding import open_image
from ddmd_bench.files.records import content_key
from ddmd_bench.reporting.pictures import NUM_PER_PROMPT
from ddmd_bench.reporting.runfiles import RunFiles

if TYPE_CHECKING:
    from PIL import Image as Pillow

VERSION = 1  # of how a sheet is made
FOLDER = "images"  # beside the page
TILE, EMBEDDED = 256, 96  # pixels along the longer side: of the files, of those inside the page
LARGEST = 16383  # pixels that WebP has along a side
UNKNOWN = (127, 127, 127)
UNREADABLE = (OSError, SyntaxError, ValueError)


class Layout(NamedTuple):
    """Which tiles a sheet has, and how large they are."""

    students: tuple[str, ...]
    num_images: int
    tile: tuple[int, int]  # width, height

    @classmethod
    def of(cls, run: RunFiles, longest: int) -> Layout:
        """Tiles as large as the largest image, as far as that is allowed; never larger."""
        students = tuple(run.suite.students)
        num_images = min(max(run.suite.images_per_prompt().values(), default=1), NUM_PER_PROMPT)
        sizes = []
        for name in students:
            for path in list(run.first_seed(name).images.values())[:1]:
                try:
                    with open_image(path) as image:
                        sizes.append(image.size)
                except UNREADABLE:  # a damaged file is a grey tile
                    continue
        width, height = (max(side) for side in zip(*sizes, strict=True)) if sizes else (1, 1)
        room = min(longest, LARGEST // max(len(students), num_images))
        share = min(1.0, room / max(width, height))
        return cls(
            students, num_images, (max(1, round(width * share)), max(1, round(height * share)))
        )


def sheet(run: RunFiles, layout: Layout, prompt_id: str) -> bytes:
    """A prompt's images as WebP; grey where one is not there or is no image."""
    from PIL import Image

    width, height = layout.tile
    size = width * len(layout.students), height * layout.num_images
    whole = Image.new("RGB", size, UNKNOWN)
    for column, name in enumerate(layout.students):
        for row in range(layout.num_images):
            path = run.first_seed(name).images.get((prompt_id, row))
            if path is not None and (tile := _tile(path, layout.tile)) is not None:
                left, top = (width - tile.width) // 2, (height - tile.height) // 2
                whole.paste(tile, (column * width + left, row * height + top))
    buffer = io.BytesIO()
    if max(layout.tile) <= SHARP:
        whole.save(buffer, "WEBP", lossless=True, quality=30, method=0)
    else:
        whole.save(buffer, "WEBP", quality=82, method=2)
    return buffer.getvalue()


def _tile(path: Path, size: tuple[int, int]) -> Pillow.Image | None:
    try:
        with open_image(path) as image:
            image.draft("RGB", size)  # of JPEG no more is decoded than is shown
            image.thumbnail(size, reducing_gap=2.0)
            return image.convert("RGB")
    except UNREADABLE:
        return None


def sheet_uri(run: RunFiles, layout: Layout, prompt_id: str) -> str:
    """The same for a page."""
    data = base64.b64encode(sheet(run, layout, prompt_id)).decode()
    return f"data:image/webp;base64,{data}"


def sheets_key(run: RunFiles) -> str | None:
    """Which images the sheets are of; None while a student's are not all drawn."""
    drawn = {
        name: run.first_seed(name).done.get("generate", {}).get("key") for name in run.students
    }
    if not all(drawn.values()):
        return None
    return content_key([VERSION, TILE, NUM_PER_PROMPT, drawn, list(run.prompts)])


def sheet_name(number: int) -> str:
    """Of the file of a prompt, by its place in the suite."""
    return f"{number:05d}.webp"


def write_sheets(
    run: RunFiles, key: str, beside: Path, progress: Callable[[int, int], None]
) -> None:
    """Those that are not there; what was there of other images goes."""
    folder, layout = beside / FOLDER / key, Layout.of(run, TILE)
    folder.mkdir(parents=True, exist_ok=True)
    _remove(other for other in folder.parent.iterdir() if other != folder)
    missing = [
        (folder / sheet_name(k), prompt_id)
        for k, prompt_id in enumerate(run.prompts)
        if not (folder / sheet_name(k)).is_file()
    ]

    def write(one: tuple[Path, str]) -> None:
        path, prompt_id = one
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(sheet(run, layout, prompt_id))
        temporary.replace(path)  # whole, and not waited for: the page does without one that is lost

    done = len(run.prompts) - len(missing)
    # Pillow decodes and encodes without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for k, _ in enumerate(pool.map(write, missing), 1):
            progress(done + k, len(run.prompts))


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
