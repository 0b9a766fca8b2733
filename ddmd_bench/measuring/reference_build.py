"""Build reference statistics: one pass over real images, which can be stopped and goes on.

python -m ddmd_bench stats build photographs/ reference_stats/photographs --scorers inception
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.data.image_sources import iter_encoded_images
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.arrays import write_npy, write_npz
from ddmd_bench.files.decoding import upright
from ddmd_bench.files.device import default_device
from ddmd_bench.files.provenance import package_versions
from ddmd_bench.files.records import content_key, file_sha256, read_json, write_json, write_whole
from ddmd_bench.measuring.features import whole_features
from ddmd_bench.measuring.reference import CARD, CARD_SCHEMA, GAUSSIAN, weights_of
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.scorers import SCORERS
from ddmd_bench.stats.moments import factored, gaussian_of_parts
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL.Image import Image

PART = 1_024  # images that are done again at most, where a build was stopped
_WORK = "unfinished"
SUBSET = "the first n of the source; files in the order of their paths"

Progress = Callable[[int], None]  # images done
Arrays = dict[str, NDArray[Any]]  # scorer -> features [k, d]; "sha256" -> of each file [k]


def build(
    data: DataSource, output: Path, scorers: Sequence[str], num: int | None, progress: Progress
) -> Path:
    """Write the folder: features and Gaussians of the first `num` images, or of all; card last.

    An image that cannot be read ends it: statistics of a part would have another n than they say.
    """
    _require(output, scorers)
    work = _begun(output / _WORK, data, scorers, num)
    count = len(list(work.glob("*.npz")))
    encoded = islice(iter_encoded_images(data, count * PART), _left(num, count * PART))
    while images := list(islice(encoded, PART)):
        part = _measured(scorers, images, count * PART, progress)
        write_npz(work / f"{count:06}.npz", part)
        count += 1
    parts = sorted(work.glob("*.npz"))
    digests = [digest for path in parts for digest in _read(path, "sha256")]
    if num is not None and len(digests) < num:
        raise BenchError(f"{data.source}: asked for {num} images, it has {len(digests)}")
    if len(digests) < 2:
        raise BenchError(f"{data.source}: statistics need two images or more")
    card = {
        "schema": CARD_SCHEMA,
        "n": len(digests),
        "source": data.model_dump(exclude_none=True),
        "subset": SUBSET,
        "images_sha256": hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        "scorers": {name: _finished(output, name, parts) for name in scorers},
        "packages": package_versions(),
    }
    write_json(output / CARD, card)
    shutil.rmtree(work)
    return output


def _measured(
    scorers: Sequence[str], images: Sequence[tuple[str, bytes]], done: int, progress: Progress
) -> Arrays:
    items = [Item(name, "", partial(_opened, encoded)) for name, encoded in images]
    features = whole_features(
        scorers, items, default_device(), lambda count: progress(done + count)
    )
    digests = np.array([hashlib.sha256(encoded).hexdigest() for _, encoded in images])
    return {**features, "sha256": digests}


def _opened(encoded: bytes) -> Image:
    return upright(io.BytesIO(encoded))


def _left(num: int | None, done: int) -> int | None:
    return None if num is None else max(num - done, 0)


def _require(output: Path, scorers: Sequence[str]) -> None:
    for name in scorers:
        if name not in SCORERS:
            raise BenchError(unknown("scorer", name, SCORERS))
        if SCORERS[name].num_features is None:
            able = [k for k, row in SCORERS.items() if row.num_features]
            raise BenchError(f"scorer {name} has no features. Those that have: {', '.join(able)}")
    if (output / CARD).exists():
        raise BenchError(f"{output}: there already. Choose another folder, or delete it")


def _begun(work: Path, data: DataSource, scorers: Sequence[str], num: int | None) -> Path:
    """The folder of finished parts, emptied where they are of another build."""
    inputs = {
        "source": data.model_dump(),
        "weights": {name: weights_of(name) for name in sorted(scorers)},
        "num": num,
    }
    key = {"key": content_key(inputs)}
    if not (work / "inputs.json").is_file() or read_json(work / "inputs.json") != key:
        shutil.rmtree(work, ignore_errors=True)
        write_json(work / "inputs.json", key)
    return work


def _read(path: Path, name: str) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as part:
        array: NDArray[Any] = part[name]
    return array


def _rows(parts: Sequence[Path], scorer: str) -> Iterator[NDArray[np.float32]]:
    for path in parts:
        yield _read(path, scorer)


def _finished(output: Path, scorer: str, parts: Sequence[Path]) -> dict[str, Any]:
    """A scorer's two files from its parts, and what the card says of them."""
    from safetensors.numpy import save

    features = np.concatenate(list(_rows(parts, scorer)))
    if not np.isfinite(features).all():
        raise BenchError(f"{output}: features of {scorer} are not finite. Check its weights")
    gaussian = factored(gaussian_of_parts(_rows(parts, scorer)))
    tensors = dict(zip(GAUSSIAN, map(np.ascontiguousarray, gaussian), strict=True))
    files = f"{scorer}.npy", f"{scorer}.safetensors"
    write_npy(output / files[0], features)
    write_whole(output / files[1], save(tensors))
    return {
        "protocol": SCORERS[scorer].protocol,
        "num_features": features.shape[1],
        "weights": weights_of(scorer),
        "files": {name: file_sha256(output / name) for name in files},
    }
