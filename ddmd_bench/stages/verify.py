"""Whether a run's files are those that were made, and its report is what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ddmd_bench.errors import BenchError
from ddmd_bench.files.made import made_by, require_made
from ddmd_bench.files.records import as_json, differing, json_text, read_json
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

NO_FILES = ("doctor", "encode")  # stages whose results stand in no files of their own
MOST = 20  # lines on what differs in a report


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
                require_made(task.folder)
                num_files += len(made)
            elif task.stage not in NO_FILES:
                unknown.append(f"{task}: lists no files, as earlier versions did: not protected")
        except BenchError as error:
            wrong.append(str(error))
    # Of other files another report follows.
    wrong = wrong or [*_report_differs(plan)]
    return Verified(wrong, unknown, num_files)


def _report_differs(plan: Plan) -> Iterator[str]:
    """A line for each value of the report that does not follow from the run's files."""
    path = plan.report_folder / "report.json"
    again = f"Make it again: `python -m ddmd_bench report {plan.suite.name}`"
    if not path.is_file():
        yield f"{path}: missing. {again}"
        return
    record = {"key": plan.report_key, **build_record(load_run(plan)), "folders": folders_of(plan)}
    try:
        found = read_json(path, again)
    except BenchError as error:
        yield str(error)
        return
    text = json_text(record)
    if path.read_text() == text:
        return
    lines = [*differing("report", found, as_json(record))] or ["another text of the same values"]
    yield from lines[:MOST]
    more = f", {len(lines) - MOST} more lines" if len(lines) > MOST else ""
    yield f"{path}: does not follow from the run's files{more}. {again}"
