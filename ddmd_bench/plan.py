"""What must happen: every stage of a suite with its content key, and every check made early.

A key hashes all that determines a stage's result: settings, seed, prompts, weights, and the source
files of the stage. A stage is finished when its folder holds a `done.json` with that key.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.evaluation_plan import evaluation_inputs, evaluation_problems
from ddmd_bench.prompts import Prompt, choose, prompts_key
from ddmd_bench.provenance import source_sha256
from ddmd_bench.published_values import published_problems
from ddmd_bench.records import (
    DONE,
    FAILED,
    SCHEMA,
    content_key,
    file_sha256,
    read_done,
    read_json,
)
from ddmd_bench.reporting.dynamics import SERIES
from ddmd_bench.scorers import METRICS, needed_scorers, weights_sha256
from ddmd_bench.suite import Suite
from ddmd_bench.training_plan import training_inputs, training_problems

# The sources that determine each stage's result, beside its inputs.
_MODEL_SOURCES = ("records.py", "diffusion.py", "distill/*.py", "backends/**/*.py", "images.py")
_SOURCES = {
    "train": ("methods.py", *_MODEL_SOURCES, "training/*.py", "stages/train.py"),
    "generate": (
        *_MODEL_SOURCES,
        "sampling.py",
        "training/networks.py",
        "stages/generate.py",
    ),
    "reference": (*_MODEL_SOURCES, "sampling.py", "scorers/*.py", "stages/reference.py"),
    "score": ("records.py", "scorers/*.py", "stats/*.py", "scoring.py", "stages/score.py"),
    "report": ("stats/*.py", "reporting/*.py", "reporting/*.j2", "stages/report.py"),
}


NO_SEED = -1  # the reference is the same for every seed
TaskName = tuple[str, str, int]  # stage, student, seed


@dataclass(frozen=True)
class Task:
    """One stage of one student with one seed ('' and `NO_SEED` for the reference)."""

    stage: str
    student: str
    seed: int
    label: str  # the student as a message names it, with the seed where the suite has several
    key: str
    folder: Path
    inputs: dict[str, Any]

    def complete(self) -> bool:
        """Whether the folder holds this very result, finished."""
        done = read_done(self.folder)
        return done is not None and done.get("key") == self.key

    def last_record(self) -> Path | None:
        """The file that says how the task ended: `done.json`, else `failed.json`, else none."""
        failed = self.folder / FAILED
        if self.complete():
            return self.folder / DONE
        return failed if failed.is_file() else None

    def __str__(self) -> str:
        return f"{self.stage} {self.label}".strip()


@dataclass(frozen=True)
class Plan:
    """A suite with its prompts, its tasks and the protocol that makes values comparable."""

    suite: Suite
    prompts: tuple[Prompt, ...]
    tasks: dict[TaskName, Task]
    protocol: dict[str, Any]
    fingerprint: str
    report_folder: Path
    report_inputs: dict[str, Any]

    def task(self, stage: str, student: str = "", seed: int = NO_SEED) -> Task:
        """One task; without a student, that of the reference."""
        return self.tasks[stage, student, seed]

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
    prompts, problems = _prompts(suite, backend)
    problems += [unknown("metric", m, METRICS) for m in suite.metrics if m not in METRICS]
    problems += _claim_problems(suite)
    problems += published_problems(suite)
    problems += training_problems(suite, backend)
    if suite.evaluation is not None:
        problems += evaluation_problems(suite, suite.evaluation, backend)
    for name, student in suite.students.items():
        for option in sorted(student.teacher_options().keys() - backend.teacher_options):
            problems.append(f"students.{name}.{option}: backend {suite.backend} has no such option")
    if backend.draw_real is None:
        real = [name for name, s in suite.students.items() if s.source == "real"]
        problems += [f"students.{n}: backend {suite.backend} draws no real images" for n in real]
    if problems:
        raise BenchError("\n".join(f"suite {suite.name}: {problem}" for problem in problems))
    protocol = _protocol(suite, backend, prompts)
    tasks = _tasks(suite, backend, prompts, runs / suite.name)
    reported = {
        "suite": suite.model_dump(mode="json"),
        "tasks": [task.key for task in tasks.values()],
        "sources": source_sha256(*_SOURCES["report"]),
    }
    if suite.published_values:
        reported["published_values"] = source_sha256("published_values.py", "data/*.yaml")
    return Plan(
        suite=suite,
        prompts=prompts,
        tasks=tasks,
        protocol=protocol,
        fingerprint=content_key(protocol),
        report_folder=reports / suite.name,
        report_inputs=reported,
    )


def _prompts(suite: Suite, backend: Backend) -> tuple[tuple[Prompt, ...], list[str]]:
    chosen: list[Prompt] = []
    problems = []
    for name, prompt_set in suite.prompts.items():
        if prompt_set.source not in backend.prompt_sets:
            known = unknown("prompt source", prompt_set.source, backend.prompt_sets)
            problems.append(f"prompts.{name}.source: {known}")
            continue
        try:
            texts = backend.prompt_sets[prompt_set.source]()
            part = choose(name, texts, prompt_set.num_prompts)
            for prompt in part:
                backend.check_prompt(prompt.text)
        except BenchError as error:
            problems.append(str(error))
            continue
        chosen += part
    return tuple(chosen), problems


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
    return {
        "schema": SCHEMA,
        "backend": suite.backend,
        "resolution": backend.resolution,
        "prompts": prompts_key(prompts),
        "num_prompts": {n: sum(p.prompt_set == n for p in prompts) for n in per_set},
        "images_per_prompt": per_set,
        "reference_images_per_prompt": suite.reference.images_per_prompt,
        "scorers": weights_sha256(needed_scorers(suite.metrics)),
        "seed_rule": "sha256(image, suite seed, prompt id, image index)",
    }


def _tasks(
    suite: Suite, backend: Backend, prompts: tuple[Prompt, ...], folder: Path
) -> dict[TaskName, Task]:
    tasks: dict[TaskName, Task] = {}

    def add(stage: str, student: str, seed: int, inputs: dict[str, Any]) -> Task:
        inputs = {"schema": SCHEMA, "sources": source_sha256(*_SOURCES[stage]), **inputs}
        key = content_key(inputs)
        name = f"{student}-{key}" if student else key
        label = f"{student}, seed {seed}" if student and len(suite.seeds) > 1 else student
        task = Task(stage, student, seed, label, key, folder / stage / name, inputs)
        tasks[stage, student, seed] = task
        return task

    world = {
        "backend": suite.backend,
        "weights": dict(backend.weights),
        "resolution": backend.resolution,
    }
    asked = {"prompts": prompts_key(prompts), "images_per_prompt": suite.images_per_prompt()}
    scorers = weights_sha256(needed_scorers(suite.metrics))
    reference = add(
        "reference",
        "",
        NO_SEED,
        {
            **world,
            "prompts": asked["prompts"],
            "images_per_prompt": suite.reference.images_per_prompt,
            "scorers": scorers,
        },
    )
    for (name, student), seed in product(suite.students.items(), suite.seeds):
        if student.source == "train":
            row = training_inputs(student.method or "", suite.train_settings(name))
            trained = {**world, "seed": seed, **row}
            if suite.evaluation is not None:
                trained["evaluation"] = evaluation_inputs(suite, suite.evaluation, prompts)
            sampled: dict[str, Any] = {"student": add("train", name, seed, trained).key}
        else:
            facts = student.model_dump(mode="json", include={"source", *_SAMPLING})
            facts |= student.teacher_options()
            sampled = {**world, **facts}
        generated = add("generate", name, seed, {**sampled, **asked, "seed": seed})
        add(
            "score",
            name,
            seed,
            {
                "images": generated.key,
                "reference": reference.key,
                "scorers": scorers,
                "metrics": sorted(suite.metrics),
                "intervals_over": suite.intervals_over,
            },
        )
    return tasks


_SAMPLING = ("num_inference_steps", "guidance_scale")
