"""Where the files of a run lie, as seen from a page: they move, and no other part of it says so."""

from __future__ import annotations

import os
from pathlib import Path

from ddmd_bench.reporting.runfiles import RunFiles

# Of a finished stage: what a reader opens, and its name on a card.
FILES = {
    "generate": {"images": "images", "images/metadata.jsonl": "their list"},
    "score": {"per_image.parquet": "values of each image"},
    "train": {"student.safetensors": "weights", "diagnostics.parquet": "diagnostics"},
}


def beside(images: Path, page: Path) -> str | None:
    """Where images lie as seen from the page; None where they share nothing but the disk's root."""
    images, page = images.resolve(), page.resolve()
    shared = Path(os.path.commonpath([images, page]))
    if shared == Path(shared.anchor):
        return None
    return Path(os.path.relpath(images, page)).as_posix()


def left_files(run: RunFiles, name: str, page: Path) -> list[tuple[str, str]]:
    """Title and place of what a student's stages left of the first seed."""
    found = []
    for stage, folder in run.first_seed(name).folders.items():
        for file, title in FILES[stage].items():
            place = beside(folder / file, page)
            if place is not None and (folder / file).exists():
                found.append((title, place))
    return found
