"""Real images where they lie, still encoded: folder, Parquet, archive, dataset of the Hub."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddmd_bench.data.hub_tables import explained, readable, stream_hub
from ddmd_bench.data.image_folders import (
    IMAGE_SUFFIXES,
    files_below,
    images_below,
    list_images,
    metadata_of,
)
from ddmd_bench.data.prompt_sources import images_of_prompts
from ddmd_bench.data.tables import (
    GIVE,
    PARQUET,
    is_local_source,
    rows_of,
    source_path,
)
from ddmd_bench.data.texts import text_column
from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import LARGEST, open_image
from ddmd_bench.files.tables import parquet_file
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

# Bytes of a packed image: of the most pixels that are decoded, four channels of 16 bits.
LARGEST_FILE = 8 * LARGEST
IMAGE_COLUMN = "image"


class CaptionedImages(NamedTuple):
    """Rows of a source, each a caption as it stands there and what an image is decoded from."""

    column: str  # of the captions, for errors
    rows: Iterator[tuple[Any, Any]]
    decode: Callable[[Any], PilImage]


def open_captioned(data: DataSource, skip: int) -> CaptionedImages:
    """A source of images with captions, from row `skip` on."""
    if not is_local_source(data.source):
        rows, image, names = _open_hub(data)
        column = text_column(data.source, names, data.column)
        rows = readable(data.source, rows.select_columns([image, column]).skip(skip))
        return CaptionedImages(column, ((r[column], r[image]) for r in rows), _decoded_of_hub)
    path = source_path(data)
    if tables := parquet_tables(path):
        image, names = _parquet_columns(tables[0])
        column = text_column(str(tables[0]), names, data.column)
        pairs = _parquet_rows(tables, [column, image], skip)
        return CaptionedImages(column, pairs, lambda value: _opened(_bytes_of(value)))
    listed = islice(list_images(path, data.column), skip, None)
    pairs = ((one.text, path / one.file_name) for one in listed)
    return CaptionedImages("text", pairs, lambda file: _opened(file.read_bytes()))


def parquet_tables(path: Path) -> list[Path]:
    """The Parquet files that a local source of images consists of; none if it is a folder of files.

    All of a folder, by path, whatever their names: a split is a folder or a file of its own.
    """
    if path.is_file():
        if path.suffix.lower() != PARQUET:
            raise BenchError(f"{path}: expected a folder of images, or a {PARQUET} file with them")
        return [path]
    return [] if metadata_of(path) else files_below(path, [PARQUET])


def iter_encoded_images(data: DataSource, skip: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name for errors, encoded bytes) of every image of a source, captions unread, from `skip` on.

    A folder with files of images gives them in the order of their paths, as does the archive of a
    published list of prompts; for Parquet and datasets of the Hub `column` is that of the images.
    """
    if archive := images_of_prompts(data):
        yield from _zipped(*archive, skip)
        return
    if not is_local_source(data.source):
        rows, image, _ = _open_hub(data, data.column)
        values = (r[image] for r in readable(data.source, rows.select_columns([image]).skip(skip)))
    else:
        if files := image_files(data):
            yield from ((str(file), file.read_bytes()) for file in files[skip:])
            return
        path = source_path(data)
        if not (tables := parquet_tables(path)):
            kinds = ", ".join(sorted(IMAGE_SUFFIXES))
            raise BenchError(f"{path}: holds neither images ({kinds}) nor {PARQUET}")
        image, _ = _parquet_columns(tables[0], data.column)
        values = (value for (value,) in _parquet_rows(tables, [image], skip))
    for position, value in enumerate(values, start=skip):
        try:
            encoded = _bytes_of(value)
        except ValueError as error:
            raise BenchError(f"{data.source}: row {position} holds no image") from error
        yield f"{data.source}, row {position}", encoded


def image_files(data: DataSource) -> list[Path]:
    """The files of a source, in order, each of which is an image; none where it has others."""
    if not is_local_source(data.source):
        return []
    path = source_path(data)
    files = images_below(path) if path.is_dir() else []
    if files and data.column is not None:
        raise BenchError(f"{data.source}: a folder of images takes no column; leave it out")
    return files


