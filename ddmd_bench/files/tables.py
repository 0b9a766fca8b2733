"""Tables as Parquet, written whole; read where their columns are those that are asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddmd_bench.files.reading import PUT_BACK, reading, refuse
from ddmd_bench.files.records import write_whole

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["text", "whole number", "number"]
KIND = "Parquet table"
BATCH = 128  # rows in memory while a table is streamed


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """A table without its index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    write_whole(path, buffer.getvalue())


def read_parquet(
    path: Path, columns: Mapping[str, Kind], others: Kind | None = None, remedy: str = PUT_BACK
) -> pd.DataFrame:
    """A whole table that has these columns, with a value in each row but for numbers.

    others: of what kind all further columns are; None: of any.
    """
    import pandas as pd
    from pyarrow import ArrowException

    schema = parquet_file(path, remedy).schema_arrow
    found = {field.name: _kind(field.type) for field in schema}
    if others is not None:
        columns = {**dict.fromkeys(found, others), **columns}
    for name, kind in columns.items():
        if name not in found:
            raise refuse(path, f"no column {name!r}", kind, remedy)
        if found[name] != kind and (found[name], kind) != ("whole number", "number"):
            raise refuse(path, f"its column {name!r} holds {found[name]}", kind, remedy)
    with reading(path, KIND, ArrowException, TypeError, KeyError, remedy=remedy):
        table = pd.read_parquet(path)
        # What pandas wrote beside the columns may make another thing of one.
        gaps = [name for name, kind in columns.items() if kind != "number" and table[name].hasnans]
    if gaps:
        raise refuse(path, f"its column {gaps[0]!r} has rows without a value", "one each", remedy)
    return table


def parquet_file(path: Path, remedy: str = PUT_BACK) -> Any:
    """A Parquet file, opened: its schema and numbers of rows; no two columns share a name."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with reading(path, KIND, ArrowException, remedy=remedy):
        file = ParquetFile(path)
        names = file.schema_arrow.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise refuse(path, f"two columns are called {', '.join(twice)}", "one", remedy)
    return file


def iter_parquet(
    path: Path, columns: Sequence[str] | None = None, skip: int = 0, remedy: str = PUT_BACK
) -> Iterator[dict[str, Any]]:
    """The rows of a file in its order, from row `skip` on; of these columns, or of all."""
    from pyarrow import ArrowException

    file = parquet_file(path, remedy)
    groups = list(range(file.num_row_groups))
    while groups and file.metadata.row_group(groups[0]).num_rows <= skip:  # not read at all
        skip -= file.metadata.row_group(groups.pop(0)).num_rows
    chosen = list(columns) if columns is not None else None
    batches = file.iter_batches(BATCH, row_groups=groups, columns=chosen)
    while True:
        with reading(path, KIND, ArrowException, remedy=remedy):
            if (batch := next(batches, None)) is None:
                return
            rows = batch.slice(skip).to_pylist()
        yield from rows
        skip = max(skip - batch.num_rows, 0)


def _kind(kind: Any) -> str:
    """One of `Kind`, or pyarrow's name of another type."""
    from pyarrow import types

    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_integer(kind):
        return "whole number"
    return "number" if types.is_floating(kind) else str(kind)
