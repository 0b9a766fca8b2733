"""A report that would be replaced by that of other results is kept beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import content_key, write_whole
from ddmd_bench.planning.plan import Plan
from ddmd_bench.reporting.baselines import folders_of
from ddmd_bench.reporting.html.sheets import FOLDER
from ddmd_bench.reporting.saved import read_report


def shows_images_of(record: dict[str, Any], plan: Plan) -> bool:
    """Whether all images of a report are those that this run has, or would have."""
    return _has_all(plan, record, "generate")


def _has_all(plan: Plan, record: dict[str, Any], stage: str) -> bool:
    own, theirs = folders_of(plan), record.get("folders", {})
    its = [name for name in theirs if name.startswith(f"{stage}/")]
    return bool(its) and all(own.get(name) == theirs[name] for name in its)


def keep_other(plan: Plan) -> Path | None:
    """Copy what stands where the plan's report goes, if it is of images or scores that this run
    has not.

    More students than before replace nothing of it; other settings, prompts, weights, metrics, a
    reference or a new version of the computation do. The folder of the copy, None where none is
    made.
    """
    try:
        record = read_report(plan.report_folder)
    except BenchError:  # there is none, or no whole one
        return None
    # One more metric scores anew: a copy that was not needed costs room, one that lacks a report.
    if all(_has_all(plan, record, stage) for stage in ("generate", "score")):
        return None
    key = record.get("key") or content_key(record)
    target = plan.report_folder.with_name(f"{plan.report_folder.name}-{key}")
    for source in plan.report_folder.iterdir():
        if source.is_file() and not (target / source.name).exists():
            write_whole(target / source.name, source.read_bytes())
    pictures = plan.report_folder / FOLDER
    if pictures.is_dir() and not (target / FOLDER).exists():
        pictures.rename(target / FOLDER)  # the new report makes its own
    return target
