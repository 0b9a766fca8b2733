"""Schedulers are rows: a class of diffusers and what overrides the repository's own settings."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddmd_bench.errors import BenchError, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SchedulerRow:
    """`options` override the repository's scheduler_config.json, `step` goes to every step.

    class_name None: the class that the repository's configuration names.
    """

    class_name: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    step: Mapping[str, Any] = field(default_factory=dict)


_TRAILING = {"timestep_spacing": "trailing"}
# eta is 0 as diffusers' pipelines pass it; the schedulers' own defaults differ (TCD: 0.3).
_DETERMINISTIC = {"eta": 0.0}
# Latents are not images: DDIMScheduler would clip them to [-1, 1] where a configuration is silent.
_UNCLIPPED = {"clip_sample": False}
# So large that LCM's boundary scalings are 0 and 1 in float32: x0 is taken as it is predicted.
_UNSCALED = {"timestep_scaling": 1e10}
# Levels of flow matching as they are given: what moves a base's is of its own sampling.
_AS_GIVEN = {
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}

SCHEDULERS: dict[str, SchedulerRow] = {
    "own": SchedulerRow(None),
    "euler": SchedulerRow("EulerDiscreteScheduler"),
    "euler_trailing": SchedulerRow("EulerDiscreteScheduler", _TRAILING),
    "euler_ancestral": SchedulerRow("EulerAncestralDiscreteScheduler"),
    "euler_ancestral_trailing": SchedulerRow("EulerAncestralDiscreteScheduler", _TRAILING),
    "ddim": SchedulerRow("DDIMScheduler", _UNCLIPPED, _DETERMINISTIC),
    "ddim_trailing": SchedulerRow("DDIMScheduler", _TRAILING | _UNCLIPPED, _DETERMINISTIC),
    # These three take their timesteps from the 50 of the distillation and read no spacing.
    "lcm": SchedulerRow("LCMScheduler"),
    "lcm_unscaled": SchedulerRow("LCMScheduler", _UNSCALED | _UNCLIPPED | {"thresholding": False}),
    "tcd": SchedulerRow("TCDScheduler", step=_DETERMINISTIC),
    "dpm_solver": SchedulerRow("DPMSolverMultistepScheduler"),
    "flow_euler": SchedulerRow("FlowMatchEulerDiscreteScheduler"),
    # Levels of flow matching moved by 3 whatever the size: s -> 3 s / (1 + 2 s).
    "flow_euler_shift_3": SchedulerRow(
        "FlowMatchEulerDiscreteScheduler", _AS_GIVEN | {"shift": 3.0}
    ),
    "flow_lcm": SchedulerRow("FlowMatchLCMScheduler", _AS_GIVEN),
}


def make_scheduler(
    name: str,
    config: Mapping[str, Any],
    num_inference_steps: int,
    timesteps: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
) -> Any:
    """A scheduler of `SCHEDULERS` whose timesteps are set.

    config: the repository's scheduler_config.json. Explicit timesteps or sigmas that the scheduler
    cannot follow, or would change, are an error, as is another number of steps than was asked for.
    """
    scheduler = new_scheduler(name, config)
    explicit = explicit_steps(timesteps, sigmas) or _equal_levels(scheduler, num_inference_steps)
    if explicit:
        (kind,) = explicit
        _set_explicit(scheduler, name, num_inference_steps, kind, explicit[kind])
        return scheduler
    try:
        scheduler.set_timesteps(num_inference_steps)
    except ValueError as error:
        raise BenchError(f"scheduler {name!r}, {num_inference_steps} steps: {error}") from error
    if len(scheduler.timesteps) != num_inference_steps:
        raise BenchError(
            f"scheduler {name!r} takes {len(scheduler.timesteps)} steps for "
            f"{num_inference_steps}: it has more than one evaluation a step"
        )
    return scheduler


def explicit_steps(
    timesteps: Sequence[int] | None, sigmas: Sequence[float] | None
) -> dict[str, list[Any]]:
    """The one of both that is given, as an argument of `set_timesteps`; {} where none is."""
    given = {"timesteps": timesteps, "sigmas": sigmas}
    return {kind: list(values) for kind, values in given.items() if values is not None}


def _equal_levels(scheduler: Any, num_steps: int) -> dict[str, list[float]]:
    """Of flow matching 1 to 1/N, as Lumina2Pipeline asks for them; {} leaves it to the scheduler.

    Such a scheduler's own levels would be shifted twice.
    """
    takes = "sigmas" in inspect.signature(scheduler.set_timesteps).parameters
    if not (takes and _flows(type(scheduler).__name__)):
        return {}
    return {"sigmas": [1 - k / num_steps for k in range(num_steps)]}


def new_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A scheduler of `SCHEDULERS` whose timesteps are not set yet."""
    import diffusers

    if name not in SCHEDULERS:
        raise BenchError(unknown("scheduler", name, SCHEDULERS))
    row, class_name = SCHEDULERS[name], class_of(name, config)
    if class_name is None or not hasattr(diffusers, class_name):
        raise BenchError(
            f"scheduler {name!r}: the repository's scheduler_config.json names the class "
            f"{class_name!r}, which diffusers {diffusers.__version__} does not have"
        )
    own = config.get("_class_name")
    if own is not None and row.class_name is not None and _flows(own) != _flows(row.class_name):
        alike = [
            n for n, r in SCHEDULERS.items() if r.class_name and _flows(r.class_name) == _flows(own)
        ]
        raise BenchError(
            f"scheduler {name!r} ({row.class_name}) does not fit a network that is sampled by "
            f"{own}: one is of flow matching, the other of noise prediction. Fitting: "
            f"own, {', '.join(alike)}"
        )
    scheduler = _from_config(getattr(diffusers, class_name), config, row.options)
    if row.step:
        scheduler.step = functools.partial(scheduler.step, **row.step)
    return scheduler


