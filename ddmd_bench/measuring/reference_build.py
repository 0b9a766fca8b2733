"""Build reference statistics: one pass over real images, which can be stopped and goes on.

python -m ddmd_bench stats build photographs/ reference_stats/photographs --scorers inception
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddmd_bench.data.image_sources import image_containers, image_files, iter_encoded_images
from ddmd_bench.errors import BenchError
from ddmd_bench.files.arrays import read_features
from ddmd_bench.files.decoding import upright
from ddmd_bench.files.device import default_device
from ddmd_bench.files.locks import locked
from ddmd_bench.files.provenance import package_versions
from ddmd_bench.files.records import content_key, file_sha256, write_json
from ddmd_bench.files.remembered import remembered
from ddmd_bench.files.versions import scorer_versions
from ddmd_bench.measuring.feature_parts import (
    FEATURES,
    SHA256,
    RealImage,
    Source,
    extract,
    keep,
    rows_of,
)
from ddmd_bench.measuring.reference import (
    CARD,
    CARD_SCHEMA,
    UNFINISHED,
    build_again,
    is_imported,
    made_otherwise,
    read_card,
    require_extractors,
    weights_of,
    write_statistics,
)
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.scorers import SCORERS
from ddmd_bench.stats.moments import factored, gaussian_of_parts
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL.Image import Image

SUBSET = "the first n of the source; files in the order of their paths"

Progress = Callable[[int], None]  # images done
OnHashed = Callable[[int, int], None]  # files hashed, of how many


def build(
    data: DataSource,
    output: Path,
    scorers: Sequence[str],
    num: int | None,
    progress: Progress,
    on_hashed: OnHashed = lambda done, total: None,
) -> Path:
    """Write the folder: features and Gaussians of the first `num` images, or of all; card last.

    A finished folder takes more images of its source, and other scorers of the same images.
    An image that cannot be read ends it: statistics of a part would have another n than they say.
    """
    require_extractors(scorers)
    work = output / UNFINISHED
    if (output / CARD).is_file():
        scorers, num = _added(output, data, scorers, num)
    with locked(work, "Wait until that has ended, or choose another folder"):
        files = image_files(data)[:num]
        sha256 = _sha256s(_counted(files, on_hashed)) if files else None
        source = Source(partial(_images, data), sha256)
        folder = work / _key(data, [] if files else image_containers(data))
        if (output / CARD).is_file():
            _take_up(output, data, folder)
        parts = extract(folder, scorers, source, num, default_device(), progress)
        digests = _digests(parts)
        if num is not None and len(digests) < num:
            raise BenchError(f"{data.source}: asked for {num} images, it has {len(digests)}")
        if len(digests) < 2:
            raise BenchError(f"{data.source}: statistics need two images or more")
        card = {
            "schema": CARD_SCHEMA,
            "n": len(digests),
            "source": _told(data),
            "subset": SUBSET,
            "images_sha256": _joined(digests),
            "scorers": {name: _finished(output, name, parts[name]) for name in scorers},
            "packages": package_versions(),
        }
        write_json(output / CARD, card)
        shutil.rmtree(work)
    return output


def _added(
    output: Path, data: DataSource, scorers: Sequence[str], num: int | None
) -> tuple[list[str], int]:
    """All that a finished folder will have: its scorers and others, as many images or more."""
    card = read_card(output)
    if is_imported(card):
        raise BenchError(
            f"{output}: there already, imported statistics of images that are not at hand. Choose "
            "another folder, or delete it"
        )
    found, wanted = int(card["n"]), num or int(card["n"])
    same = card["source"] == _told(data) and wanted >= found
    if not same or (wanted == found and card["scorers"].keys() >= set(scorers)):
        raise BenchError(
            f"{output}: there already, {found} images of {card['source']['source']}. Ask for more "
            "of them or for other scorers, choose another folder, or delete it"
        )
    return list(dict.fromkeys([*card["scorers"], *scorers])), wanted


def _take_up(output: Path, data: DataSource, folder: Path) -> None:
    """Make parts of what finished statistics hold, where their images still are the source's."""
    card = read_card(output)
    digests = [sha256 for _, sha256 in islice(_images(data, 0), card["n"])]
    if _joined(digests) != card["images_sha256"]:
        raise BenchError(
            f"{output}: there already, of other images than {data.source} has now. Choose another "
            "folder, or delete it"
        )
    for name, row in card["scorers"].items():
        path = output / f"{name}.npy"
        if made_otherwise(output, card, name) or file_sha256(path) != row["files"][path.name]:
            continue
        keep(folder, name, read_features(path, build_again(output)), digests)


def _images(data: DataSource, first: int) -> Iterator[RealImage]:
    for name, encoded in iter_encoded_images(data, first):
        item = Item(name, "", partial(_opened, encoded))
        yield item, hashlib.sha256(encoded).hexdigest()


def _digests(parts: Mapping[str, Sequence[Path]]) -> list[str]:
    """The images' sha256, the same for every scorer."""
    found = {tuple(one for rows in rows_of(of, SHA256) for one in rows) for of in parts.values()}
    if len(found) > 1:
        folder = next(iter(parts.values()))[0].parents[1]
        raise BenchError(
            f"{folder}: parts of other images than the source has now. Delete it and run again"
        )
    return [digest for digests in found for digest in digests]


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _told(data: DataSource) -> dict[str, Any]:
    return data.model_dump(exclude_none=True)


def _opened(encoded: bytes) -> Image:
    return upright(io.BytesIO(encoded))


def _key(data: DataSource, containers: Sequence[Path]) -> str:
    """Of what determines the images, however many are taken; files of one image each are known by
    their parts."""
    return content_key({"source": data.model_dump(), "files": _sha256s(containers)})


def _sha256s(paths: Iterable[Path]) -> list[str]:
    """Of files' bytes, whatever their times say; each is read once, and again once changed."""
    return list(remembered("real_images", paths, file_sha256).values())


def _counted(paths: Sequence[Path], on_hashed: OnHashed) -> Iterator[Path]:
    """The same, each counted once it was dealt with."""
    for done, path in enumerate(paths, 1):
        yield path
        on_hashed(done, len(paths))


def _finished(output: Path, scorer: str, parts: Sequence[Path]) -> dict[str, Any]:
    """A scorer's two files from its parts, and what the card says of them."""
    features = np.concatenate(list(rows_of(parts, FEATURES)))
    if not np.isfinite(features).all():
        raise BenchError(f"{output}: features of {scorer} are not finite. Check its weights")
    gaussian = factored(gaussian_of_parts(rows_of(parts, FEATURES)))
    files = write_statistics(output, scorer, features, gaussian)
    return {
        "protocol": SCORERS[scorer].protocol,
        "num_features": features.shape[1],
        "weights": weights_of(scorer),
        "versions": scorer_versions([scorer]),
        "files": files,
    }
