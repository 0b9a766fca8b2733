"""Captions and real images to train on: read in the source's order, from any position on.

captions = iter_captions(suite.train_data.prompts, skip=1000)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ddmd_bench.data.hub_tables import is_hub_name, readable, stream_hub
from ddmd_bench.data.image_sources import open_captioned
from ddmd_bench.data.pixels import rgb, square, to_tensor
from ddmd_bench.data.tables import FORMATS, columns_of, is_local_source, rows_of, source_path
from ddmd_bench.data.texts import text_column, text_of
from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import DataSource

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

T = TypeVar("T")
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
    _require(data, skip)
    if is_local_source(data.source):
        path = source_path(data)
        column = text_column(data.source, columns_of(path), data.column)
        rows = rows_of(path, [column], skip)
    else:
        streamed, names = stream_hub(data)
        column = text_column(data.source, names, data.column)
        rows = readable(data.source, streamed.select_columns([column]).skip(skip))
    stream: Stream[tuple[int, str]] = Stream(data.source, iter(()))
    pairs = ((row.get(column), None) for row in rows)
    captioned = _captioned(data.source, column, pairs, skip, stream.skipped)
    stream.items = ((position, text) for position, text, _ in captioned)
    return stream


def iter_images(
    data: DataSource, resolution: int, skip: int = 0
) -> Stream[tuple[int, str, Tensor]]:
    """(position, caption, image [3, H, W] in [-1, 1], H = W = resolution), from `skip` on.

    From a folder of images with metadata or text files, Parquet with a column of images, or a
    dataset of the Hub. Images that cannot be read and images without a caption are left out.
    """
    _require(data, skip)
    found = open_captioned(data, skip)
    stream: Stream[tuple[int, str, Tensor]] = Stream(data.source, iter(()))
    rows = _captioned(data.source, found.column, found.rows, skip, stream.skipped)
    stream.items = _decoded(rows, found.decode, resolution, stream.skipped)
    return stream


def require_source(data: DataSource) -> None:
    """A source is a local file or folder, or a dataset of the Hub with the column of its text."""
    if is_local_source(data.source):
        return
    if not is_hub_name(data.source):
        raise BenchError(
            f"{data.source}: neither a local file or folder ({', '.join(FORMATS)}) nor owner/name "
            "of a dataset on the Hub"
        )
    if data.column is None:
        raise BenchError(f"{data.source}: a dataset of the Hub needs the column of its text")


def _require(data: DataSource, skip: int) -> None:
    require_source(data)
    if skip < 0:
        raise BenchError(f"{data.source}: cannot begin at position {skip}")


def too_few(source: str, found: int, wanted: int, which: str = "") -> str:
    """A sentence for a source that has less than is asked for."""
    return f"{source} has {found} of the {wanted} that are asked for{which and f', {which}'}"


def _captioned(
    where: str,
    column: str,
    rows: Iterable[tuple[Any, Any]],
    skip: int,
    skipped: list[tuple[int, str]],
) -> Iterator[tuple[int, str, Any]]:
    for position, (caption, image) in enumerate(rows, start=skip):
        if text := text_of(where, column, position, caption):
            yield position, text, image
        else:
            skipped.append((position, "no caption"))


def _decoded(
    rows: Iterable[tuple[int, str, Any]],
    decode: Callable[[Any], Image],
    resolution: int,
    skipped: list[tuple[int, str]],
) -> Iterator[tuple[int, str, Tensor]]:
    for position, caption, encoded in rows:
        try:
            image = square(rgb(decode(encoded)), resolution)
        except (ConnectionError, TimeoutError) as error:
            raise BenchError(f"image {position}: the network failed: {error}") from error
        except (
            OSError,  # no such file, no image, an image cut off
            ValueError,
            TypeError,  # no value at all
            SyntaxError,  # what Pillow calls a broken PNG
        ) as error:
            skipped.append((position, f"{type(error).__name__}: {error}"))
            continue
        yield position, caption, to_tensor(image)
