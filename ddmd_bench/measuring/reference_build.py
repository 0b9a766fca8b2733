"""Build reference statistics: one pass over real images, which can be stopped and goes on.

python -m ddmd_bench stats build photographs/ reference_stats/photographs --scorers inception
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.data.image_sources import image_files, iter_encoded_images
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.arrays import write_npy
from ddmd_bench.files.decoding import upright
from ddmd_bench.files.device import default_device
from ddmd_bench.files.locks import locked
from ddmd_bench.files.provenance import package_versions
from ddmd_bench.files.records import content_key, file_sha256, write_json, write_whole
from ddmd_bench.files.versions import scorer_versions
from ddmd_bench.measuring.feature_parts import RealImage, extract, images_sha256, of_parts
from ddmd_bench.measuring.reference import CARD, CARD_SCHEMA, GAUSSIAN, weights_of
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.scorers import SCORERS
from ddmd_bench.stats.moments import factored, gaussian_of_parts
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL.Image import Image

_WORK = "unfinished"
SUBSET = "the first n of the source; files in the order of their paths"

Progress = Callable[[int], None]  # images done


def build(
    data: DataSource, output: Path, scorers: Sequence[str], num: int | None, progress: Progress
) -> Path:
    """Write the folder: features and Gaussians of the first `num` images, or of all; card last.

    An image that cannot be read ends it: statistics of a part would have another n than they say.
    """
    _require(output, scorers)
    work = output / _WORK
    with locked(work, "Wait until that has ended, or choose another folder"):
        images = partial(_images, data)
        folder = work / _key(data, scorers)
        parts = extract(folder, scorers, images, num, default_device(), progress)
        found = sum(len(rows) for rows in of_parts(parts, scorers[0]))
        if num is not None and found < num:
            raise BenchError(f"{data.source}: asked for {num} images, it has {found}")
        if found < 2:
            raise BenchError(f"{data.source}: statistics need two images or more")
        card = {
            "schema": CARD_SCHEMA,
            "n": found,
            "source": data.model_dump(exclude_none=True),
            "subset": SUBSET,
            "images_sha256": images_sha256(parts),
            "scorers": {name: _finished(output, name, parts) for name in scorers},
            "packages": package_versions(),
        }
        write_json(output / CARD, card)
        shutil.rmtree(work)
    return output


def _images(data: DataSource, first: int) -> Iterator[RealImage]:
    for name, encoded in iter_encoded_images(data, first):
        item = Item(name, "", partial(_opened, encoded))
        yield item, hashlib.sha256(encoded).hexdigest()


def _opened(encoded: bytes) -> Image:
    return upright(io.BytesIO(encoded))


def _require(output: Path, scorers: Sequence[str]) -> None:
    for name in scorers:
        if name not in SCORERS:
            raise BenchError(unknown("scorer", name, SCORERS))
        if SCORERS[name].num_features is None:
            able = [k for k, row in SCORERS.items() if row.num_features]
            raise BenchError(f"scorer {name} has no features. Those that have: {', '.join(able)}")
    if (output / CARD).exists():
        raise BenchError(f"{output}: there already. Choose another folder, or delete it")


def _key(data: DataSource, scorers: Sequence[str]) -> str:
    """Of what determines the features of each image, however many are taken."""
    stats = [(str(path), path.stat()) for path in image_files(data)]
    inputs = {
        "source": data.model_dump(),
        "files": [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats],
        "weights": {name: weights_of(name) for name in sorted(scorers)},
        "versions": scorer_versions(sorted(scorers)),
    }
    return content_key(inputs)


def _finished(output: Path, scorer: str, parts: Sequence[Path]) -> dict[str, Any]:
    """A scorer's two files from its parts, and what the card says of them."""
    from safetensors.numpy import save

    features = np.concatenate(list(of_parts(parts, scorer)))
    if not np.isfinite(features).all():
        raise BenchError(f"{output}: features of {scorer} are not finite. Check its weights")
    gaussian = factored(gaussian_of_parts(of_parts(parts, scorer)))
    tensors = dict(zip(GAUSSIAN, map(np.ascontiguousarray, gaussian), strict=True))
    files = f"{scorer}.npy", f"{scorer}.safetensors"
    write_npy(output / files[0], features)
    write_whole(output / files[1], save(tensors))
    return {
        "protocol": SCORERS[scorer].protocol,
        "num_features": features.shape[1],
        "weights": weights_of(scorer),
        "versions": scorer_versions([scorer]),
        "files": {name: file_sha256(output / name) for name in files},
    }
