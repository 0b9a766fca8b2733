"""What students of real models train on: captions and real images of a source, kept in a folder.

The first so many of the source in its order; what is drawn once is not drawn again, and what was
interrupted goes on where it stopped. How many were asked for is not in a folder's name: more go on
from what is there, fewer read the first of them. After `draw` no network is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddmd_bench.data.image_folders import captioned_images
from ddmd_bench.data.image_sources import parquet_tables
from ddmd_bench.data.images import save_png
from ddmd_bench.data.pixels import rgb, to_tensor
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.data.prompt_sources import load_prompts
from ddmd_bench.data.streams import iter_captions, iter_images, too_few
from ddmd_bench.data.tables import is_local_source, source_path
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import open_image
from ddmd_bench.files.locks import locked
from ddmd_bench.files.records import content_key, iter_appended
from ddmd_bench.files.versions import versions
from ddmd_bench.hub.hashes import known_sha256, known_sha256s
from ddmd_bench.suite.settings import DataSource, TrainData

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
CAPTION = {"position": int, "text": str}  # forms of a listing's rows
IMAGE = {"position": int, "prompt": str, "file_name": str}
OnItem = Callable[[int, int], None]  # items here, items wanted
KINDS = {"prompts": "num_prompts", "images": "num_images"}  # and the setting that counts them


def source_identity(data: DataSource) -> dict[str, Any]:
    """What determines the items of a source: its content here, or a dataset of the Hub's commit."""
    told = data.model_dump(mode="json", exclude_none=True)
    told["versions"] = versions("training data")
    if data.source in PROMPT_SOURCES:
        row = PROMPT_SOURCES[data.source]
        told["source"] = f"{row.repository}@{row.revision}/{','.join(row.files)}"
    elif is_local_source(data.source):
        told["source"] = _content(data, source_path(data))
    elif data.revision is None:
        raise BenchError(
            f"{data.source}: training data of the Hub need a revision, a full commit hash: what a "
            "branch holds can change between two runs"
        )
    return told


def _content(data: DataSource, path: Path) -> str:
    """Of a local source: the hash of a file, or of all that is read of a folder."""
    if path.is_file():
        return known_sha256(path)
    if tables := parquet_tables(path):
        sha256 = known_sha256s(tables)
        rows: list[Any] = [sha256[table] for table in tables]
    else:
        rows = [[text, header.sha256] for text, _, header in captioned_images(path, data.column)]
    return f"content:{content_key(rows)}"


def data_identity(data: TrainData, resolution: int) -> dict[str, Any]:
    """What determines a suite's training data, by kind."""
    return {kind: _identity(data, kind, resolution) for kind in KINDS if getattr(data, kind)}


def _identity(data: TrainData, kind: str, resolution: int) -> dict[str, Any]:
    told = source_identity(getattr(data, kind))
    return {**told, "resolution": resolution} if kind == "images" else told


class TrainingData(NamedTuple):
    """A suite's training data on this machine, under a folder that all suites share."""

    data: TrainData
    resolution: int
    root: Path

    def items(self, kind: str) -> dict[str, Any]:
        """What determines each item of a kind, however many of them are taken."""
        told = _identity(self.data, kind, self.resolution)
        return {name: value for name, value in told.items() if name != KINDS[kind]}

    def folder(self, kind: str) -> Path:
        """Where a kind's items are kept."""
        return self.root / content_key(self.items(kind))

    def collect_captions(self, progress: OnItem = lambda done, total: None) -> list[str]:
        """The training captions, streamed from the source where they are not here yet."""
        part = self.data.prompts
        if part is None:
            return []

        def keep(k: int, item: tuple[int, str]) -> Row:
            return {"position": item[0], "text": item[1]}

        def stream(skip: int) -> Iterable[tuple[int, str]]:
            if part.source not in PROMPT_SOURCES:
                return iter_captions(part, skip)
            listed = load_prompts(part)
            pairs = zip(listed.positions, listed.texts, strict=True)
            return (pair for pair in pairs if pair[0] >= skip)

        listing = self.folder("prompts") / "captions.jsonl"
        drawn = _drawn(listing, CAPTION, part.source, part.num_prompts, stream, keep, progress)
        return [row["text"] for row in drawn]

    def collect_images(self, progress: OnItem = lambda done, total: None) -> list[tuple[str, Path]]:
        """Caption and file of each real image, square at the resolution."""
        part = self.data.images
        if part is None:
            return []
        folder = self.folder("images")

        def keep(k: int, item: tuple[int, str, Tensor]) -> Row:
            position, caption, image = item
            save_png(folder / f"{k:06d}.png", image)
            return {"file_name": f"{k:06d}.png", "prompt": caption, "position": position}

        stream = partial(iter_images, part, self.resolution)
        listing = folder / "metadata.jsonl"
        drawn = _drawn(listing, IMAGE, part.source, part.num_images, stream, keep, progress)
        return [(row["prompt"], folder / row["file_name"]) for row in drawn]


def _drawn(
    listing: Path,
    form: Row,
    source: str,
    wanted: int,
    stream: Callable[[int], Iterable[Any]],
    keep: Callable[[int, Any], Row],
    progress: OnItem,
) -> list[Row]:
    """Rows of a listing, a line each; those that lack are drawn, from the position after the last.

    Each line is flushed, so that an interruption loses at most the item under way. One process
    draws, others wait for it.
    """
    if len(rows := _whole_rows(listing, form)) >= wanted:
        return rows[:wanted]
    with locked(listing.parent):
        rows = _mended(listing, form)  # another may have drawn them meanwhile
        with listing.open("a", encoding="utf-8") as file:
            missing = stream(rows[-1]["position"] + 1 if rows else 0)
            for item in islice(missing, max(0, wanted - len(rows))):
                rows.append(keep(len(rows), item))
                file.write(json.dumps(rows[-1]) + "\n")
                file.flush()
                progress(len(rows), wanted)
    if len(rows) < wanted:
        raise BenchError(f"train_data: {too_few(source, len(rows), wanted)}")
    return rows[:wanted]


def _whole_rows(listing: Path, form: Row) -> list[Row]:
    """Rows that are there, whoever writes more; a line that is cut off is none."""
    if not listing.is_file():
        return []
    again = f"Delete {listing.parent} and run again: what it lists is drawn again"
    return list(iter_appended(listing, form, again))


def _mended(listing: Path, form: Row) -> list[Row]:
    """The same, of a file that nobody else writes, without the line that was cut off."""
    rows = _whole_rows(listing, form)
    if listing.is_file():
        whole, end, torn = listing.read_bytes().rpartition(b"\n")
        if torn:
            listing.write_bytes(whole + end)
    return rows


def read_square(path: Path) -> Tensor:
    """A kept image as float32 [3, H, W] in [-1, 1]."""
    with open_image(path) as image:
        return to_tensor(rgb(image))
