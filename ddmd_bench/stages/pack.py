"""Pack a run and its report into one archive."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.files.archives import Written, write_archive
from ddmd_bench.reporting.packing import members_of
from ddmd_bench.reporting.packs import require_room

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def pack(
    plan: Plan, path: Path, without: Collection[str], begins: Callable[[int, int], None]
) -> Written:
    """Write the archive of a run that is verified; `begins` hears how many files and bytes."""
    members = members_of(plan, without)
    num_bytes = sum(member.size for member in members)
    require_room(path.parent, num_bytes, "Make room, or name another place: --output")
    begins(len(members), num_bytes)
    return write_archive(path, members)
