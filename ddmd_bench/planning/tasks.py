"""A plan's tasks: every stage of every student with the content key of all that determines it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.data.prompts import Prompt, prompts_key
from ddmd_bench.data.training import data_identity
from ddmd_bench.files.provenance import source_sha256
from ddmd_bench.files.records import DONE, FAILED, SCHEMA, content_key, read_done
from ddmd_bench.measuring.reference import statistics_inputs
from ddmd_bench.planning.evaluation import evaluation_inputs
from ddmd_bench.planning.training import training_inputs
from ddmd_bench.scorers import needed_scorers, outside_scorers, weights_sha256
from ddmd_bench.students.loaded import PIPELINE, LoadedStudent, sampled_inputs
from ddmd_bench.suite.schema import Suite

# The sources that determine each stage's result, beside its inputs.
_MODEL_SOURCES = (
    "files/records.py",
    "objective/*.py",
    "backends/__init__.py",
    "data/images.py",
    "students/prepared.py",
)
_SCORER_SOURCES = (
    "files/decoding.py",
    "measuring/one_pass.py",
    "scorers/**/*.py",
    "measuring/measure.py",
)
_SOURCES = {
    "encode": (
        "files/records.py",
        "files/embeddings.py",
        "data/latents.py",
        "data/streams.py",
        "data/training.py",
        "stages/encode.py",
    ),
    "train": (*_MODEL_SOURCES, "training/*.py", "stages/train.py"),
    "generate": (
        *_MODEL_SOURCES,
        "students/drawing.py",
        "students/sources.py",
        "students/networks.py",
        "stages/generate.py",
    ),
    "doctor": (*_SCORER_SOURCES, "measuring/doctor.py", "stages/doctor.py"),
    "reference": (*_MODEL_SOURCES, *_SCORER_SOURCES, "students/drawing.py", "stages/reference.py"),
    "score": ("files/records.py", *_SCORER_SOURCES, "stats/*.py", "stages/score.py"),
}
# Only students that were trained elsewhere depend on these.
_LOADING_SOURCES = ("backends/schedulers.py", "backends/weights.py", "data/image_folders.py")
_MODEL_STAGES = frozenset({"encode", "train", "generate", "reference"})  # run a backend's code

NO_SEED = -1  # of what is the same for every seed
TaskName = tuple[str, str, int]  # stage, student, seed


@dataclass(frozen=True)
class Task:
    """One stage of one student with one seed ('' and `NO_SEED` for what all students share)."""

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


def encoder_identity(backend: Backend) -> dict[str, str]:
    """What determines the embedding of a prompt."""
    return dict(backend.encoders.identity()) if backend.encoders is not None else {}


def _world(suite: Suite, backend: Backend) -> dict[str, Any]:
    """What determines a backend's results."""
    world: dict[str, Any] = {
        "backend": suite.backend,
        "weights": dict(backend.weights()),
        "resolution": backend.resolution,
    }
    if backend.encoders is not None:
        world["text"] = encoder_identity(backend)
    return world


def make_tasks(
    suite: Suite,
    backend: Backend,
    loaded: dict[str, LoadedStudent],
    prompts: tuple[Prompt, ...],
    folder: Path,
) -> dict[TaskName, Task]:
    """All tasks by name, in the order in which a run needs them within a student."""
    tasks: dict[TaskName, Task] = {}

    def add(stage: str, student: str, seed: int, inputs: dict[str, Any]) -> Task:
        sources = (*_SOURCES[stage], *(backend.sources if stage in _MODEL_STAGES else ()))
        if stage == "generate" and student in loaded:
            sources += _LOADING_SOURCES
        inputs = {"schema": SCHEMA, "sources": source_sha256(*sources), **inputs}
        key = content_key(inputs)
        name = f"{student}-{key}" if student else key
        label = f"{student}, seed {seed}" if student and seed != NO_SEED else student
        label = label if len(suite.seeds) > 1 else student
        task = Task(stage, student, seed, label, key, folder / stage / name, inputs)
        tasks[stage, student, seed] = task
        return task

    asked = {"prompts": prompts_key(prompts), "images_per_prompt": suite.images_per_prompt()}
    scorers = weights_sha256(needed_scorers(suite.metrics))
    world = _world(suite, backend)
    worlds: dict[str, dict[str, Any]] = {}
    training: dict[str, Any] = {}
    examined = outside_scorers(suite.all_metrics)
    if examined:
        scoring = {"dtype": suite.scoring.dtype, "scorers": weights_sha256(examined)}
        add("doctor", "", NO_SEED, scoring)
    if backend.encoders is not None:
        encoded = {"text": world["text"], "prompts": asked["prompts"]}
        if suite.train_data is not None:
            data = data_identity(suite.train_data, backend.resolution)
            training = {"train_data": data}
            encoded |= training | ({"vae": world["weights"]["vae"]} if "images" in data else {})
        add("encode", "", NO_SEED, encoded)
    for name, one in loaded.items():
        own = BACKENDS[suite.backend](one.model)
        worlds[name] = _world(suite, own)
        if one.row.format != PIPELINE and encoder_identity(own) != encoder_identity(backend):
            text = {"text": encoder_identity(own), "prompts": asked["prompts"]}
            add("encode", name, NO_SEED, text)
    reference: dict[str, Any] = {}
    if backend.draw_real is not None:
        per_prompt = {"images_per_prompt": suite.reference.images_per_prompt}
        compared = {**world, "prompts": asked["prompts"], **per_prompt, "scorers": scorers}
        reference["reference"] = add("reference", "", NO_SEED, compared).key
    for (name, student), seed in product(suite.students.items(), suite.seeds):
        if student.source == "train":
            row = training_inputs(student.method or "", suite.train_settings(name))
            trained = {**world, **training, "seed": seed, **row}
            if suite.evaluation is not None:
                trained["evaluation"] = evaluation_inputs(suite, suite.evaluation, prompts)
            sampled: dict[str, Any] = {"student": add("train", name, seed, trained).key}
            sampled["dtype"] = backend.dtype
        else:
            in_dtype = {**worlds.get(name, world), "dtype": backend.dtype}
            sampled = sampled_inputs(student, in_dtype, loaded.get(name))
        generated = add("generate", name, seed, {**sampled, **asked, "seed": seed})
        add(
            "score",
            name,
            seed,
            {
                "images": generated.key,
                **reference,
                **statistics_inputs(suite.reference.statistics),
                "scorers": scorers,
                "dtype": suite.scoring.dtype,
                "metrics": sorted(suite.metrics),
                "intervals_over": suite.intervals_over,
            },
        )
    return tasks
