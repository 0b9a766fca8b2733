"""The formats in which prompt lists are published, each read to (text, category) in its order."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ddmd_bench.data.tables import rows_of
from ddmd_bench.data.texts import as_text, stripped, text_column, text_of
from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import read_text
from ddmd_bench.files.records import parse_json

CATEGORY_COLUMN = "category"
Row = tuple[str, str | None]  # text ('' where it is missing), category
Read = tuple[Path, str, str | None]  # the file that a prompt comes from, text, category
# Files, the column of the text and that of the category.
Reader = Callable[[Sequence[Path], str | None, str | None], Iterator[Read]]


def table_rows(
    where: str, rows: Iterable[Mapping[str, Any]], column: str | None, category: str | None
) -> Iterator[Row]:
    """Text and category of each row; a column `category` counts where none is named."""
    found = None
    for k, row in enumerate(rows):
        found = found or text_column(where, list(row), column)
        if category is not None and category not in row:
            raise BenchError(f"{where}: no column {category!r}; it has: {', '.join(row)}")
        style = stripped(as_text(row.get(category or CATEGORY_COLUMN)) or "")
        yield text_of(where, found, k, row.get(found)), style or None


def _table(paths: Sequence[Path], column: str | None, category: str | None) -> Iterator[Read]:
    """A row for each prompt: CSV, JSON lines, a JSON list, Parquet, or lines of text."""
    for path in paths:
        for text, style in table_rows(str(path), rows_of(path), column, category):
            yield path, text, style


def _document(paths: Sequence[Path], column: str | None, category: str | None) -> Iterator[Read]:
    """A text file for each prompt."""
    for path in paths:
        yield path, stripped(read_text(path)), None


def _json_mapping(
    paths: Sequence[Path], column: str | None, category: str | None
) -> Iterator[Read]:
    """One JSON object: id -> record; `datasets` would make a column of each id."""
    for path in paths:
        try:
            records = parse_json(read_text(path))
        except ValueError as error:
            raise BenchError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(records, dict) or not all(isinstance(r, dict) for r in records.values()):
            raise BenchError(f"{path}: expected a JSON object of records")
        for text, style in table_rows(str(path), records.values(), column, category):
            yield path, text, style


ZIP_MEMBER = "coco10k/all_prompts.pkl"


def _pickle_in_zip(
    paths: Sequence[Path], column: str | None, category: str | None
) -> Iterator[Read]:
    """A pickled list of texts in a zip: DMD2's only form of its 10k list."""
    for path in paths:
        where = f"{path}: {ZIP_MEMBER}"
        try:
            with zipfile.ZipFile(path) as archive, archive.open(ZIP_MEMBER) as file:
                texts = load_plain_pickle(file, where)
        except (zipfile.BadZipFile, KeyError) as error:
            raise BenchError(f"{path}: expected a zip that holds {ZIP_MEMBER}: {error}") from error
        if not isinstance(texts, list):
            raise BenchError(f"{where}: expected a list, found {type(texts).__name__}")
        for k, text in enumerate(texts):
            yield path, text_of(where, "prompt", k, text), None


class _PlainUnpickler(pickle.Unpickler):
    """Lists, strings and numbers need no import; everything else does, and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it asks for an object outside itself")


def load_plain_pickle(file: IO[bytes], where: str) -> Any:
    """A pickle of plain data: a pickle that names any class or function is not run."""
    try:
        return _PlainUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,  # of a damaged stream, as are the next ones
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as error:
        raise BenchError(
            f"{where}: refused: a pickle can run any program when it is read, so only lists and "
            f"strings are, and this one is something else or damaged ({error})"
        ) from error


READERS: dict[str, Reader] = {
    "table": _table,
    "document": _document,
    "json_mapping": _json_mapping,
    "pickle_in_zip": _pickle_in_zip,
}
