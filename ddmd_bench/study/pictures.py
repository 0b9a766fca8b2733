"""A study's pictures: names that say nothing, pixels written anew, tiles in disorder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Unusable, open_image, upright
from ddmd_bench.files.records import written_whole

if TYPE_CHECKING:
    from PIL.Image import Image

FIRST_TURNED = 5  # EXIF's orientations from here on lay an image on its side
TILES = 4  # along each side of an image that is broken


class Pictures:
    """The images that the page shows, by names that say nothing."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.facts: dict[str, dict[str, Any]] = {}
        self.make: dict[str, Callable[[], Image]] = {}

    def add(self, make: Callable[[], Image], student: str, prompt: Prompt, what: str = "") -> str:
        told = f"{self.secret}|{student}|{prompt.prompt_id}|{what}"
        name = f"{hashlib.sha256(told.encode()).hexdigest()[:20]}.webp"
        self.facts[name] = {"student": student, "prompt_id": prompt.prompt_id}
        self.make[name] = make
        return name


def write_pictures(
    folder: Path, pictures: Pictures, quality: int | None, progress: Callable[[int, int], None]
) -> None:
    """Those that are not there yet; nothing that a file says beside its pixels goes along."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pictures.make:
            path.unlink()
    missing = [name for name in pictures.make if not (folder / name).is_file()]

    def write(name: str) -> None:
        with written_whole(folder / name) as temporary:
            options = {"lossless": True} if quality is None else {"quality": quality}
            pictures.make[name]().save(temporary, "WEBP", **options)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = len(pictures.make) - len(missing)
        for k, _ in enumerate(pool.map(write, missing), 1):
            progress(done + k, len(pictures.make))


def opened(path: Path) -> Image:
    try:
        return upright(path).convert("RGB")
    except Unusable as error:
        raise BenchError(f"{path}: {error}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height as the image is shown, of its header alone."""
    try:
        with open_image(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= FIRST_TURNED
            return image.size[::-1] if turned else image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error


def broken(make: Callable[[], Image], seed: int) -> Image:
    """Its tiles in another order, none at its own place."""

    image = make()
    width, height = image.width // TILES, image.height // TILES
    places = [
        (x * width, y * height, (x + 1) * width, (y + 1) * height)
        for y in range(TILES)
        for x in range(TILES)
    ]
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(places))
    turned = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    result = image.copy()
    for source, target in turned.items():
        result.paste(image.crop(places[source]), places[target][:2])
    return result
