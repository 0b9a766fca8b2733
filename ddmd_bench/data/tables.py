"""Tables of this machine, read by their own names: what a suffix says is all that decides how.

Every value of a CSV or TSV file is a text: "1", "NA" and "2024-01-01" are words here, and a number
in JSON is the text that it is written as. Files are streamed; nothing of them is copied into a
cache, or remembered.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ddmd_bench.data.texts import stripped
from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import iter_lines, read_text
from ddmd_bench.files.records import parse_json
from ddmd_bench.files.tables import iter_parquet, parquet_file
from ddmd_bench.suite.settings import DataSource

Row = Mapping[str, Any]
TEXT = "text"  # what the only column of a file without names is called
GIVE = "Give a whole file"
_LONGEST = 2**31 - 1  # bytes of a CSV value; Python's own limit is 131,072


def is_local_source(source: str) -> bool:
    """Whether a source is meant as a file or folder, there or not."""
    path = Path(source)
    return path.suffix.lower() in FORMATS or source.startswith((".", "/", "~")) or path.exists()


def refuse_hub_options(data: DataSource, what: str) -> None:
    """Config, split and revision say nothing of a local file or of a named source."""
    given = [name for name in ("config", "split", "revision") if getattr(data, name) is not None]
    if given:
        raise BenchError(f"{data.source}: {what} takes no {', '.join(given)}; leave it out")


def source_path(data: DataSource) -> Path:
    """The path of a local source, relative to the working directory, which must exist."""
    refuse_hub_options(data, "a local file or folder")
    path = Path(data.source).expanduser()
    if not path.exists():
        raise BenchError(f"{data.source}: no such file or folder (looked in {Path.cwd()})")
    return path


def rows_of(path: Path, columns: Sequence[str] | None = None, skip: int = 0) -> Iterator[Row]:
    """The rows of one file in its order, from row `skip` on.

    `columns` are all that is read of Parquet; other formats give every column. A text file's only
    column is `text`, as is that of a JSON list of strings; blank lines of tables are no rows.
    """
    _require_table(path)
    if path.suffix.lower() == PARQUET:
        return iter_parquet(path, columns, skip, GIVE)
    return islice(FORMATS[path.suffix.lower()](path), skip, None)


def columns_of(path: Path) -> list[str]:
    """The columns of a file; JSON says them with its first row."""
    _require_table(path)
    if path.suffix.lower() == PARQUET:
        return list(parquet_file(path, GIVE).schema_arrow.names)
    if (first := next(FORMATS[path.suffix.lower()](path), None)) is None:
        raise BenchError(f"{path}: holds no row")
    return list(first)


def _require_table(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise BenchError(f"{path}: expected a file that ends in one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise BenchError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise BenchError(f"{path}: the file is empty")


def _text(path: Path) -> Iterator[Row]:
    return ({TEXT: line} for line in iter_lines(path))


def _csv(path: Path) -> Iterator[Row]:
    """RFC 4180: a quoted value may hold commas, quotes that are doubled, and lines."""
    csv.field_size_limit(_LONGEST)
    reader = csv.reader((f"{line}\n" for line in iter_lines(path)), strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        try:
            for values in reader:
                yield reader.line_num, values
        except csv.Error as error:
            # Python asks here for another way of opening the file.
            lone = "a carriage return that ends no line; save it with \\n at the ends of lines"
            reason = lone if "new-line character" in str(error) else error
            where = f"line {max(reader.line_num, 1)}"
            raise BenchError(f"{path}: cannot be read: {where} is not CSV: {reason}") from error

    return _named(path, records())


# A value in quotes that end where it ends, or anything without a tab.
_TSV_VALUE = re.compile(r'"((?:[^"]|"")*)"(?=\t|\Z)|([^\t]*)')


def _tsv(path: Path) -> Iterator[Row]:
    """Tabs between values; quotes that are not around the whole of a value belong to it.

    So PartiPrompts has its prompt '"G I G G L E" painted in ...'.
    """

    def records() -> Iterator[tuple[int, list[str]]]:
        for number, line in enumerate(iter_lines(path), 1):
            if line:
                yield number, list(_tsv_values(path, number, line))

    return _named(path, records())


def _tsv_values(path: Path, number: int, line: str) -> Iterator[str]:
    place = 0
    while place <= len(line):
        found = _TSV_VALUE.match(line, place)
        assert found is not None, "the second form fits everything"
        quoted, plain = found.groups()
        if plain is not None and plain.startswith('"') and plain.count('"') % 2:
            raise BenchError(
                f"{path}: cannot be read: line {number} opens a quote that it does not close: "
                f"{plain!r:.60}. Double each quote inside a value, and put quotes around it"
            )
        yield quoted.replace('""', '"') if plain is None else plain
        place = found.end() + 1


def _named(path: Path, records: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    """Rows by the names of the first record; one that is longer is refused, shorter ones lack."""
    header = next((values for _, values in records if values), [])
    names = [stripped(name) for name in header]
    while names and not names[-1]:  # what stands behind the last name belongs to no column
        names.pop()
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise BenchError(f"{path}: two columns are called {', '.join(twice)}; rename one")
    for number, values in records:
        if not values:
            continue
        if any(values[len(names) :]):
            raise BenchError(
                f"{path}: cannot be read: line {number} has {len(values)} values, its header "
                f"names {len(names)}. Put quotes around a value that holds what separates them"
            )
        padded = [*values, *[None] * (len(names) - len(values))]
        yield {name: value for name, value in zip(names, padded, strict=False) if name}


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(iter_lines(path), 1):
        if line.strip(" \t\r"):
            yield _record(path, f"line {number}", _parsed(path, f"line {number}", line))


def _json(path: Path) -> Iterator[Row]:
    """Records or strings, a list of them or one a line, whichever of both suffixes it has."""
    first = next((text for line in iter_lines(path) if (text := line.strip(" \t\r"))), "")
    if not first.startswith("["):
        yield from _json_lines(path)
        return
    for k, value in enumerate(_parsed(path, "it", read_text(path))):
        yield _record(path, f"item {k}", value)


def _parsed(path: Path, what: str, text: str) -> Any:
    try:
        return parse_json(text, number=str)
    except ValueError as error:
        raise BenchError(f"{path}: cannot be read: {what} is not JSON: {error}") from error


def _record(path: Path, what: str, value: Any) -> Row:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {TEXT: value}
    raise BenchError(f"{path}: {what} is neither a record nor a text: {value!r:.60}")


PARQUET = ".parquet"
# Suffix -> how its rows are read.
FORMATS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".txt": _text,
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _json,
    ".json": _json,
    PARQUET: iter_parquet,
}
