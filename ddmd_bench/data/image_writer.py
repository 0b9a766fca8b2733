"""Images on disk as they are drawn: written in threads, whole or absent, and drawn once.

    with ImageWriter(folder, len(images), num_threads) as writer:
        for places in batches_of(writer.missing): writer.add(places, rows, levels)
        rows = writer.finish()

A journal beside the images names each batch once its files are whole. Whoever comes after a kill
keeps what it names and draws the rest: the batch that was being drawn, and the one before it where
its files were not written yet. Of several ranks each writes its own images and a journal of them;
the first alone looks through the folder and ends it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.data.images import png_bytes_of
from ddmd_bench.errors import Unreadable
from ddmd_bench.files import ranks
from ddmd_bench.files.made import write_list
from ddmd_bench.files.records import file_sha256, iter_appended, write_jsonl, write_whole

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
METADATA = "metadata.jsonl"
DRAWN = {"file_name": str, "sha256": str, "seconds?": float}  # of the journal's rows
OWN = ("sha256", "seconds")  # of the journal's rows what metadata do not tell


class ImageWriter:
    """So many images of one student in a folder, of which some may be there already, and more:
    a drawing that ends when comparisons are settled is asked for fewer where they are looked at
    anew."""

    def __init__(self, folder: Path, num_images: int, num_threads: int) -> None:
        self.folder, self.num_images = folder, num_images
        of_rank = "" if ranks.is_first() else f".{ranks.number()}"
        self.journal = folder.parent / f"drawn{of_rank}.jsonl"
        self.rows = dict[int, Row]()
        with ranks.together():
            if ranks.is_first():
                folder.mkdir(parents=True, exist_ok=True)
                self.rows |= self._kept()
                self._remove_others()
        self.rows = ranks.told(self.rows)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="png")
        self._naming: Future[list[Row]] | None = None  # of the batch under way

    @property
    def missing(self) -> list[int]:
        """Places of the images that are not there, in order."""
        return [k for k in range(self.num_images) if k not in self.rows]

    def _kept(self) -> Iterator[tuple[int, Row]]:
        """What the journal names and is there as it was written; a line that was cut ends it."""
        for journal in self._journals():
            with suppress(Unreadable, ValueError):
                for rows in iter_appended(journal, [DRAWN]):
                    for row in rows:
                        place, path = _place(row), self.folder / row["file_name"]
                        if path.is_file() and file_sha256(path) == row["sha256"]:
                            yield place, row

    def _journals(self) -> list[Path]:
        """Of as many ranks as an earlier try had."""
        return sorted(self.folder.parent.glob("drawn*.jsonl"))

    def _remove_others(self) -> None:
        """Files that no whole batch names, and the journals' cut ends: one journal is left."""
        named = {row["file_name"] for row in self.rows.values()}
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in named:
                path.unlink()
        lines = [json.dumps([row]) + "\n" for _, row in sorted(self.rows.items())]
        write_whole(self.journal, "".join(lines))
        for journal in self._journals():
            if journal != self.journal:
                journal.unlink()

    def add(self, places: Sequence[int], rows: Sequence[Row], levels: Tensor) -> None:
        """Write images, uint8 [B, 3, H, W], while the next ones are drawn."""
        self._settle()
        writing = []
        for place, row, image in zip(places, rows, levels, strict=True):
            name = f"{place:05d}.png"
            written = self._pool.submit(_write, self.folder / name, image)
            writing.append(({"file_name": name, **row}, written))
        # After its files in the pool's queue, so that one thread is enough; not later, since a kill
        # while the next batch is drawn would lose this one too.
        self._naming = self._pool.submit(self._name, writing)

    def _name(self, writing: Sequence[tuple[Row, Future[str]]]) -> list[Row]:
        """Name a batch in the journal once its files are whole."""
        batch = [{**row, "sha256": written.result()} for row, written in writing]
        with self.journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(batch, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return batch

    def _settle(self) -> None:
        """Wait for the batch under way."""
        if self._naming is not None:
            self.rows |= {_place(row): row for row in self._naming.result()}
            self._naming = None

    def finish(self, goes_on: bool = False) -> list[Row]:
        """Write `metadata.jsonl`, an imagefolder's, in the order of the images, and the list of
        their sha256 beside the folder; the rows of all ranks. The journals stay where the drawing
        may go on."""
        self._settle()
        for theirs in ranks.gathered(self.rows):  # names and rows, no image
            self.rows |= theirs
        rows = [self.rows[k] for k in range(self.num_images)]
        with ranks.together():
            if ranks.is_first():
                self._end(rows, goes_on)
        return rows

    def _end(self, rows: Sequence[Row], goes_on: bool) -> None:
        told = [{k: v for k, v in row.items() if k not in OWN} for row in rows]
        write_jsonl(self.folder / METADATA, told)
        made = {f"{self.folder.name}/{row['file_name']}": row["sha256"] for row in rows}
        write_list(self.folder.parent, made)
        for journal in [] if goes_on else self._journals():
            journal.unlink()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _place(row: Row) -> int:
    return int(Path(row["file_name"]).stem)


def _write(path: Path, image: Tensor) -> str:
    """Write a PNG, to the disk itself, since the journal will name it; the sha256 of its bytes."""
    data = png_bytes_of(image)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()
