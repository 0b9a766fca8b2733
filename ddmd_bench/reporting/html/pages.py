"""The HTML page, from one template and one view; everything interpolated is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.reporting import numbers
from ddmd_bench.reporting.html.browsing import browsing
from ddmd_bench.reporting.html.templates import content_policy, environment, script_of
from ddmd_bench.reporting.html.view import page_view
from ddmd_bench.reporting.runfiles import RunFiles
from ddmd_bench.reporting.seeds import fewer_than_expected

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

TEMPLATE, SCRIPTS = (
    "index.html.j2",
    (
        "page.js",
        "tables.js",
        "cost.js",
        "course.js",
        "element.js",
        "run_data.js",
        "viewer.js",
        "browser.js",
    ),
)


def html(record: dict[str, Any], run: RunFiles, folder: Path | None) -> str:
    """The page for this folder: whole in itself; more pictures are shown where they lie beside it.

    Without a folder no place of large pictures is named, and never an address on a network.
    """
    pages = environment()
    pages.globals.update(
        arrows=numbers.ARROWS,
        metric_shown=numbers.metric_shown,
        interval_shown=numbers.interval_shown,
        shown=numbers.shown,
        p_shown=numbers.p_shown,
        unit_of=numbers.unit_of,
        fewer_than_expected=fewer_than_expected,
    )
    script = script_of(SCRIPTS)
    return pages.get_template(TEMPLATE).render(
        page_view(record, run),
        browser=browsing(record, run, folder),
        script=script,
        policy=content_policy(script),
    )


def page_place(plan: Plan) -> Path | None:
    """From where a page looks for large pictures; what is copied out of a pack goes again."""
    return plan.report_folder if plan.packed is None else None
