"""A run in one archive, and the plan that is found there.

`pack.json`, the archive's first file, says what no file of the run does: the protocol, the tasks
with their keys and folders, the suite with all its defaults, which kinds were left out, and the
sha256 of each file that no task lists. The suite as it was asked and its prompts stand beside it:
a pack needs neither the suite's file nor what that named. `ddmd_bench.reporting.packing` says what
is packed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError, Unreadable, said_by
from ddmd_bench.files.archives import Archive, opened
from ddmd_bench.files.inside import require_inside
from ddmd_bench.files.made import made_by
from ddmd_bench.files.packed import RUNS, Packed, kind_of
from ddmd_bench.files.records import differing, parse_json, read_jsonl
from ddmd_bench.files.yaml_text import parse_yaml
from ddmd_bench.planning.part import Downloads
from ddmd_bench.planning.plan import Plan, report_sources
from ddmd_bench.planning.sizes import gigabytes
from ddmd_bench.planning.task import Task, TaskName
from ddmd_bench.suite.schema import Suite

PACK, SUITE, PROMPTS = "pack.json", "suite.yaml", "prompts.jsonl"
REPORTS, PICTURES = "reports", "pictures"
SCHEMA = 1
END = ".tar"
LARGEST = 1 << 28  # bytes of pack.json: a list of a million files takes half


def is_pack(name: str) -> bool:
    """Whether a name on the command line is that of a pack."""
    return name.endswith(END)


def require_room(folder: Path, num_bytes: int, remedy: str) -> None:
    """There are so many bytes free where a folder is, or will be."""
    above = folder.absolute()
    there = next(path for path in (above, *above.parents) if path.exists())
    if num_bytes > (free := shutil.disk_usage(there).free):
        raise BenchError(
            f"no room on the disk: {gigabytes(free)} are free, and {gigabytes(num_bytes)} are to "
            f"be written in {folder}. {remedy}"
        )


@contextmanager
def opened_pack(path: Path) -> Iterator[Plan]:
    """The plan of a packed run, whose files lie in a folder that goes again; nothing is checked but
    that names stay inside: `Packed` says what has changed."""
    with opened(path) as archive, tempfile.TemporaryDirectory(prefix="ddmd_bench-") as temporary:
        record = _read_record(archive)
        folder = Path(temporary)
        wanted = [name for name in archive.places if kind_of(name) is None]
        total = sum(map(archive.size, wanted))
        require_room(folder, total, "Make room, or name another place by TMPDIR")
        copied = {name: archive.copy(name, folder / name) for name in wanted}
        yield _plan(archive, folder, record, copied)


def reported_into(plan: Plan, reports: Path) -> Plan:
    """A plan whose report is made here and now: of a pack, elsewhere than the one it came with."""
    if plan.packed is None:
        return plan
    inputs = {**plan.report_inputs, "sources": report_sources()}
    return replace(plan, report_folder=reports / plan.suite.name, report_inputs=inputs)


def _read_record(archive: Archive) -> dict[str, Any]:
    """What pack.json says; one of a schema that is not known is refused."""
    path = archive.path
    if next(iter(archive.places), None) != PACK:
        raise Unreadable(f"{path}: no pack of a run: it does not begin with {PACK}")
    if archive.size(PACK) > LARGEST:
        raise Unreadable(f"{path}: {PACK} has {archive.size(PACK)} bytes, at most {LARGEST} are")
    try:
        record: dict[str, Any] = parse_json(b"".join(archive.parts(PACK)))
        schema = record["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{path}: {PACK} is cut, or none ({said_by(error)})") from None
    if schema != SCHEMA:
        raise Unreadable(
            f"{path}: {PACK} has schema {schema!r}, this version reads {SCHEMA}. Read it with the "
            "version of the package that wrote it, or a newer one"
        )
    return record


def _plan(archive: Archive, folder: Path, record: dict[str, Any], copied: dict[str, str]) -> Plan:
    try:
        return _found(archive, folder, record, copied)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise Unreadable(
            f"{archive.path}: no whole pack of a run ({said_by(error)}). Get the archive again"
        ) from None


def _found(archive: Archive, folder: Path, record: dict[str, Any], copied: dict[str, str]) -> Plan:
    where = f"{archive.path}: {PACK}"
    suite = _read_suite(folder / SUITE)
    if others := list(differing("suite", suite.model_dump(mode="json"), record["suite"])):
        raise BenchError(
            f"{archive.path}: this version of the package has other defaults than the one that "
            f"packed it: {others[0]}. Read it with that version"
        )
    tasks: dict[TaskName, Task] = {}
    for row in record["tasks"]:
        stage, student, seed = row["name"]
        at = folder / require_inside(row["folder"], where)
        needs = tuple((s, n, int(k)) for s, n, k in row["needs"])
        key, label = str(row["key"]), str(row["label"])
        tasks[stage, student, int(seed)] = Task(
            stage, student, int(seed), label, key, at, inputs={}, needs=needs
        )
    shared = {_task_name(name): _task_name(own) for name, own in record["shared_tasks"]}
    _require_whole(suite, tasks, shared)
    listed, unread = dict[str, str](record["files"]), list[str]()
    for task in tasks.values():
        try:
            made = made_by(task.folder) if task.complete() else {}
        except (BenchError, ValueError) as error:
            unread.append(f"{archive.path}: {said_by(error)}")
            continue
        name = task.folder.relative_to(folder).as_posix()
        listed |= {f"{name}/{file}": sha256 for file, sha256 in made.items()}
    if strange := [name for name in archive.places if name != PACK and name not in listed]:
        more = f" (and {len(strange) - 1} more)" if len(strange) > 1 else ""
        unread.append(f"{archive.path}: {strange[0]}{more} is in no list of what was packed")
    without = frozenset(record["without"])
    if "images" in without:
        _lay_pictures(folder, copied)
    return Plan(
        suite=suite,
        prompts=tuple(Prompt(**row) for row in read_jsonl(folder / PROMPTS)),
        prompt_lists=dict(record["prompt_lists"]),
        tasks=tasks,
        protocol=dict(record["protocol"]),
        fingerprint=str(record["fingerprint"]),
        loaded={},
        unfit={},
        downloads=Downloads(),
        runs=folder / RUNS,
        report_folder=folder / REPORTS / suite.name,
        report_inputs=dict(record["report_inputs"]),
        shared_tasks=shared,
        packed=Packed(archive, folder, without, listed, copied, unread),
    )


def _require_whole(
    suite: Suite, tasks: Mapping[TaskName, Task], shared: Mapping[TaskName, TaskName]
) -> None:
    """Every student has the tasks that each has in any run, and what they need is among them."""
    TopologicalSorter({name: task.needs for name, task in tasks.items()}).prepare()
    needed = {need for task in tasks.values() for need in task.needs}
    for name in suite.students:
        for seed in suite.seeds:
            own = [(stage, name, seed) for stage in ("generate", "score")]
            needed |= {shared.get(one, one) for one in own}
    if lacking := sorted(needed - tasks.keys()):
        raise ValueError(f"task {'/'.join(map(str, lacking[0]))} is not in {PACK}")


def _task_name(row: Iterable[Any]) -> TaskName:
    stage, student, seed = row
    return str(stage), str(student), int(seed)


def _read_suite(path: Path) -> Suite:
    try:
        return Suite.model_validate(parse_yaml(path.read_text(encoding="utf-8"), str(path)).data)
    except ValidationError as error:
        raise ValueError(f"{SUITE}: {said_by(error)}") from None


def _lay_pictures(folder: Path, copied: Iterable[str]) -> None:
    """Put the small pictures where the images would lie that they were made of."""
    for name in list(copied):
        if name.startswith(f"{PICTURES}/"):
            place = folder / name.removeprefix(f"{PICTURES}/")
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                (folder / name).rename(place)
