"""What of a run is packed: the files that its tasks list, its report, and what stands in neither.

Where images are left out, the pictures that the page shows are kept, as small as it shows them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ddmd_bench.files.archives import Member
from ddmd_bench.files.made import made_by
from ddmd_bench.files.packed import RUNS, kind_of
from ddmd_bench.files.records import (
    DONE,
    FAILED,
    content_key,
    file_sha256,
    json_text,
    read_json,
)
from ddmd_bench.measuring.reference import CARD, extractors_of, read_card
from ddmd_bench.planning.plan import Plan
from ddmd_bench.planning.superseded import ASKED
from ddmd_bench.planning.task import Task
from ddmd_bench.reporting.packs import PACK, PICTURES, PROMPTS, REPORTS, SCHEMA, SUITE
from ddmd_bench.reporting.pictures import shown_files, small_picture
from ddmd_bench.reporting.runfiles import STATISTICS, load_run, statistics_of, tally_of
from ddmd_bench.reporting.texts import PAGE, RECORD, texts_of
from ddmd_bench.suite.studies import STUDIES, TALLY, studies_of


def members_of(plan: Plan, without: Collection[str]) -> list[Member]:
    """Everything of a run and its report that is packed, in the archive's order; pack.json first.

    Files that their tasks list are held to that sha256 while they are packed.
    """
    record = read_json(plan.report_folder / RECORD)
    # What it was asked, overrides included: with all defaults stated it would be no suite.
    asked = plan.suite.model_dump(mode="json", exclude_unset=True)
    texts = {
        SUITE: yaml.safe_dump(asked, sort_keys=False).encode(),
        PROMPTS: "".join(json.dumps(asdict(p)) + "\n" for p in plan.prompts).encode(),
    }
    unlisted = [Member(name, data) for name, data in texts.items()]
    for name in (PAGE, *texts_of(record)):
        place = f"{REPORTS}/{plan.suite.name}/{name}"
        unlisted.append(Member(place, plan.report_folder / name))
    unlisted += [*_statistics(plan), *_tallies(plan)]
    if "images" in without:
        unlisted += _pictures(plan, record)
    listed = list[Member]()
    for task in plan.tasks.values():
        made = made_by(task.folder) if task.complete() else {}
        folder = _name_of(plan, task.folder)
        listed += [Member(f"{folder}/{n}", task.folder / n, sha) for n, sha in made.items()]
        unlisted += [Member(f"{folder}/{n}", task.folder / n) for n in _others(task, made)]
    files = {member.name: _sha256(member.content) for member in unlisted}
    first = Member(PACK, json_text(_record(plan, without, dict(sorted(files.items())))).encode())
    known = [*listed, *(member._replace(sha256=files[member.name]) for member in unlisted)]
    kept = (member for member in known if kind_of(member.name) not in without)
    return [first, *sorted(kept)]


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return file_sha256(content)


def _name_of(plan: Plan, path: Path) -> str:
    return f"{RUNS}/{path.relative_to(plan.runs).as_posix()}"


def _others(task: Task, made: Collection[str]) -> Iterator[str]:
    """Files of a task that it does not list: its records, and all of one that lists nothing."""
    if not task.complete():
        yield from (FAILED,) if task.failure_file.is_file() else ()
    elif made:
        yield from (name for name in (DONE, ASKED) if (task.folder / name).is_file())
    else:
        for path in task.folder.rglob("*"):
            name = path.relative_to(task.folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                yield name


def _statistics(plan: Plan) -> Iterator[Member]:
    """Statistics of real images that the suite names, as far as its metrics read them."""
    if (folder := statistics_of(plan)) is not None:
        scorers = read_card(folder)["scorers"]
        names = [n for e in extractors_of(plan.suite.metrics) for n in scorers[e]["files"]]
        yield from (Member(f"{STATISTICS}/{name}", folder / name) for name in (CARD, *names))


def _tallies(plan: Plan) -> Iterator[Member]:
    """What people preferred, as far as the suite's claims rest on it."""
    for study in studies_of(plan.suite.claims):
        if (path := tally_of(plan, study)).is_file():
            yield Member(f"{STUDIES}/{content_key(study)}/{TALLY}", path)


def _pictures(plan: Plan, record: dict[str, Any]) -> Iterator[Member]:
    """The pictures that the page shows, as it shows them, under the names of their images."""
    for path in shown_files(record["pictures"], load_run(plan)):
        yield Member(f"{PICTURES}/{_name_of(plan, path)}", small_picture(path)[1])


def _record(plan: Plan, without: Collection[str], files: dict[str, str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "without": sorted(without),
        "suite": plan.suite.model_dump(mode="json"),
        "prompt_lists": plan.prompt_lists,
        "protocol": plan.protocol,
        "fingerprint": plan.fingerprint,
        "report_inputs": plan.report_inputs,
        "tasks": [
            {
                "name": task.name,
                "label": task.label,
                "key": task.key,
                "folder": _name_of(plan, task.folder),
                "needs": task.needs,
            }
            for task in plan.tasks.values()
        ],
        "shared_tasks": [[name, own] for name, own in plan.shared_tasks.items()],
        "files": files,
    }
