"""How a repository's own model is sampled, and the frame that it was trained in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends import twice_guided
from ddmd_bench.backends.repository import Parts
from ddmd_bench.backends.stable_diffusion.assumptions import SCHEDULERS
from ddmd_bench.backends.stable_diffusion.networks import PREDICTIONS, Frame, UNetDenoiser
from ddmd_bench.objective.process import NoiseLevel, ddpm_level, guided
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.objective.terms import Cond


def _scheduler(parts: Parts) -> Any:
    """The repository's own scheduler, of the class that it names, as its pipeline uses it."""
    import diffusers

    config = parts.scheduler_config()
    kind = getattr(diffusers, config["_class_name"])
    known = inspect.signature(kind.__init__).parameters
    return kind.from_config({k: v for k, v in config.items() if k in known or k[0] == "_"})


def frame_of(parts: Parts, scheduler: Mapping[str, Any]) -> Frame:
    """The levels of the schedule are read when they are first asked for."""

    def schedule() -> Callable[[Tensor], NoiseLevel]:
        from diffusers import LCMScheduler

        # Where the terminal SNR is zero alpha is 0; other classes keep it a little above.
        return ddpm_level(LCMScheduler.from_config(parts.scheduler_config()).alphas_cumprod)

    level = cache(schedule)
    return Frame(
        lambda t: level()(t),
        PREDICTIONS[scheduler.get("prediction_type", "epsilon")],
        scheduler.get("num_train_timesteps", 1000),
    )


def evaluations(
    scheduler: Mapping[str, Any], num_inference_steps: int, guidance_scale: float, **options: Any
) -> int:
    """Passes of the network for one image of the teacher, by its scheduler's order."""
    row = SCHEDULERS[scheduler["_class_name"]]
    return twice_guided(row.evaluations(num_inference_steps, scheduler), guidance_scale)


def sample_teacher(
    parts: Parts,
    teacher: nn.Module,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    generators: list[torch.Generator] | None = None,
    **options: Any,
) -> Tensor:
    """The repository's scheduler with guidance, as diffusers' pipeline samples."""
    assert not options, "plan refuses what teacher_options does not name"
    assert isinstance(teacher, UNetDenoiser)
    scheduler = _scheduler(parts)
    scheduler.set_timesteps(num_inference_steps, device=noise.device)

    # Both branches in one batch, as the pipeline runs them: rounding depends on the batch.
    both = {name: torch.cat([uncond[name], cond[name]]) for name in cond}

    def predict(x: Tensor, timestep: Tensor, k: int) -> Tensor:
        if guidance_scale == 1:
            return teacher.predict(x, timestep, cond)
        without, given = teacher.predict(torch.cat([x, x]), timestep, both).chunk(2)
        return guided(without, given, guidance_scale)

    return scheduler_sample(predict, scheduler, noise, generators)
