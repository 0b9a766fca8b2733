"""Everything random in a training: each draw comes from (suite seed, purpose, batch number).

So a resumed run equals an uninterrupted one, and students of one seed share prompts, noise and
DM draws.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.files.records import seed_of
from ddmd_bench.objective.methods import Method, Schedule
from ddmd_bench.objective.sampler import backward_simulation
from ddmd_bench.objective.schedules import draw_tau
from ddmd_bench.objective.terms import Cond, Denoise, Renoising
from ddmd_bench.suite.settings import TrainSettings


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

    def generator(self, purpose: str, number: int) -> torch.Generator:
        """The generator of one purpose in one batch, on the CPU."""
        return torch.Generator().manual_seed(seed_of("train", self.seed, purpose, number))

    def noise(self, num: int, generator: torch.Generator) -> Tensor:
        """Standard normal latents [num, C, H, W]."""
        return torch.randn(num, *self.backend.latent_shape, generator=generator).to(self.device)

    def cond(self, prompts: list[str]) -> Cond:
        """The prompts' conditioning."""
        return {k: v.to(self.device) for k, v in self.backend.encode_prompts(prompts).items()}

    def whole_range(self, num: int, generator: torch.Generator) -> Renoising:
        """tau uniform over all of [0, 1], where fake score and discriminator learn (Alg. 1)."""
        tau = torch.rand(num, generator=generator).to(self.device)
        return Renoising(tau, self.noise(num, generator))

    def of_terms(self, t: Tensor, number: int) -> tuple[Renoising | None, Renoising | None]:
        """(DM's draw, CA's draw); a coupled method uses one draw for both."""

        def renoising(purpose: str, schedule: Schedule | None) -> Renoising | None:
            if schedule is None:
                return None
            generator = self.generator(purpose, number)
            tau = draw_tau(schedule, t, self.settings.tau_range, generator)
            return Renoising(tau, self.noise(len(t), generator))

        dm = renoising("dm", self.method.tau_dm)
        return dm, dm if self.method.shared_draw else renoising("ca", self.method.tau_ca)

    def batch(self, purpose: str, number: int, student: Denoise) -> Batch:
        """Prompts and noise of one batch, run through the student's earlier steps."""
        settings, num = self.settings, self.settings.batch_size
        generator = self.generator(purpose, number)
        prompts = self.backend.draw_prompts(num, generator)
        cond, uncond = self.cond(prompts), self.cond([""] * num)
        noises = [self.noise(num, generator) for _ in settings.t_list]
        x_t, t, step = backward_simulation(
            student, settings.t_list, cond, noises, self.backend.level
        )
        fake_cond = {**cond, "step": step} if settings.fake_score_sees == "step" else cond
        return Batch(x_t, t, step, cond, uncond, fake_cond)

    def real(self, num: int, fake_cond: Cond, generator: torch.Generator) -> tuple[Tensor, Cond]:
        """Real latents with their conditioning, for a discriminator."""
        assert self.backend.draw_real_latents is not None, "plan refuses a GAN without real images"
        prompts, latents = self.backend.draw_real_latents(num, generator)
        cond = self.cond(prompts)
        if "step" in fake_cond:  # no step made a real image: it stands in for each alike
            cond = {**cond, "step": fake_cond["step"]}
        return latents.to(self.device), cond
