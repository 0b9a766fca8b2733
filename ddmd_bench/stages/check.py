"""Hold a finished run against expected values, or its students against those of a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError, NotRun
from ddmd_bench.reporting import gate
from ddmd_bench.reporting.baselines import Baseline, load_baseline
from ddmd_bench.reporting.checked import Checked
from ddmd_bench.reporting.drift import against_expected
from ddmd_bench.reporting.expected import find_expected, read_expected
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.reporting.saved import read_report

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan

AGAIN = "Run `python -m ddmd_bench run SUITE`"


def check(plan: Plan, expected_path: Path | None = None) -> Checked:
    """Compare the report of a finished run with an expectation, the suite's own by default."""
    refuse_failed(plan)
    expected_path = expected_path or find_expected(plan.suite.name)
    expected = read_expected(expected_path)
    return against_expected(finished_report(plan), expected)


def check_models(
    plan: Plan, baseline: Path | None, student: str | None, against: str | None
) -> Checked:
    """Compare students with those of a baseline, or of the same run where none is given."""
    if baseline is None and not (student and against and student != against):
        raise BenchError("without --baseline, name two students: --student NEW --against OLD")
    run = load_run(plan)
    other = Baseline.of(run) if baseline is None else load_baseline(baseline, plan)
    return gate.against_baseline(run, other, gate.pairs_of(run, other, student, against))


def finished_report(plan: Plan) -> dict[str, Any]:
    """The record of a run that is complete and reported, or `NotRun` with what to type."""
    refuse_unfinished(plan, AGAIN)
    path = plan.report_folder / "report.json"
    if not plan.report_complete():
        raise NotRun(
            f"nothing to check yet: {path} is missing or was made from another run. {AGAIN} first"
        )
    return read_report(path)


def refuse_failed(plan: Plan) -> None:
    """Raise `NotRun` where tasks failed."""
    if failed := [f"{task}: {why}" for task in plan.tasks.values() if (why := task.failure())]:
        told = "\n  ".join([f"nothing to check: {len(failed)} tasks failed", *failed])
        raise NotRun(f"{told}\n{AGAIN} once they are mended")


def refuse_unfinished(plan: Plan, again: str) -> None:
    """Raise `NotRun` where tasks are not complete; `again` says what to type."""
    refuse_failed(plan)
    if unfinished := [task for task in plan.tasks.values() if not task.complete()]:
        what = ", ".join(map(str, unfinished[:3]))
        more = f" and {len(unfinished) - 3} more tasks" if len(unfinished) > 3 else ""
        raise NotRun(f"nothing to check yet: {what}{more} not run. {again} first")
