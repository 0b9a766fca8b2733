"""What must happen: every stage of a suite with its content key, and every check made early.

A key hashes all that determines a stage's result: settings, seed, prompts, weights, and the source
files of the stage. A stage is finished when its folder holds a `done.json` with that key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.data.prompt_sources import find_prompts, prompt_remotes
from ddmd_bench.data.prompts import Prompt, choose, prompts_key
from ddmd_bench.data.training import TrainingData, data_identity
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.files.records import SCHEMA, content_key, file_sha256, read_json
from ddmd_bench.hub import Remote
from ddmd_bench.literature.values import literature_problems
from ddmd_bench.measuring.reference import (
    build_command,
    extractors_of,
    statistics_inputs,
    statistics_problems,
)
from ddmd_bench.planning.evaluation import evaluation_problems
from ddmd_bench.planning.tasks import NO_SEED, Task, TaskName, make_tasks
from ddmd_bench.planning.training import training_problems
from ddmd_bench.reporting.dynamics import SERIES
from ddmd_bench.scorers import METRICS, needed_scorers, scorer_remotes, weights_sha256
from ddmd_bench.students.loaded import LoadedStudent, image_problems, loaded_students, remotes_of
from ddmd_bench.suite.schema import Scoring, Suite

_REPORT_SOURCES = ("stats/*.py", "reporting/*.py", "reporting/*.j2", "stages/report.py")


@dataclass(frozen=True)
class Plan:
    """A suite with its prompts, its tasks and the protocol that makes values comparable."""

    suite: Suite
    prompts: tuple[Prompt, ...]
    prompt_lists: dict[str, dict[str, Any]]  # where each prompt set is from, as its facts
    tasks: dict[TaskName, Task]
    protocol: dict[str, Any]
    fingerprint: str
    loaded: dict[str, LoadedStudent]  # the students that were trained elsewhere, by name
    remotes: tuple[Remote, ...]  # what must be on this machine
    runs: Path  # the folder of all that runs write
    embeddings: Path  # of prompts, for every suite: a folder for each text encoder
    training_data: Path  # captions and real images, for every suite: a folder for each source
    report_folder: Path
    report_inputs: dict[str, Any]

    def task(self, stage: str, student: str = "", seed: int = NO_SEED) -> Task:
        """One task; without a student, one that all students share."""
        return self.tasks[stage, student, seed]

    def shared(self, stage: str, student: str = "") -> Task | None:
        """The task of a stage that all students share, or the student's own, if there is one."""
        return self.tasks.get((stage, student, NO_SEED)) or self.tasks.get((stage, "", NO_SEED))

    @property
    def report_key(self) -> str:
        """Content key of a report made now: of its inputs and of the records that the tasks left.

        A record holds what a clock measured, so a report that came with the checkout, of another
        machine's run with the same tasks, has another key.
        """
        records = [record for task in self.tasks.values() if (record := task.last_record())]
        return content_key({**self.report_inputs, "records": [file_sha256(r) for r in records]})

    def report_complete(self) -> bool:
        """Whether the report was made from these very results."""
        path = self.report_folder / "report.json"
        return path.is_file() and read_json(path).get("key") == self.report_key

    def of_stage(self, stage: str) -> list[Task]:
        """The tasks of a stage in the suite's order."""
        return [task for task in self.tasks.values() if task.stage == stage]


def make_plan(suite: Suite, runs: Path, reports: Path) -> Plan:
    """Check all that can be checked before any work, and key every stage."""
    if suite.backend not in BACKENDS:
        raise BenchError(f"suite {suite.name}: " + unknown("backend", suite.backend, BACKENDS))
    backend = BACKENDS[suite.backend](suite.model)
    prompts, prompt_lists, problems = _prompts(suite, backend)
    problems += [unknown("metric", m, METRICS) for m in suite.metrics if m not in METRICS]
    problems += _claim_problems(suite)
    problems += literature_problems(suite)
    problems += training_problems(suite, backend) + _data_problems(suite, backend)
    loaded, found = loaded_students(suite)
    problems += found + image_problems(suite, prompts)
    if suite.evaluation is not None:
        problems += evaluation_problems(suite, suite.evaluation, backend)
    for name, student in suite.students.items():
        for option in sorted(student.teacher_options().keys() - backend.teacher_options):
            problems.append(f"students.{name}.{option}: backend {suite.backend} has no such option")
    if backend.draw_real is None:
        real = [name for name, s in suite.students.items() if s.source == "real"]
        problems += [f"students.{n}: backend {suite.backend} draws no real images" for n in real]
    problems += _reference_problems(suite, backend)
    if problems:
        raise BenchError("\n".join(f"suite {suite.name}: {problem}" for problem in problems))
    protocol = _protocol(suite, backend, prompts)
    tasks = make_tasks(suite, backend, loaded, prompts, runs / suite.name)
    reported = {
        "suite": suite.model_dump(mode="json"),
        "tasks": [task.key for task in tasks.values()],
        "sources": source_sha256(*_REPORT_SOURCES),
    }
    if suite.literature:
        reported["literature"] = source_sha256("literature/*")
    return Plan(
        suite=suite,
        prompts=prompts,
        prompt_lists=prompt_lists,
        tasks=tasks,
        protocol=protocol,
        fingerprint=content_key(protocol),
        loaded=loaded,
        remotes=_remotes(suite, backend, loaded),
        runs=runs,
        embeddings=runs / "embeddings",
        training_data=runs / "training_data",
        report_folder=reports / suite.name,
        report_inputs=reported,
    )


