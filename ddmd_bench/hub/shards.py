"""Indices of weights in several files: the shards that they name, each below the index's folder.

diffusers and transformers open whatever an index names, a step up or an absolute path included.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ddmd_bench.errors import Unreadable
from ddmd_bench.files.inside import require_inside
from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record

INDICES = "*.index*.json"  # of a variant and of none


def shards_of(index: Path) -> list[str]:
    """The files that an index names, sorted; BenchError where one leads out of its folder."""
    named = read_record(index, {"weight_map": {...: str}}, FETCH_AGAIN)["weight_map"].values()
    return sorted({require_inside(name, str(index)) for name in named})


def refuse_leading_out(files: Iterable[Path]) -> None:
    """No index beside the files that are to be loaded leads out of its folder: a loader chooses
    among all that lie there."""
    for folder in sorted({path.parent for path in files}):
        for index in sorted(folder.glob(INDICES)):
            try:
                shards_of(index)
            except Unreadable:
                continue  # `damage` says so where it is asked for
