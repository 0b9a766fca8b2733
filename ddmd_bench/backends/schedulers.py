"""Schedulers are rows: a class of diffusers and what overrides the repository's own settings."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddmd_bench.errors import BenchError, unknown


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

SCHEDULERS: dict[str, SchedulerRow] = {
    "own": SchedulerRow(None),
    "euler": SchedulerRow("EulerDiscreteScheduler"),
    "euler_trailing": SchedulerRow("EulerDiscreteScheduler", _TRAILING),
    "euler_ancestral": SchedulerRow("EulerAncestralDiscreteScheduler"),
    "euler_ancestral_trailing": SchedulerRow("EulerAncestralDiscreteScheduler", _TRAILING),
    "ddim": SchedulerRow("DDIMScheduler", _UNCLIPPED, _DETERMINISTIC),
    "ddim_trailing": SchedulerRow("DDIMScheduler", _TRAILING | _UNCLIPPED, _DETERMINISTIC),
    # These two take their timesteps from the 50 of the distillation and read no spacing.
    "lcm": SchedulerRow("LCMScheduler"),
    "tcd": SchedulerRow("TCDScheduler", step=_DETERMINISTIC),
    "dpm_solver": SchedulerRow("DPMSolverMultistepScheduler"),
    "flow_euler": SchedulerRow("FlowMatchEulerDiscreteScheduler"),
}


def make_scheduler(
    name: str,
    config: Mapping[str, Any],
    num_inference_steps: int,
    timesteps: Sequence[int] | None = None,
) -> Any:
    """A scheduler of `SCHEDULERS` whose timesteps are set.

    config: the repository's scheduler_config.json. Explicit timesteps that the scheduler cannot
    follow, or would change, are an error, as is another number of steps than was asked for.
    """
    import diffusers

    if name not in SCHEDULERS:
        raise BenchError(unknown("scheduler", name, SCHEDULERS))
    row = SCHEDULERS[name]
    class_name = row.class_name or config.get("_class_name")
    if class_name is None or not hasattr(diffusers, class_name):
        raise BenchError(
            f"scheduler {name!r}: the repository's scheduler_config.json names the class "
            f"{class_name!r}, which diffusers {diffusers.__version__} does not have"
        )
    scheduler = _from_config(getattr(diffusers, class_name), config, row.options)
    if timesteps is None:
        try:
            scheduler.set_timesteps(num_inference_steps)
        except ValueError as error:
            raise BenchError(f"scheduler {name!r}, {num_inference_steps} steps: {error}") from error
        if len(scheduler.timesteps) != num_inference_steps:
            raise BenchError(
                f"scheduler {name!r} takes {len(scheduler.timesteps)} steps for "
                f"{num_inference_steps}: it has more than one evaluation a step"
            )
    else:
        _set_explicit(scheduler, name, num_inference_steps, list(timesteps))
    if row.step:
        scheduler.step = functools.partial(scheduler.step, **row.step)
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
def _quiet(scheduler: Any) -> Iterator[None]:
    """LCMScheduler logs that a student's timesteps are not LCM's own; a row says so on purpose."""
    logger = logging.getLogger(type(scheduler).__module__)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _set_explicit(scheduler: Any, name: str, num_steps: int, timesteps: list[int]) -> None:
    """Explicit timesteps, or an error."""
    if len(timesteps) != num_steps:
        raise BenchError(f"{num_steps} steps, but {len(timesteps)} timesteps: {timesteps}")
    if "timesteps" not in inspect.signature(scheduler.set_timesteps).parameters:
        raise BenchError(
            f"scheduler {name!r} ({type(scheduler).__name__}) follows no explicit timesteps; "
            "leave them out, or use a scheduler that does, such as 'lcm'"
        )
    try:
        with _quiet(scheduler):
            scheduler.set_timesteps(timesteps=timesteps)
    except ValueError as error:
        raise BenchError(f"scheduler {name!r}, timesteps {timesteps}: {error}") from error
    if [round(float(t)) for t in scheduler.timesteps] != timesteps:
        raise BenchError(
            f"scheduler {name!r}: asked for timesteps {timesteps}, it would take "
            f"{scheduler.timesteps.tolist()}"
        )
