"""The students that are trained here: what they lack, what keys them, what they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from ddmd_bench.files.records import content_key
from ddmd_bench.files.versions import backend_versions, versions
from ddmd_bench.objective.methods import METHODS, Method
from ddmd_bench.planning.encoding import training_data_inputs
from ddmd_bench.planning.evaluation import evaluation_inputs
from ddmd_bench.planning.generation import operations_of_image
from ddmd_bench.planning.models import network_inputs
from ddmd_bench.planning.operations import training_flops
from ddmd_bench.planning.part import Asked, Cost, Part, TaskKind, Work
from ddmd_bench.planning.sizes import training_bytes
from ddmd_bench.planning.task import DOCTOR, ENCODE, Tasks
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import TrainData, TrainSettings
from ddmd_bench.suite.used import used_settings, uses_real_images

# What a choice needs beside the package's own dependencies: choice -> package.
OPTIMIZER_PACKAGES = {"adamw_8bit": "bitsandbytes"}
TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def _trained(asked: Asked) -> Iterator[tuple[str, str, TrainSettings]]:
    """Name, method and settings of each student that is trained."""
    for name, student in asked.suite.students.items():
        if student.source == "train":
            yield name, student.method or "", asked.suite.train_settings(name)


def shared_trainings(suite: Suite) -> list[tuple[str, ...]]:
    """The students that are trained, those of one and the same training together."""
    alike: dict[str, list[str]] = {}
    for name, student in suite.students.items():
        if student.source == "train":
            inputs = _own_inputs(METHODS[student.method or ""], suite.train_settings(name))
            alike.setdefault(content_key(inputs), []).append(name)
    return [tuple(names) for names in alike.values()]


def _own_inputs(method: Method, settings: TrainSettings) -> dict[str, Any]:
    """What determines a training and is a student's own; weights are drawn when it has ended."""
    return {
        "method": {key: value for key, value in vars(method).items() if key != "title"},
        "train": used_settings(settings, method),
    }


def _problems(asked: Asked) -> Iterator[str]:
    """What the trainings ask for and this backend or this environment does not have."""
    for tracker in asked.suite.trackers:
        if find_spec(TRACKER_PACKAGES[tracker]) is None:
            yield _missing("trackers", tracker, TRACKER_PACKAGES[tracker])
    for name, method, settings in _trained(asked):
        for problem in _student_problems(asked, method, settings):
            yield f"students.{name}: {problem}"


def _student_problems(asked: Asked, method: str, settings: TrainSettings) -> Iterator[str]:
    row, backend, name = METHODS[method], asked.backend, asked.suite.backend
    given = asked.suite.train_data or TrainData()
    if row.gan and backend.draw_real_latents is None and given.images is None:
        yield (
            f"method {method} has a GAN loss, which learns from real images, and backend {name} "
            "has none. Take a method without GAN, or name real images under train_data.images"
        )
    if backend.encoders is not None and given.prompts is None:
        yield "it trains on captions, and the suite names none. Name them under train_data.prompts"
    moments = settings.mean_variance_targets or backend.real_moments
    if row.mean_variance and moments is None and given.images is None:
        yield (
            f"method {method} pulls the mean and variance of images to those of real ones, which "
            f"backend {name} does not know. Give them: train.mean_variance_targets"
        )
    package = OPTIMIZER_PACKAGES.get(settings.optimizer)
    if package is not None and find_spec(package) is None:
        yield _missing("train.optimizer", settings.optimizer, package)


def _missing(key: str, choice: str, package: str) -> str:
    return f"{key}: {choice} needs the package {package}: pip install {package}"


def _add_tasks(asked: Asked, tasks: Tasks) -> None:
    suite, evaluation = asked.suite, evaluation_inputs(asked)
    computed = versions("train") | backend_versions(suite.backend)
    for names in shared_trainings(suite):
        row = METHODS[suite.students[names[0]].method or ""]
        settings = suite.train_settings(names[0])
        real = uses_real_images(settings, row)
        data = training_data_inputs(asked)
        if not real and "train_data" in data:
            data["train_data"].pop("images", None)
        asked_of = {
            # A decoder runs only where the student is evaluated, an encoder where images are read.
            **network_inputs(suite.backend, asked.backend, vae=real or bool(evaluation)),
            **data,
            **evaluation,
            **_own_inputs(row, settings),
        }
        for seed in suite.seeds:
            inputs = {**asked_of, "seed": seed}
            tasks.add_shared("train", inputs, computed, names, seed, needs=[DOCTOR, ENCODE])


def _costs(asked: Asked) -> Mapping[TaskKind, Cost]:
    found, targets = {}, asked.backend.lora_targets
    keeps_best = asked.suite.evaluation is not None and asked.suite.evaluation.keep_best is not None
    for name, method, settings in _trained(asked):
        size = training_bytes(asked.facts(), METHODS[method], settings, targets)
        found["train", name] = Cost(
            disk=size.weights * (1 + keeps_best),
            disk_running=2 * size.checkpoint,  # one, and a second while it is written
            memory=size.memory,
        )
    return found


def _work(asked: Asked) -> Mapping[TaskKind, Work]:
    found, evaluation = {}, asked.suite.evaluation
    for name, method, settings in _trained(asked):
        operations = training_flops(asked.facts().flops, METHODS[method], settings)
        if evaluation is not None:
            num_images = evaluation.num_prompts * evaluation.images_per_prompt
            operations += len(evaluation.at) * num_images * operations_of_image(asked, name)
        found["train", name] = Work(operations, settings.precision)
    return found


TRAINING = Part(_problems, add_tasks=_add_tasks, costs=_costs, work=_work)
