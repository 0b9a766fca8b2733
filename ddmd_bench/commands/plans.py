"""A suite that is named on the command line, as the plan of its run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddmd_bench.commands.options import REPORTS
from ddmd_bench.errors import BenchError, NotRun
from ddmd_bench.files import stopping
from ddmd_bench.files.elsewhere import here, is_elsewhere
from ddmd_bench.files.places import require_folder
from ddmd_bench.files.records import content_key

if TYPE_CHECKING:
    from ddmd_bench.planning.plan import Plan


def planned(
    suite: str, overrides: list[str] | None, runs: Path | str, reports: Path | None
) -> Plan:
    """The plan of a suite that is named on the command line; runs: a URL if they are elsewhere.

    Where no folder of reports is named, a run with overrides has a report of its own there.
    """
    from ddmd_bench.planning.plan import make_plan
    from ddmd_bench.suite.files import load_suite

    loaded = load_suite(suite, overrides or [])
    if is_elsewhere(str(runs)):
        runs = here(f"{str(runs).rstrip('/')}/{loaded.name}").parent
    require_folder(Path(runs), "--runs")
    require_folder(reports or REPORTS, "--reports")
    plan = make_plan(loaded, Path(runs), reports or REPORTS)
    if reports is not None or not overrides:
        return plan
    own = f"{loaded.name}-{content_key(loaded.model_dump(mode='json'))}"
    return replace(plan, report_folder=REPORTS / own)


@contextmanager
def begun(
    suite: str, overrides: list[str] | None, runs: Path | str, reports: Path | None
) -> Iterator[Plan]:
    """Such a plan, of which some task at least is complete; or that of a pack, FILE.tar."""
    from ddmd_bench.reporting.packs import is_pack, opened_pack

    if is_pack(suite):
        if overrides:
            raise BenchError(f"--set: {suite} holds the settings of its own run")
        stopping.obey()  # what was copied out of it goes again
        with opened_pack(here(suite)) as plan:
            yield plan
        return
    plan = planned(suite, overrides, runs, reports)
    if not any(task.complete() for task in plan.tasks.values()):
        raise NotRun(
            f"{Path(runs) / plan.suite.name}: no task of this suite is complete. Begin with "
            f"`python -m ddmd_bench run {suite}`, or name the folder: --runs"
        )
    yield plan
