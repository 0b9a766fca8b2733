"""Hold a finished run against expected values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json
from ddmd_bench.reporting.expected import CheckResult, against_expected, find_expected

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def check(plan: Plan, expected_path: Path | None = None) -> CheckResult:
    """Compare the report of a finished run with an expectation, the suite's own by default."""
    unfinished = [task for task in plan.tasks.values() if not task.complete()]
    path = plan.report_folder / "report.json"
    again = f"Run `python -m ddmd_bench run {plan.suite.name}`"
    if failed := [f"{task}: {why}" for task in unfinished if (why := task.failure())]:
        told = "\n  ".join([f"nothing to check: {len(failed)} tasks failed", *failed])
        raise BenchError(f"{told}\n{again} once they are mended")
    expected_path = expected_path or find_expected(plan.suite.name)
    if unfinished or not plan.report_complete():
        what = ", ".join(map(str, unfinished))
        what = what or f"{path} is missing or was made from another run"
        raise BenchError(f"nothing to check yet: {what}. {again} first")
    if not expected_path.is_file():
        raise BenchError(f"{expected_path}: no such file of expected values")
    return against_expected(read_json(path), read_json(expected_path))
