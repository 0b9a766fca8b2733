"""The HTML page, from one template and one view; everything interpolated is escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.reporting import numbers
from ddmd_bench.reporting.browsing import browsing
from ddmd_bench.reporting.escaping import visible
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.reporting.seeds import fewer_than_expected
from ddmd_bench.reporting.view import page_view

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

HERE = Path(__file__).parent
TEMPLATE, SCRIPTS = "index.html.j2", ("page.js", "cost.js", "browser.js")


def html(record: dict[str, Any], run: RunFiles, folder: Path | None) -> str:
    """The page for this folder: whole in itself; more pictures are shown where they lie beside it.

    Without a folder no place of large pictures is named, and never an address on a network.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        # What a template itself says comes as another type.
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        arrows=numbers.ARROWS,
        metric_shown=numbers.metric_shown,
        interval_shown=numbers.interval_shown,
        shown=numbers.shown,
        p_shown=numbers.p_shown,
        unit_of=numbers.unit_of,
        fewer_than_expected=fewer_than_expected,
    )
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return environment.get_template(TEMPLATE).render(
        page_view(record, run),
        browser=browsing(record, run, folder),
        script=script,
        policy=content_policy(f"\n{script}"),
    )


def page_place(plan: Plan) -> Path | None:
    """From where a page looks for large pictures; what is copied out of a pack goes again."""
    return plan.report_folder if plan.packed is None else None


def content_policy(script: str) -> str:
    """What a browser may do for the page: run this script, show its own styles and pictures."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
