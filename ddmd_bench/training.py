"""One student in training: its networks, optimizers and the one update of every method (Alg. 1).

Every draw of an iteration comes from (suite seed, purpose, iteration), so a resumed run equals an
uninterrupted one, and students of one suite share prompts, noise and DM draws.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.diffusion import renoise
from ddmd_bench.distill.diagnostics import update_diagnostics
from ddmd_bench.distill.sampler import backward_simulation
from ddmd_bench.distill.schedules import draw_tau
from ddmd_bench.distill.terms import Cond, Draw, student_direction, student_loss
from ddmd_bench.methods import Method, Schedule
from ddmd_bench.records import seed_of
from ddmd_bench.settings import TrainSettings


class Counted:
    """A network that counts its forward passes in samples, for the record of the cost."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.num_samples = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        self.num_samples += len(x_t)
        x0: Tensor = self.module(x_t, t, cond)
        return x0


class Training:
    """State of one student's training; `update` advances it by one iteration."""

    def __init__(
        self, backend: Backend, method: Method, settings: TrainSettings, seed: int, device: str
    ) -> None:
        self.backend, self.method, self.settings = backend, method, settings
        self.seed, self.device = seed, device
        teacher = backend.load_teacher().to(device)
        student = copy.deepcopy(teacher).requires_grad_(True)
        self.networks = {"teacher": Counted(teacher), "student": Counted(student)}
        self.optimizers = {
            "student": torch.optim.AdamW(
                student.parameters(), settings.learning_rate, betas=settings.betas, fused=True
            )
        }
        self.average = copy.deepcopy(student).requires_grad_(False) if settings.ema else None
        if method.tau_dm is not None:  # without DM a fake score would have nothing to tell
            sees_step = settings.fake_score_sees == "step"
            fake = backend.make_fake_score(teacher, len(settings.t_list) if sees_step else None)
            fake.to(device)
            self.networks["fake_score"] = Counted(fake)
            groups = _fake_score_groups(fake, settings)
            self.optimizers["fake_score"] = torch.optim.AdamW(
                groups, betas=settings.betas, fused=True
            )

    def update(self, iteration: int) -> dict[str, float]:
        """One update of the student and `fake_score_updates` of the fake score; its diagnostics."""
        settings, num = self.settings, self.settings.batch_size
        student, fake_score = self.networks["student"], self.networks.get("fake_score")
        generator = self._generator("batch", iteration)
        prompts = self.backend.draw_prompts(num, generator)
        cond, uncond = self._cond(prompts), self._cond([""] * num)
        noises = [self._noise(num, generator) for _ in settings.t_list]
        x_t, t, step = backward_simulation(
            student, settings.t_list, cond, noises, self.backend.level
        )
        fake_cond = {**cond, "step": step} if settings.fake_score_sees == "step" else cond

        x0 = student(x_t, t, cond)
        draws = self._draws(t, iteration)
        direction = student_direction(
            x0.detach(),
            draws,
            cond,
            uncond,
            teacher=self.networks["teacher"],
            fake_score=fake_score,
            fake_cond=fake_cond,
            level=self.backend.level,
            guidance_scale=settings.guidance_scale,
            weight_dm=settings.weight_dm,
            weight_ca=settings.weight_ca,
            normalizer=settings.normalizer,
        )
        loss = student_loss(x0, direction.total)
        self._step("student", loss)
        if self.average is not None:
            _update_average(self.average, student.module, settings.ema)
        x0 = x0.detach()
        return {
            "iteration": float(iteration),
            "loss_student": float(loss.detach()),
            "loss_fake_score": self._update_fake_score(x0, fake_cond, iteration),
            **update_diagnostics(x0, step, len(settings.t_list), direction, draws),
        }

    def _update_fake_score(self, x0: Tensor, cond: Cond, iteration: int) -> float:
        """Denoising of the student's samples, tau over all of [0, 1] (Alg. 1); the mean loss."""
        if "fake_score" not in self.networks:
            return math.nan
        generator = self._generator("fake_score", iteration)
        losses = []
        for _ in range(self.settings.fake_score_updates):
            tau = torch.rand(len(x0), generator=generator).to(self.device)
            level = self.backend.level(tau)
            x_tau = renoise(x0, level, self._noise(len(x0), generator))
            x0_fake = self.networks["fake_score"](x_tau, tau, cond)
            # 1 / sigma^2 makes it the error of the predicted velocity, as the teacher was trained;
            # bounded where sigma vanishes and an x0 error means nothing.
            weight = 1 / level.sigma.clamp(min=0.05).square()
            loss = (weight * (x0_fake - x0).square()).mean()
            self._step("fake_score", loss)
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses)

    def _step(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def _generator(self, purpose: str, iteration: int) -> torch.Generator:
        seed = seed_of("train", self.seed, purpose, iteration)
        return torch.Generator().manual_seed(seed)

    def _noise(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.randn(num, *self.backend.latent_shape, generator=generator).to(self.device)

    def _cond(self, prompts: list[str]) -> Cond:
        return {k: v.to(self.device) for k, v in self.backend.encode_prompts(prompts).items()}

    def _draws(self, t: Tensor, iteration: int) -> tuple[Draw | None, Draw | None]:
        """(DM's draw, CA's draw); a coupled method uses one draw for both."""

        def draw(purpose: str, schedule: Schedule | None) -> Draw | None:
            if schedule is None:
                return None
            generator = self._generator(purpose, iteration)
            tau = draw_tau(schedule, t, self.settings.tau_range, generator)
            return Draw(tau, self._noise(len(t), generator))

        dm = draw("dm", self.method.tau_dm)
        return dm, dm if self.method.shared_draw else draw("ca", self.method.tau_ca)

    def state(self) -> dict[str, Any]:
        """All that an exact continuation needs beside the iteration."""
        return {
            "networks": {
                name: network.module.state_dict()
                for name, network in self.networks.items()
                if name in self.optimizers
            },
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "average": self.average.state_dict() if self.average is not None else None,
            "num_samples": self.num_samples(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for name, optimizer in self.optimizers.items():
            self.networks[name].module.load_state_dict(state["networks"][name])
            optimizer.load_state_dict(state["optimizers"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for name, network in self.networks.items():
            network.num_samples = state["num_samples"][name]

    def num_samples(self) -> dict[str, int]:
        """Forward passes of each network so far, in samples."""
        return {name: network.num_samples for name, network in self.networks.items()}

    def result(self) -> nn.Module:
        """The student to sample from: the average where there is one."""
        return self.average if self.average is not None else self.networks["student"].module


def _fake_score_groups(fake: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The step's embedding starts at zero and each row meets few samples: it has its own rate."""
    named = list(fake.named_parameters())
    embedding = [p for name, p in named if "class_embedding" in name]
    groups: list[dict[str, Any]] = [
        {
            "params": [p for name, p in named if "class_embedding" not in name],
            "lr": settings.fake_score_learning_rate,
        }
    ]
    if embedding:
        groups.append({"params": embedding, "lr": settings.step_embedding_learning_rate})
    return groups


@torch.no_grad()
def _update_average(average: nn.Module, source: nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), source.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
