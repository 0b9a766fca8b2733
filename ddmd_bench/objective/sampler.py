"""Sampling: few steps by x0 prediction and re-noising, or a deterministic ODE; backward simulation.

`noises` are given, one a step, so that an image's randomness belongs to the image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ddmd_bench.objective.process import NoiseLevel, eps_from_x0, guided, renoise
from ddmd_bench.objective.terms import Cond, Denoise

Level = Callable[[Tensor], NoiseLevel]


def rows_of(cond: Cond, rows: slice | Tensor) -> Cond:
    """The conditioning of some rows of the batch."""
    return {key: value[rows] for key, value in cond.items()}


def few_step_sample(
    student: Denoise, t_list: Sequence[float], cond: Cond, noises: Sequence[Tensor], level: Level
) -> Tensor:
    """Consistency-style sampling (DMD2): predict x0, re-noise with fresh noise to the next t.

    noises: one [B, C, H, W] for each t in `t_list`; the first is the initial noise.
    """
    x_t = x0 = noises[0]  # pure noise, also where alpha is not quite 0 at the first t (SDXL)
    for k, t in enumerate(t_list):
        t_batch = torch.full((len(x_t),), t, device=x_t.device)
        if k > 0:
            x_t = renoise(x0, level(t_batch), noises[k])
        x0 = student(x_t, t_batch, cond)
    return x0


@torch.no_grad()
def backward_simulation(
    student: Denoise,
    t_list: Sequence[float],
    steps: Sequence[int],
    cond: Cond,
    noises: Sequence[Tensor],
    level: Level,
    idle: Denoise | None = None,
) -> tuple[Tensor, Tensor]:
    """Training inputs made by the student's own earlier steps: x_t [B, C, H, W] at t [B].

    steps: of each row, how many of its steps the student has made before: 0 stays pure noise. idle:
    what is called where no row makes a step, if a pass is made for each of them whatever the rows.
    """
    x_t, device = noises[0].clone(), noises[0].device
    for k in range(max(steps) if idle is None else len(t_list) - 1):
        rows = torch.tensor([row for row, step in enumerate(steps) if step > k], device=device)
        if idle is not None and not len(rows):
            idle(x_t[:1], torch.full((1,), t_list[k], device=device), rows_of(cond, slice(0, 1)))
            continue
        t_k = torch.full((len(rows),), t_list[k], device=device)
        t_next = torch.full_like(t_k, t_list[k + 1])
        x0 = student(x_t[rows], t_k, rows_of(cond, rows))
        x_t[rows] = renoise(x0, level(t_next), noises[k + 1][rows])
    return x_t, torch.tensor([t_list[step] for step in steps], device=device)


@torch.no_grad()
def ode_sample(
    teacher: Denoise,
    num_inference_steps: int,
    guidance_scale: float,
    cond: Cond,
    uncond: Cond,
    noise: Tensor,
    level: Level,
) -> Tensor:
    """Deterministic sampling with guidance at equally spaced t from 1 to 0.

    Each step keeps the implied noise: x_s = alpha_s * x0 + sigma_s * eps, which for flow matching
    is Euler's method.
    """
    x_t = noise
    times = torch.linspace(1, 0, num_inference_steps + 1).tolist()
    for t, t_next in pairwise(times):
        t_batch = torch.full((len(noise),), t, device=noise.device)
        x0 = teacher(x_t, t_batch, cond)
        if guidance_scale != 1:
            x0 = guided(teacher(x_t, t_batch, uncond), x0, guidance_scale)
        now, after = level(t_batch), level(torch.full_like(t_batch, t_next))
        x_t = renoise(x0, after, eps_from_x0(x0, x_t, now))
    return x_t


# What a network predicts (eps or velocity, guidance included) for x [B, C, H, W] at the k-th of a
# scheduler's timesteps.
Predict = Callable[[Tensor, Tensor, int], Tensor]


@torch.no_grad()
def scheduler_sample(
    predict: Predict, scheduler: Any, noise: Tensor, generators: list[torch.Generator] | None = None
) -> Tensor:
    """Sampling as a diffusers scheduler does it, whose timesteps are set: noise -> latents.

    generators: one an image, for a scheduler that adds noise again; each is that image's own after
    it gave the initial noise.
    """
    # Flow matching starts at unit noise and scales no input: its schedulers have neither.
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scale = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    draws = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": generators} if draws else {}
    for k, timestep in enumerate(scheduler.timesteps):
        predicted = predict(scale(x, timestep), timestep, k)
        x = scheduler.step(predicted, timestep, x, return_dict=False, **options)[0]
    return x
