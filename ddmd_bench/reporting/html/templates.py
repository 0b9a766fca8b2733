"""How a page is made of its template: what is interpolated is escaped, scripts go by their hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.reporting.escaping import visible

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent


def environment(*folders: Path) -> Environment:
    """Templates of this folder, and of others before it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        # What a template itself says comes as another type.
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def script_of(names: Sequence[str]) -> str:
    """The one script of a page, of several files."""
    return "".join((HERE / name).read_text(encoding="utf-8") for name in names)


def content_policy(script: str) -> str:
    """What a browser may do for a page: run this script, show its own styles and pictures."""
    # A browser hashes what stands between the tags, the line's end after the first one too.
    digest = base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
