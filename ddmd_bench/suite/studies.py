"""What people preferred, for the claims that rest on it: the tallies of the suite's studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddmd_bench.files.forms import MAYBE_NUMBER
from ddmd_bench.files.records import read_versioned
from ddmd_bench.suite.claims import Claim

STUDIES = "studies"  # where `study make` writes, and the folder in a pack
TALLY = "tally/tally.json"  # in a study's
SCHEMA = 1
FORM = {
    "students": {...: {"title": str, "drawn": (str, type(None))}},
    "counted": (
        {
            "people": int,
            "pairs": [
                {"student": str, "other": str, "value": MAYBE_NUMBER, "low": MAYBE_NUMBER,
                 "high": MAYBE_NUMBER, "n": int}
            ],
        },
        type(None),
    ),
}  # fmt: skip


def studies_of(claims: Iterable[Claim]) -> list[str]:
    """The studies that claims rest on, each once."""
    return list(dict.fromkeys(claim.study for claim in claims if claim.study is not None))


def tally_file(study: str) -> Path:
    """Of a study's folder, or of one by its name in `studies/`; it need not be there yet."""
    folder = Path(study).expanduser()
    return (folder if folder.is_dir() else Path(STUDIES) / study) / TALLY


def read_tally(path: Path) -> Mapping[str, Any] | None:
    """A tally, None where there is none yet."""
    if not path.is_file():
        return None
    form = {SCHEMA: {**FORM, "schema": int}}
    return read_versioned(path, form, "Make it again: `python -m ddmd_bench study tally`")
