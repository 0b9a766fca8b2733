"""Captions and real images to train on: read in the source's order, from any position on.

captions = iter_captions(suite.train_data.prompts, skip=1000)
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ddmd_bench.data.pixels import rgb, square, to_tensor
from ddmd_bench.data.prompt_sources import images_of_prompts
from ddmd_bench.data.tables import (
    BUILDERS,
    exactly,
    explained,
    is_hub_name,
    is_local_source,
    open_builder,
    open_file,
    open_hub,
    readable,
    source_path,
    text_column,
    text_of,
)
from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

T = TypeVar("T")
IMAGE_COLUMN = "image"
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
NAMED = 5  # positions that a sentence names


@dataclass
class Stream(Generic[T]):
    """Items of a source in order, once; what was left out is kept, and said at the end."""

    source: str
    items: Iterator[T]
    skipped: list[tuple[int, str]] = field(default_factory=list)  # position, reason

    def __iter__(self) -> Iterator[T]:
        yield from self.items
        if self.skipped:
            warnings.warn(self.left_out(), stacklevel=2)

    def left_out(self) -> str:
        """A sentence about what was left out so far."""
        named = [f"{position} ({reason})" for position, reason in self.skipped[:NAMED]]
        more = f" and {len(self.skipped) - NAMED} more" if len(self.skipped) > NAMED else ""
        where = f", at positions {', '.join(named)}{more}" if named else ""
        return f"{self.source}: {len(self.skipped)} left out{where}"


def iter_captions(data: DataSource, skip: int = 0) -> Stream[tuple[int, str]]:
    """(position, text) of a local file or a dataset of the Hub, from position `skip` on.

    Positions count every row, empty ones too, which are left out.
    """
    _require_text_column(data)
    rows = _open(data)
    column = text_column(data.source, _names(data.source, rows), data.column)
    stream: Stream[tuple[int, str]] = Stream(data.source, iter(()))
    texts = _captioned(data.source, rows.select_columns([column]), column, skip, stream.skipped)
    stream.items = ((position, text) for position, text, _ in texts)
    return stream


def iter_images(
    data: DataSource, resolution: int, skip: int = 0
) -> Stream[tuple[int, str, Tensor]]:
    """(position, caption, image [3, H, W] in [-1, 1], H = W = resolution), from `skip` on.

    From a folder of images with `metadata.jsonl` or `metadata.csv`, Parquet with a column of
    images, or a dataset of the Hub. Images that cannot be read and images without a caption are
    left out.
    """
    _require_text_column(data)
    rows = _open_images(data)
    names = _names(data.source, rows)
    image = _image_column(data.source, rows, names)
    caption = text_column(data.source, names, data.column)
    decode, rows = _undecoded(rows, image)
    rows = rows.select_columns([image, caption])
    stream: Stream[tuple[int, str, Tensor]] = Stream(data.source, iter(()))
    rows = _captioned(data.source, rows, caption, skip, stream.skipped)
    stream.items = _decoded(rows, image, decode, resolution, stream.skipped)
    return stream


def iter_encoded_images(data: DataSource, skip: int = 0) -> Iterator[tuple[str, bytes]]:
    """(name for errors, encoded bytes) of every image of a source, captions unread, from `skip` on.

    A folder with files of images gives them in the order of their paths, as does the archive of a
    published list of prompts; for Parquet and datasets of the Hub `column` is that of the images.
    """
    if archive := images_of_prompts(data.source):
        yield from _zipped(*archive, skip)
        return
    if is_local_source(data.source) and (path := source_path(data)).is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if files:
            yield from ((str(file), file.read_bytes()) for file in files[skip:])
            return
        if not any(path.rglob("*.parquet")):
            raise BenchError(
                f"{path}: holds neither images ({', '.join(IMAGE_SUFFIXES)}) nor .parquet"
            )
    rows = _open_images(data)
    names = _names(data.source, rows)
    column = data.column or _image_column(data.source, rows, names)
    _, rows = _undecoded(rows, column)
    rows = rows.select_columns([column]).skip(skip)
    for position, row in enumerate(readable(data.source, rows), start=skip):
        value = _loaded(row[column])
        if value is None or value["bytes"] is None:
            raise BenchError(f"{data.source}: row {position} holds no image")
        yield f"{data.source}, row {position}", value["bytes"]


def _zipped(path: Path, pattern: str, skip: int) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                name
                for name in archive.namelist()
                if fnmatch(name, pattern) and name.lower().endswith(IMAGE_SUFFIXES)
            )
            if not members:
                raise BenchError(f"{path}: holds no images as {pattern}")
            for name in members[skip:]:
                yield f"{path}: {name}", archive.read(name)
    except zipfile.BadZipFile as error:
        raise BenchError(f"{path}: not a whole zip: {error}. Fetch it again") from error


def _require_text_column(data: DataSource) -> None:
    if data.column is None and is_hub_name(data.source) and not is_local_source(data.source):
        raise BenchError(f"{data.source}: a dataset of the Hub needs the column of its text")


def _open(data: DataSource) -> Any:
    if is_local_source(data.source):
        return open_file(source_path(data))
    return _open_hub(data)


def _open_images(data: DataSource) -> Any:
    if not is_local_source(data.source):
        return _open_hub(data)
    path = source_path(data)
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise BenchError(f"{path}: expected a folder of images, or a .parquet file with them")
        return open_file(path)
    if any(path.glob("metadata.*")):
        return open_builder(str(path), "imagefolder", data_dir=str(path), drop_labels=True)
    if tables := sorted(path.rglob("*.parquet")):
        return open_builder(str(path), "parquet", data_files=exactly(tables))
    raise BenchError(
        f"{path}: has neither metadata.jsonl or metadata.csv with file_name and caption of each "
        "image, nor .parquet files"
    )


def _open_hub(data: DataSource) -> Any:
    if not is_hub_name(data.source):
        raise BenchError(
            f"{data.source}: neither a local file or folder ({', '.join(BUILDERS)}) nor owner/name "
            "of a dataset on the Hub"
        )
    return open_hub(data, streaming=True)[0]


def _names(where: str, rows: Any) -> list[str]:
    """The columns: a text format says them with its first row."""
    if rows.features is not None:
        return list(rows.features)
    first = next(readable(where, rows), None)
    if first is None:
        raise BenchError(f"{where}: holds no row")
    return list(first)


def _image_column(where: str, rows: Any, names: list[str]) -> str:
    from datasets import Image

    typed = [name for name, kind in (rows.features or {}).items() if isinstance(kind, Image)]
    if len(typed) == 1:
        return str(typed[0])
    if IMAGE_COLUMN in names:
        return IMAGE_COLUMN
    raise BenchError(
        f"{where}: expected one column of images, or one called {IMAGE_COLUMN!r}; it has: "
        f"{', '.join(names)}"
    )


def _undecoded(rows: Any, image: str) -> tuple[Callable[[Any], Image.Image], Any]:
    """How an image is decoded, and rows that leave it undone: one bad image stops nothing."""
    from datasets import Image

    if not isinstance((rows.features or {}).get(image), Image):
        return Image().decode_example, rows.cast_column(image, Image(decode=False))
    # A cast, or this after columns were selected, would leave a folder on the Hub decoded.
    return Image().decode_example, rows.decode(False)


def _captioned(
    where: str,
    rows: Any,
    column: str,
    skip: int,
    skipped: list[tuple[int, str]],
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    if skip < 0:
        raise BenchError(f"{where}: cannot begin at position {skip}")
    for position, row in enumerate(readable(where, rows.skip(skip)), start=skip):
        text = text_of(where, column, position, row[column])
        if text:
            yield position, text, row
        else:
            skipped.append((position, "no caption"))


def _decoded(
    rows: Iterable[tuple[int, str, Mapping[str, Any]]],
    column: str,
    decode: Callable[[Any], Image.Image],
    resolution: int,
    skipped: list[tuple[int, str]],
) -> Iterator[tuple[int, str, Tensor]]:
    from PIL import Image

    for position, caption, row in rows:
        try:
            image = square(rgb(decode(_loaded(row[column]))), resolution)
        except (ConnectionError, TimeoutError) as error:
            raise BenchError(f"image {position}: the network failed: {error}") from error
        except (
            OSError,  # no such file, no image, an image cut off
            ValueError,
            TypeError,  # no value at all
            SyntaxError,  # what Pillow calls a broken PNG
            Image.DecompressionBombError,
        ) as error:
            skipped.append((position, f"{type(error).__name__}: {error}"))
            continue
        yield position, caption, to_tensor(image)


def _loaded(value: Any) -> Any:
    """The bytes of a file, here or on the Hub, in the place of its path: none stays open."""
    if value is None or value["bytes"] is not None:
        return value
    path = value["path"] or ""
    if path.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        with explained(path):
            return {"bytes": HfFileSystem().cat_file(path), "path": None}
    return {"bytes": Path(path).read_bytes(), "path": None} if Path(path).is_file() else value
