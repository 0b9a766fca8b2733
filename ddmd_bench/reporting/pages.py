"""The HTML page, from one template and one view; everything interpolated is escaped."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from ddmd_bench.reporting import numbers
from ddmd_bench.reporting.escaping import visible
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.reporting.seeds import fewer_than_expected
from ddmd_bench.reporting.view import page_view

TEMPLATE = "index.html.j2"


def html(record: dict[str, Any], run: RunFiles) -> str:
    """The self-contained page: no address outside it is named."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
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
    policy = content_policy((Path(__file__).parent / TEMPLATE).read_text(encoding="utf-8"))
    return environment.get_template(TEMPLATE).render(page_view(record, run), policy=policy)


def content_policy(template: str) -> str:
    """What a browser may do for the page: run its one script, show its own styles and pictures."""
    script = template.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