def suite_remotes(suite: Suite) -> tuple[Remote, ...]:
    """All that a suite needs from elsewhere, known before anything of it is here."""
    if suite.backend not in BACKENDS:
        raise BenchError(f"suite {suite.name}: " + unknown("backend", suite.backend, BACKENDS))
    backend = BACKENDS[suite.backend](suite.model)
    loaded, problems = loaded_students(suite)
    problems += _data_problems(suite, backend)
    if problems:
        raise BenchError("\n".join(f"suite {suite.name}: {problem}" for problem in problems))
    return _remotes(suite, backend, loaded)


def _remotes(
    suite: Suite, backend: Backend, loaded: dict[str, LoadedStudent]
) -> tuple[Remote, ...]:
    """Published lists, models, students and scorers, each once."""
    captions = suite.train_data.prompts if suite.train_data else None
    lists = prompt_remotes([*suite.prompts.values(), *([captions] if captions else [])])
    known = [metric for metric in suite.all_metrics if metric in METRICS]
    scorers = scorer_remotes(known)
    models = remotes_of(backend, loaded, suite.backend)
    return tuple(dict.fromkeys([*lists, *models, *scorers]))


def draw_data(suite: Suite, runs: Path, progress: Callable[[int, int], None]) -> None:
    """Draw prompts and training data from where there is a network, for a run without."""
    backend = BACKENDS[suite.backend](suite.model)
    problems = _prompts(suite, backend)[2]
    if problems:
        raise BenchError("\n".join(f"suite {suite.name}: {problem}" for problem in problems))
    if suite.train_data is not None:
        training = TrainingData(suite.train_data, backend.resolution, runs / "training_data")
        training.draw_captions(progress)
        training.draw_images(progress)


def _prompts(
    suite: Suite, backend: Backend
) -> tuple[tuple[Prompt, ...], dict[str, dict[str, Any]], list[str]]:
    """The suite's prompts, what is known of their sources by prompt set, and problems."""
    chosen: list[Prompt] = []
    lists: dict[str, dict[str, Any]] = {}
    problems = []
    for name, prompt_set in suite.prompts.items():
        try:
            found = find_prompts(prompt_set, backend.prompt_sets).of_category(prompt_set.category)
        except BenchError as error:
            problems.append(f"prompts.{name}.source: {error}")
            continue
        lists[name] = found.facts()
        wanted = prompt_set.num_prompts
        try:
            part = choose(name, found.texts, wanted, found.positions, found.categories)
            for prompt in part:
                backend.check_prompt(prompt.text)
        except BenchError as error:
            problems.append(str(error))
            continue
        chosen += part
    return tuple(chosen), lists, problems


def _data_problems(suite: Suite, backend: Backend) -> list[str]:
    """What keeps training data from being the same in every run, known before a download."""
    try:
        if suite.train_data is not None:
            data_identity(suite.train_data, backend.resolution)
    except BenchError as error:
        return [f"train_data: {error}"]
    return []


def _reference_problems(suite: Suite, backend: Backend) -> list[str]:
    metrics = [name for name in suite.metrics if name in METRICS]
    if suite.reference.statistics is not None:
        return statistics_problems(suite.reference.statistics, extractors_of(metrics))
    if backend.draw_real is not None:
        return []
    return [
        f"metrics: {name} compares with real images, and backend {suite.backend} draws none. Set "
        f"reference.statistics; {build_command(suite.name, [extractor])} makes them"
        for name in metrics
        if (extractor := METRICS[name].extractor)
    ]


NO_DIRECTION = ("same", "above")  # claims that need no better direction


def _claim_problems(suite: Suite) -> list[str]:
    problems = []
    for k, claim in enumerate(suite.claims):
        if claim.series is not None and claim.series not in SERIES:
            problems.append(f"claims[{k}]: " + unknown("series", claim.series, SERIES))
        metric = METRICS.get(claim.metric or "")
        if metric and metric.better == "reference" and claim.claim not in NO_DIRECTION:
            problems.append(
                f"claims[{k}]: {claim.metric} is best where real images have it, so nobody can be "
                f"{claim.claim!r} on it; claim 'same' or 'above', or another metric"
            )
    return problems


def _protocol(suite: Suite, backend: Backend, prompts: tuple[Prompt, ...]) -> dict[str, Any]:
    """What two runs must share to be compared; the settings of a student are its own."""
    per_set = suite.images_per_prompt()
    protocol = {
        "schema": SCHEMA,
        "backend": suite.backend,
        "resolution": backend.resolution,
        "prompts": prompts_key(prompts),
        "num_prompts": {n: sum(p.prompt_set == n for p in prompts) for n in per_set},
        "images_per_prompt": per_set,
        "reference_images_per_prompt": suite.reference.images_per_prompt,
        "scorers": weights_sha256(needed_scorers(suite.metrics)),
        "seed_rule": "sha256(image, suite seed, prompt id, image index)",
        **statistics_inputs(suite.reference.statistics),
    }
    facts = {name: dict(METRICS[name].facts) for name in suite.metrics if METRICS[name].facts}
    if facts:
        protocol["metrics"] = facts
    if suite.scoring.dtype != Scoring().dtype:
        protocol["scoring_dtype"] = suite.scoring.dtype
    return protocol
