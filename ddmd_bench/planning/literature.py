"""The literature's values that a report shows beside a suite's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ddmd_bench.errors import unknown
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.literature.values import literature_tables
from ddmd_bench.planning.part import Asked, Part


def _problems(asked: Asked) -> Iterator[str]:
    tables = literature_tables() if asked.suite.literature else {}
    for k, beside in enumerate(asked.suite.literature):
        if beside.table not in tables:
            where = f"literature[{k}].table"
            yield f"{where}: " + unknown("published table", beside.table, tables)
            continue
        rows = tables[beside.table].rows
        for student, row in beside.rows.items():
            if row not in rows:
                where = f"literature[{k}].rows.{student}"
                yield f"{where}: " + unknown(f"row of {beside.table}", row, rows)


def _reported(asked: Asked) -> Mapping[str, str]:
    return {"literature": source_sha256("literature/*")} if asked.suite.literature else {}


LITERATURE = Part(_problems, reported=_reported)