def class_of(name: str, config: Mapping[str, Any]) -> str | None:
    """The class of diffusers behind a row of `SCHEDULERS`; None where nothing names it."""
    return SCHEDULERS[name].class_name or config.get("_class_name")


def _flows(class_name: str) -> bool:
    """Whether a scheduler is of flow matching, by its class."""
    return "FlowMatch" in class_name


def with_generators(scheduler: Any, generators: list[torch.Generator]) -> Any:
    """The scheduler with each image's own noise, also where a pipeline's call passes it none."""
    if "generator" in inspect.signature(scheduler.step).parameters:
        scheduler.step = functools.partial(scheduler.step, generator=generators)
    return scheduler


def _from_config(
    scheduler_class: Any, config: Mapping[str, Any], options: Mapping[str, Any]
) -> Any:
    """`from_config` without what only another class reads, which diffusers would log."""
    known = inspect.signature(scheduler_class.__init__).parameters
    config = {k: v for k, v in config.items() if k in known or k.startswith("_")}
    # As keywords: what a configuration lists as another class's defaults would be left out.
    return scheduler_class.from_config(config, **options)


@contextlib.contextmanager
def quiet(scheduler: Any) -> Iterator[None]:
    """LCMScheduler logs that a student's timesteps are not LCM's own; a row says so on purpose."""
    logger = logging.getLogger(type(scheduler).__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _set_explicit(scheduler: Any, name: str, num_steps: int, kind: str, levels: list[Any]) -> None:
    """Explicit timesteps or sigmas, or an error."""
    class_name = type(scheduler).__name__
    if len(levels) != num_steps:
        raise BenchError(f"{num_steps} steps, but {len(levels)} {kind}: {levels}")
    if kind == "sigmas" and not _flows(class_name):
        raise BenchError(
            f"scheduler {name!r} ({class_name}): sigmas are levels of flow matching, which it is "
            "not; give timesteps"
        )
    if kind not in inspect.signature(scheduler.set_timesteps).parameters:
        raise BenchError(
            f"scheduler {name!r} ({class_name}) follows no explicit {kind}; leave them out, or "
            f"use a scheduler that does, such as {_FOLLOWS[kind]!r}"
        )
    try:
        with quiet(scheduler):
            scheduler.set_timesteps(**{kind: levels})
    except ValueError as error:
        raise BenchError(f"scheduler {name!r}, {kind} {levels}: {error}") from error
    if kind == "sigmas":
        return
    if [round(float(t)) for t in scheduler.timesteps] != levels:
        raise BenchError(
            f"scheduler {name!r}: asked for timesteps {levels}, it would take "
            f"{scheduler.timesteps.tolist()}"
        )
    if _flows(class_name):
        _check_unshifted(scheduler, name)


# Schedulers that follow what is given.
_FOLLOWS = {"timesteps": "lcm", "sigmas": "flow_lcm"}


def _check_unshifted(scheduler: Any, name: str) -> None:
    """Flow matching's schedulers shift their noise levels, but not timesteps that are given."""
    levels = scheduler.timesteps / scheduler.config.num_train_timesteps
    if (scheduler.sigmas[:-1] - levels).abs().max() > 1e-4:
        raise BenchError(
            f"scheduler {name!r} would shift the noise levels of these timesteps to "
            f"{[round(float(s), 4) for s in scheduler.sigmas[:-1]]} and tell the network the "
            "timesteps as they are; give sigmas"
        )
