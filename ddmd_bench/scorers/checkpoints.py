"""Published checkpoints fit whole, or are refused: random weights give values too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddmd_bench.errors import BenchError

SHOWN = 5  # keys of each kind that an error lists

Shape = tuple[int, ...]


def refuse_misfit(
    what: str, path: Path, expected: Mapping[str, Shape], stored: Mapping[str, Shape]
) -> None:
    """Every expected key must be stored with its shape, and no other; both by published names."""
    misshapen = [
        f"{key} {list(stored[key])}, expected {list(expected[key])}"
        for key in sorted(expected.keys() & stored)
        if tuple(stored[key]) != tuple(expected[key])
    ]
    kinds = {
        "missing": sorted(expected.keys() - stored),
        "unexpected": sorted(stored.keys() - expected),
        "of another shape": misshapen,
    }
    wrong = [f"{len(keys)} {kind} ({_listed(keys)})" for kind, keys in kinds.items() if keys]
    if wrong:
        raise BenchError(
            f"{path}: not the checkpoint of {what}. Of {len(expected)} keys: {'; '.join(wrong)}. "
            "Fetch the published file again"
        )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
