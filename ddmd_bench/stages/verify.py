"""Whether a run's files are those that were made, and its report is what follows from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ddmd_bench.errors import BenchError
from ddmd_bench.files.made import made_by, require_made
from ddmd_bench.files.packed import Packed, kind_of
from ddmd_bench.files.records import as_json, differing, read_json
from ddmd_bench.planning.plan import report_sources
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.html.pages import html, page_place
from ddmd_bench.reporting.pictures import NUM_EMBEDDED, shown_files
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.texts import PAGE, RECORD, texts_of

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

NO_FILES = ("doctor", "encode")  # stages whose results stand in no files of their own
MOST = 20  # lines on what differs in a report, or in a pack


class Verified(NamedTuple):
    """What differs from what was made, and what nothing is known of; files that are as made."""

    wrong: list[str]
    unknown: list[str]
    num_files: int


def verify(plan: Plan) -> Verified:
    """Hash every file of every finished task, and compute the report's record again."""
    wrong, unknown, num_files = list[str](), list[str](), 0
    for task in plan.tasks.values():
        try:
            if not task.complete():
                unknown.append(f"{task}: not finished")
            elif made := made_by(task.folder):
                if plan.packed is None:
                    require_made(task.folder)
                num_files += len(made)
            elif task.stage not in NO_FILES:
                unknown.append(f"{task}: lists no files, as earlier versions did: not protected")
        except BenchError as error:
            wrong.append(str(error))
    if plan.packed is not None:
        wrong, num_files = _packed(plan.packed)
        unknown += [*_not_packed(plan), *_made_otherwise(plan)]
    # Of other files another report follows.
    wrong = wrong or [*_report_differs(plan)]
    return Verified(wrong, unknown, num_files)


def _packed(packed: Packed) -> tuple[list[str], int]:
    """What of an archive differs from what was packed, and how many files do not."""
    wrong = list(packed.problems(packed.listed))
    here = sum(not packed.left_out(name) for name in packed.listed)
    more = [f"(and {len(wrong) - MOST} more lines)"] if len(wrong) > MOST else []
    return [*wrong[:MOST], *more], here - len(wrong)


def _not_packed(plan: Plan) -> Iterator[str]:
    packed = plan.packed
    assert packed is not None
    absent = (name for name in packed.listed if packed.left_out(name))
    counts = Counter((name.split("/")[3], kind_of(name)) for name in absent)
    for (folder, kind), num in counts.items():
        yield f"{folder}: {kind} not packed, files: {num}"


def _made_otherwise(plan: Plan) -> Iterator[str]:
    """Whether another code made a packed report: it may have computed otherwise."""
    if plan.report_inputs.get("sources") != report_sources():
        yield "the report was packed by another version of the package: this one computes it again"


def _report_differs(plan: Plan) -> Iterator[str]:
    """A line for each value of the report that does not follow from the run's files."""
    path = plan.report_folder / RECORD
    again = "Make it again: `python -m ddmd_bench report SUITE`"
    if not path.is_file():
        yield f"{path}: missing. {again}"
        return
    run = load_run(plan)
    try:
        found = read_json(path, again)
    except BenchError as error:
        yield str(error)
        return
    built = build_record(run, _embedded(found))
    record = {"key": plan.report_key, **built, "folders": folders_of(plan)}
    texts = texts_of(record)
    if path.read_text(encoding="utf-8") != texts[RECORD]:
        lines = [*differing("report", found, as_json(record))]
        lines = lines or ["another text of the same values"]
        yield from lines[:MOST]
        more = f", {len(lines) - MOST} more lines" if len(lines) > MOST else ""
        yield f"{path}: does not follow from the run's files{more}. {again}"
        return
    if plan.packed is not None:
        plan.packed.fetch(shown_files(record["pictures"], run))
    for name, text in {**texts, PAGE: html(record, run, page_place(plan))}.items():
        page = plan.report_folder / name
        found = page.read_bytes() if page.is_file() else b""
        if _as_told(found) != _as_told(text.encode()):
            yield f"{page}: does not follow from the run's files. {again}"


def _embedded(report: Any) -> int:
    """Of how many prompts a report's page has pictures inside."""
    try:
        return int(report["pictures"]["embedded"])
    except (KeyError, TypeError, ValueError):  # it is none; what it lacks is told below
        return NUM_EMBEDDED


def _as_told(page: bytes) -> bytes:
    """A page without its pictures' and figures' bytes: other libraries draw the same otherwise, and
    pack the same otherwise."""
    return re.sub(rb'"data:(?:image|application)/[^"]*"|<svg.*?</svg>', b"", page, flags=re.DOTALL)
