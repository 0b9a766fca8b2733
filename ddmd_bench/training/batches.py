"""Everything random in a training: each draw comes from (suite seed, purpose, number of a sample).

A sample has its number in the whole training, so that neither a resume nor how many samples are
computed at once changes what is drawn, on the CPU whatever the device; students of one seed share
prompts, noise and DM draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.files.records import seed_of
from ddmd_bench.objective.methods import Method, Schedule
from ddmd_bench.objective.sampler import backward_simulation
from ddmd_bench.objective.schedules import tau_of
from ddmd_bench.objective.terms import Cond, Renoising
from ddmd_bench.students.networks import Network
from ddmd_bench.suite.settings import TrainSettings

Generators = Sequence[torch.Generator]  # one a sample


class Batch(NamedTuple):
    """Inputs of the student: x_t [B, C, H, W] at t [B], made by `step` [B] of its earlier steps."""

    x_t: Tensor
    t: Tensor
    step: Tensor
    cond: Cond
    uncond: Cond
    fake_cond: Cond  # what the fake score is told


class Batches:
    """Prompts, noise and noise levels of one training."""

    def __init__(
        self, backend: Backend, method: Method, settings: TrainSettings, seed: int, device: str
    ) -> None:
        self.backend, self.method, self.settings = backend, method, settings
        self.seed, self.device = seed, device

    def numbers(self, update: int) -> range:
        """The samples of an update, both counted from 0."""
        num = self.settings.batch_size
        return range(update * num, (update + 1) * num)

    def generators(self, purpose: str, numbers: Sequence[int]) -> Generators:
        """The generators of one purpose, one for each of the samples, on the CPU."""
        seeds = [seed_of("train", self.seed, purpose, number) for number in numbers]
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise(self, generators: Generators) -> Tensor:
        """Standard normal latents [B, C, H, W]."""
        shape = self.backend.latent_shape
        return torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device)

    def cond(self, prompts: list[str]) -> Cond:
        """The prompts' conditioning."""
        return {k: v.to(self.device) for k, v in self.backend.encode_prompts(prompts).items()}

    def whole_range(self, generators: Generators) -> Renoising:
        """tau uniform over all of [0, 1], where fake score and discriminator learn (Alg. 1)."""
        return Renoising(_uniform(generators).to(self.device), self.noise(generators))

    def of_terms(
        self, t: Tensor, numbers: Sequence[int]
    ) -> tuple[Renoising | None, Renoising | None]:
        """(DM's draws, CA's draws); a coupled method uses DM's for both."""

        def renoising(purpose: str, schedule: Schedule | None) -> Renoising | None:
            if schedule is None:
                return None
            generators = self.generators(purpose, numbers)
            tau = tau_of(schedule, t, self.settings.tau_range, _uniform(generators))
            return Renoising(tau, self.noise(generators))

        dm = renoising("dm", self.method.tau_dm)
        return dm, dm if self.method.shared_draw else renoising("ca", self.method.tau_ca)

    def batch(self, purpose: str, numbers: Sequence[int], student: Network) -> Batch:
        """Prompts and noise of some samples, run through the student's earlier steps.

        The steps take turns, so that an update holds each equally often and any part of it most.
        Ranks that pass through a network together make a pass for each step, whoever's samples
        need it.
        """
        idle = student.idle if self.settings.sharding == "weights" else None
        t_list = self.settings.t_list
        generators = self.generators(purpose, numbers)
        cond = self.cond([self.backend.draw_prompt(g) for g in generators])
        uncond = self.cond([""] * len(numbers))
        noises = [self.noise(generators) for _ in t_list]
        steps = [number % len(t_list) for number in numbers]
        level = self.backend.level
        x_t, t = backward_simulation(student, t_list, steps, cond, noises, level, idle)
        step = torch.tensor(steps, device=self.device)
        fake_cond = {**cond, "step": step} if self.settings.fake_score_sees == "step" else cond
        return Batch(x_t, t, step, cond, uncond, fake_cond)

    def real(self, fake_cond: Cond, generators: Generators) -> tuple[Tensor, Cond]:
        """Real latents [B, C, H, W] with their conditioning, for a discriminator."""
        assert self.backend.draw_real_latents is not None, "plan refuses a GAN without real images"
        prompts, latents = self.backend.draw_real_latents(generators)
        cond = self.cond(prompts)
        if "step" in fake_cond:  # no step made a real image: it stands in for each alike
            cond = {**cond, "step": fake_cond["step"]}
        return latents.to(self.device), cond


def _uniform(generators: Generators) -> Tensor:
    return torch.stack([torch.rand((), generator=generator) for generator in generators])