def image_containers(data: DataSource) -> list[Path]:
    """The files here that hold many images of a source each; none of a dataset of the Hub."""
    if archive := images_of_prompts(data):
        return [archive[0]]
    return parquet_tables(source_path(data)) if is_local_source(data.source) else []


def _zipped(path: Path, pattern: str, skip: int) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (member.filename, member.file_size)
                for member in archive.infolist()
                if fnmatch(member.filename, pattern)
                and member.filename.lower().endswith(tuple(IMAGE_SUFFIXES))
            )
            if not members:
                raise BenchError(f"{path}: holds no images as {pattern}")
            for name, size in members[skip:]:
                if size > LARGEST_FILE:
                    raise BenchError(f"{path}: {name} has {size} bytes, at most {LARGEST_FILE}")
                yield f"{path}: {name}", archive.read(name)
    except zipfile.BadZipFile as error:
        raise BenchError(f"{path}: not a whole zip: {error}. Fetch it again") from error


# Parquet


def _parquet_columns(table: Path, asked: str | None = None) -> tuple[str, list[str]]:
    """The column of the images, and all of them."""
    from pyarrow.types import is_struct

    schema = parquet_file(table, GIVE).schema_arrow
    # An image as `datasets` writes it: its bytes, and the name that its file had.
    typed = [f.name for f in schema if is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    return asked or _image_column(str(table), typed, schema.names), list(schema.names)


def _parquet_rows(
    tables: Sequence[Path], columns: Sequence[str], skip: int
) -> Iterator[tuple[Any, ...]]:
    for table in tables:
        if (num := parquet_file(table, GIVE).metadata.num_rows) <= skip:
            skip -= num
            continue
        for row in rows_of(table, columns, skip):
            yield tuple(row.get(column) for column in columns)
        skip = 0


def _image_column(where: str, typed: Sequence[str], names: Sequence[str]) -> str:
    if len(typed) == 1:
        return typed[0]
    if IMAGE_COLUMN in names:
        return IMAGE_COLUMN
    raise BenchError(
        f"{where}: expected one column of images, or one called {IMAGE_COLUMN!r}; it has: "
        f"{', '.join(names)}"
    )


# The Hub


def _open_hub(data: DataSource, asked: str | None = None) -> tuple[Any, str, list[str]]:
    """Rows that leave images undecoded, so that one bad image stops nothing; columns, theirs first.

    The column of the images is the one asked for, or found.
    """
    from datasets import Image

    rows, names = stream_hub(data)
    features = rows.features or {}
    typed = [str(name) for name, kind in features.items() if isinstance(kind, Image)]
    column = asked or _image_column(data.source, typed, names)
    # A cast, or `decode` after columns were selected, would leave a folder on the Hub decoded.
    bare = column in typed
    rows = rows.decode(False) if bare else rows.cast_column(column, Image(decode=False))
    return rows, column, names


def _decoded_of_hub(value: Any) -> PilImage:
    """Of any address that `datasets` knows."""
    from datasets import Image

    if value and (value["bytes"] is not None or (value["path"] or "").startswith("hf://")):
        return _opened(_bytes_of(value))
    decoded: PilImage = Image().decode_example(value)
    return decoded


# One image


def _bytes_of(value: Any) -> bytes:
    """An encoded image of a row, read from the Hub where it only names one.

    Raises ValueError where it is none: a file that a local table names is none of its content.
    """
    if isinstance(value, dict):
        path = value.get("path") or ""
        if value.get("bytes") is None and path.startswith("hf://"):
            from huggingface_hub import HfFileSystem

            with explained(path):
                return bytes(HfFileSystem().cat_file(path))
        value = value.get("bytes")
    if not isinstance(value, bytes):
        raise ValueError("no image")
    return value


def _opened(encoded: bytes) -> PilImage:
    return open_image(io.BytesIO(encoded))
