"""What is wrong with training data, as far as it is known before any work or download."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ddmd_bench.data.image_folders import captioned_images
from ddmd_bench.data.image_sources import open_captioned, parquet_tables
from ddmd_bench.data.pixels import DEEP_MODES
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.data.streams import iter_captions, require_source, too_few
from ddmd_bench.data.tables import is_local_source, source_path
from ddmd_bench.data.training import source_identity
from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import DataSource, TrainData, TrainImages, TrainPrompts


def data_problems(data: TrainData) -> Iterator[str]:
    """Sentences that say what to do; the Hub is not asked."""
    for kind, check in (("prompts", _check_captions), ("images", _check_images)):
        if (part := getattr(data, kind)) is not None:
            try:
                check(part)
                if not is_local_source(part.source):
                    source_identity(part)
            except BenchError as error:
                yield f"train_data.{kind}: {error}"


def _check_captions(part: TrainPrompts) -> None:
    wanted, listed = part.num_prompts, PROMPT_SOURCES.get(part.source)
    if listed is not None:
        if listed.num_prompts is not None and listed.num_prompts < wanted:
            raise BenchError(too_few(part.source, listed.num_prompts, wanted))
        return
    require_source(part)
    if is_local_source(part.source):
        _require_captions(part, [source_path(part)], wanted)


def _check_images(part: TrainImages) -> None:
    require_source(part)
    if not is_local_source(part.source):
        return
    path = source_path(part)
    if tables := parquet_tables(path):
        _require_captions(part, tables, part.num_images)
        # The others are seen when they are drawn: to look at them is to read all bytes.
        rows = open_captioned(part, 0)
        try:
            rows.decode(next(image for _, image in rows.rows))
        except (OSError, ValueError) as error:
            raise BenchError(f"{tables[0]}: its first row holds no image: {error}") from error
        return
    images = captioned_images(path, part.column)
    if deep := [path for _, path, header in images if header.mode.startswith(DEEP_MODES)]:
        raise BenchError(
            f"{part.source}: {len(deep)} images have more than 8 bits a channel, e.g. {deep[0]}. "
            "Convert them to 8 bits"
        )
    if len(images) < part.num_images:
        raise BenchError(too_few(part.source, len(images), part.num_images, "with a caption"))


def num_enlarged(part: TrainImages, resolution: int) -> int:
    """Images to train on that are smaller than the resolution, of a folder; others are not known.

    Raises BenchError where there is no such folder.
    """
    if not is_local_source(part.source):
        return 0
    path = source_path(part)
    if parquet_tables(path):
        return 0
    images = captioned_images(path, part.column)[: part.num_images]
    return sum(min(header.width, header.height) < resolution for _, _, header in images)


def _require_captions(part: DataSource, files: Sequence[Path], wanted: int) -> None:
    """The files hold so many captions together; no more of them is read."""
    found = 0
    for file in files:
        captions = iter_captions(DataSource(source=str(file), column=part.column))
        found += sum(1 for _ in islice(captions.items, wanted - found))
    if found < wanted:
        raise BenchError(too_few(part.source, found, wanted))
