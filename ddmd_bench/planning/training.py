"""Training as a plan sees it: what can be checked before any work, and what keys it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ddmd_bench.backends import Backend
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import NOT_IN_KEY, TrainData, TrainSettings

# What a choice needs beside the package's own dependencies: choice -> package.
OPTIMIZER_PACKAGES = {"adamw_8bit": "bitsandbytes"}
TRACKER_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


def training_problems(suite: Suite, backend: Backend) -> list[str]:
    """What the suite's trainings ask for and this backend or this environment does not have."""
    problems = [
        _missing("trackers", name, TRACKER_PACKAGES[name])
        for name in suite.trackers
        if find_spec(TRACKER_PACKAGES[name]) is None
    ]
    for name, student in suite.students.items():
        if student.source == "train":
            found = _student_problems(suite, student.method or "", backend, name)
            problems += [f"students.{name}: {problem}" for problem in found]
    return problems


def _student_problems(suite: Suite, method: str, backend: Backend, name: str) -> list[str]:
    row, settings, problems = METHODS[method], suite.train_settings(name), []
    given = suite.train_data or TrainData()
    has_images = backend.draw_real_latents is not None or given.images is not None
    if row.gan and not has_images:
        problems.append(
            f"method {method} has a GAN loss, which learns from real images, and backend "
            f"{suite.backend} has none. Take a method without GAN, or name real images under "
            "train_data.images"
        )
    if backend.encoders is not None and given.prompts is None:
        problems.append(
            "it trains on captions, and the suite names none. Name them under train_data.prompts"
        )
    moments = settings.mean_variance_targets or backend.real_moments
    if row.mean_variance and moments is None and given.images is None:
        problems.append(
            f"method {method} pulls the mean and variance of images to those of real ones, which "
            f"backend {suite.backend} does not know. Give them: train.mean_variance_targets"
        )
    package = OPTIMIZER_PACKAGES.get(settings.optimizer)
    if package is not None and find_spec(package) is None:
        problems.append(_missing("train.optimizer", settings.optimizer, package))
    return problems


def _missing(key: str, choice: str, package: str) -> str:
    return f"{key}: {choice} needs the package {package}: pip install {package}"


def training_inputs(method: str, settings: TrainSettings) -> dict[str, Any]:
    """What determines a training beside its world and its seed."""
    row = {key: value for key, value in vars(METHODS[method]).items() if key != "title"}
    return {"method": row, "train": settings.model_dump(mode="json", exclude=set(NOT_IN_KEY))}
