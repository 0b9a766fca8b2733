"""Tensors on disk in shards that are whole or absent: safetensors, beside each what is in it.

The record, a JSON file written last, marks a shard as whole and holds its size and sha256. A shard
is never changed: what comes later stands in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256, read_record, write_json, write_whole
from ddmd_bench.files.tensors import SUFFIX, open_safetensors

if TYPE_CHECKING:
    from torch import Tensor


def write_shard(
    folder: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """One shard with a record of the facts; its path. The folder is this process's alone."""
    from safetensors.torch import save

    data, shard = save(dict(tensors)), folder / f"{name}{SUFFIX}"
    write_whole(shard, data)
    told = {**facts, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_json(shard.with_suffix(".json"), told)
    return shard


def whole_shards(folder: Path, facts: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Each whole shard with its record, by name; one of another size is an error.

    facts: the form of what a record says beside size and sha256.
    """
    for shard in sorted(folder.glob(f"*{SUFFIX}")):
        record = shard.with_suffix(".json")
        if not record.is_file():
            continue
        found = read_record(record, {**facts, "size": int, "sha256": str}, _anew(record))
        if (size := shard.stat().st_size) != found["size"]:
            raise BenchError(
                f"{shard}: expected {found['size']} bytes, found {size} bytes. {_anew(record)}"
            )
        yield shard, found


def verify_shards(folder: Path) -> None:
    """Every shard has the sha256 that was recorded when it was written."""
    for shard, record in whole_shards(folder, {}):
        if (sha256 := file_sha256(shard)) != record["sha256"]:
            path = shard.with_suffix(".json")
            raise BenchError(
                f"{shard}: its sha256 is {sha256}, not the one that {path.name} records. "
                f"{_anew(path)}"
            )


def open_shard(shard: Path) -> AbstractContextManager[Any]:
    """A shard's safetensors file, opened."""
    return open_safetensors(shard, remedy=_anew(shard.with_suffix(".json")))


def _anew(record: Path) -> str:
    return f"Delete {record} and run again"
