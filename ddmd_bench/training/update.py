"""The one update of every method (Alg. 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.objective.diagnostics import update_diagnostics
from ddmd_bench.objective.methods import Method
from ddmd_bench.objective.process import renoise
from ddmd_bench.objective.regularizers import (
    gan_fake_score_loss,
    gan_student_loss,
    mean_variance_kl,
)
from ddmd_bench.objective.terms import Cond, Direction, student_direction, student_loss
from ddmd_bench.students.networks import Network, make_networks
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.suite.used import has_fake_score
from ddmd_bench.training.batches import Batch, Batches
from ddmd_bench.training.discriminator import Discriminator
from ddmd_bench.training.optimizers import Stepper

Row = dict[str, float]


class NotFinite(BenchError):
    """A term of the objective, or a gradient, stopped being a number."""

    def __init__(self, term: str) -> None:
        super().__init__(f"{term} is not finite")
        self.term = term


class Samples(NamedTuple):
    """What the fake score learns from: the student's x0, without gradient."""

    x0: Tensor
    fake_cond: Cond


class Training:
    """State of one student's training; `update` advances it by one iteration."""

    def __init__(
        self, backend: Backend, method: Method, settings: TrainSettings, seed: int, device: str
    ) -> None:
        self.backend, self.method, self.settings = backend, method, settings
        self.seed, self.device = seed, device
        self.batches = Batches(backend, method, settings, seed, device)
        tracks = has_fake_score(method)
        roles = ["teacher", "student"]
        roles += ["average"] if settings.ema else []
        roles += ["fake_score"] if tracks else []
        self.networks = make_networks(backend, settings, roles, seed, device)
        student = self.networks["student"].parameters.values()
        self.steppers = {"student": Stepper([(student, settings.learning_rate)], settings)}
        self.discriminator: Discriminator | None = None
        if tracks:
            fake_score = self.networks["fake_score"]
            head: list[torch.nn.Parameter] = []
            if method.gan:
                self.discriminator = Discriminator(backend, fake_score, seed, device)
                head = list(self.discriminator.parameters.values())
            self.steppers["fake_score"] = Stepper(_groups(fake_score, head, settings), settings)
        self.targets = settings.mean_variance_targets or backend.real_moments

    def update(self, iteration: int) -> Row:
        """One update of the student and `fake_score_updates` of the fake score; its diagnostics.

        Raises NotFinite before the values that caused it reach any weight.
        """
        k = self.settings.gradient_accumulation
        numbers = range((iteration - 1) * k + 1, iteration * k + 1)
        stepper = self.steppers["student"]
        stepper.start(iteration)
        made = [self._student_backward(number) for number in numbers]
        row = {"iteration": float(iteration), **_mean_rows([row for row, _ in made])}
        row["grad_norm_student"] = self._step("student")
        self._update_average()
        if "fake_score" in self.steppers:
            row |= self._update_fake_score(iteration, numbers, [samples for _, samples in made])
        return row

    def _student_backward(self, number: int) -> tuple[Row, Samples]:
        """Gradients of one batch's share of the student's loss."""
        settings, student = self.settings, self.networks["student"]
        batch = self.batches.batch("batch", number, student)
        x0 = student(batch.x_t, batch.t, batch.cond)
        renoisings = self.batches.of_terms(batch.t, number)
        direction = student_direction(
            x0.detach(),
            renoisings,
            batch.cond,
            batch.uncond,
            teacher=self.networks["teacher"],
            fake_score=self.networks.get("fake_score"),
            fake_cond=batch.fake_cond,
            level=self.backend.level,
            guidance_scale=settings.guidance_scale,
            weight_dm=settings.weight_dm,
            weight_ca=settings.weight_ca,
            normalizer=settings.normalizer,
        )
        # The discriminator teaches the student here; it learns in the fake score's own updates.
        with self.discriminator.frozen() if self.discriminator else nullcontext():
            losses = {
                "loss_direction": student_loss(x0, direction.total),
                **self._regularizers(x0, batch, number),
            }
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise NotFinite(_culprit(x0, direction, losses))
            (loss / settings.gradient_accumulation).backward()
        x0 = x0.detach()
        values = torch.stack([loss, *losses.values()]).tolist()
        row = dict(zip(["loss_student", *losses], values, strict=True))
        row |= update_diagnostics(x0, batch.step, len(settings.t_list), direction, renoisings)
        return row, Samples(x0, batch.fake_cond)

    def _regularizers(self, x0: Tensor, batch: Batch, number: int) -> dict[str, Tensor]:
        """What a method has beside its direction, weighted."""
        settings, losses = self.settings, {}
        if self.method.mean_variance:
            assert self.targets is not None, "plan refuses a method without its targets"
            distance = mean_variance_kl(x0, *self.targets).mean()
            losses["loss_mean_variance"] = settings.weight_mean_variance * distance
        if self.discriminator is not None:
            generator = self.batches.generator("gan_student", number)
            renoising = self.batches.whole_range(len(x0), generator)
            logits = self.discriminator.logits(x0, renoising, batch.fake_cond)
            losses["loss_gan_student"] = settings.weight_gan * gan_student_loss(logits)
        return losses

    def _update_fake_score(
        self, iteration: int, numbers: Sequence[int], samples: Sequence[Samples]
    ) -> Row:
        """The fake score's updates, on the student's samples or on fresh ones; mean losses."""
        stepper = self.steppers["fake_score"]
        generators = [self.batches.generator("fake_score", number) for number in numbers]
        rows = []
        for k in range(self.settings.fake_score_updates):
            stepper.start(iteration)
            for number, generator, sample in zip(numbers, generators, samples, strict=True):
                fresh = self.settings.fake_score_samples == "fresh"
                one = self._fresh_samples(number, k) if fresh else sample
                rows.append(self._fake_score_backward(one, generator))
            rows[-1]["grad_norm_fake_score"] = self._step("fake_score")
        return _mean_rows(rows)

    def _fake_score_backward(self, samples: Samples, generator: torch.Generator) -> Row:
        """Gradients of one batch: denoising for DM, telling real from made for a GAN."""
        losses: dict[str, Tensor] = {}
        if self.method.tau_dm is not None:
            losses["loss_fake_score"] = self._denoising_loss(samples, generator)
        if self.discriminator is not None:
            weight = self.settings.weight_gan_fake_score
            losses["loss_gan_fake_score"] = weight * self._gan_loss(samples, generator)
        values = torch.stack(list(losses.values()))
        row = dict(zip(losses, values.tolist(), strict=True))
        for name, value in row.items():
            if not math.isfinite(value):
                raise NotFinite(name)
        (values.sum() / self.settings.gradient_accumulation).backward()
        return row

    def _denoising_loss(self, samples: Samples, generator: torch.Generator) -> Tensor:
        """Denoising of the student's samples, tau over all of [0, 1] (Alg. 1)."""
        x0 = samples.x0
        renoising = self.batches.whole_range(len(x0), generator)
        level = self.backend.level(renoising.tau)
        x_tau = renoise(x0, level, renoising.eps)
        x0_fake = self.networks["fake_score"](x_tau, renoising.tau, samples.fake_cond)
        return (self.backend.denoising_weight(level) * (x0_fake - x0).square()).mean()

    def _gan_loss(self, samples: Samples, generator: torch.Generator) -> Tensor:
        """The discriminator on samples and real images, each noised over the whole range (DMD2)."""
        assert self.discriminator is not None
        num = len(samples.x0)
        real, real_cond = self.batches.real(num, samples.fake_cond, generator)
        logits = []
        for x0, cond in ((samples.x0, samples.fake_cond), (real, real_cond)):
            renoising = self.batches.whole_range(num, generator)
            logits.append(self.discriminator.logits(x0, renoising, cond))
        return gan_fake_score_loss(*logits)

    @torch.no_grad()
    def _fresh_samples(self, number: int, update: int) -> Samples:
        """New samples of the student as it now is."""
        k = self.settings.fake_score_updates
        student = self.networks["student"]
        batch = self.batches.batch("fresh", (number - 1) * k + update + 1, student)
        return Samples(student(batch.x_t, batch.t, batch.cond), batch.fake_cond)

    def _step(self, name: str) -> float:
        """Step an optimizer; the norm of its gradient."""
        norm = self.steppers[name].gradient_norm()
        if not math.isfinite(norm):
            raise NotFinite(f"the gradient of the {name}")
        self.steppers[name].step()
        return norm

    def _update_average(self) -> None:
        if "average" in self.networks:
            mean, value = ([*self.networks[k].state().values()] for k in ("average", "student"))
            get_ema_multi_avg_fn(self.settings.ema)(mean, value, None)

    def require_finite_weights(self) -> None:
        """Raise NotFinite if a step left a weight that is no number."""
        for role, network in self.networks.items():
            for name, value in network.state().items():
                if not value.isfinite().all():
                    raise NotFinite(f"{name} of the {role}")

    def state(self) -> dict[str, Any]:
        """All that an exact continuation needs beside the iteration."""
        head = self.discriminator.head.state_dict() if self.discriminator else None
        return {
            "networks": {k: n.state() for k, n in self.networks.items() if n.parameters},
            "discriminator": head,
            "optimizers": {k: s.optimizer.state_dict() for k, s in self.steppers.items()},
            "cost": self.cost(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for role, values in state["networks"].items():
            self.networks[role].load_state(values)
        if self.discriminator is not None:
            self.discriminator.head.load_state_dict(state["discriminator"])
        for name, stepper in self.steppers.items():
            stepper.optimizer.load_state_dict(state["optimizers"][name])
        for name, counted in self._counted().items():
            counted.forward_samples = state["cost"]["forward"][name]
            counted.backward_samples = state["cost"]["backward"][name]

    def _counted(self) -> dict[str, Network | Discriminator]:
        counted: dict[str, Network | Discriminator] = {
            k: n for k, n in self.networks.items() if k != "average"
        }
        return counted | ({"discriminator": self.discriminator} if self.discriminator else {})

    def cost(self) -> dict[str, dict[str, int]]:
        """Samples through each network so far, forward and backward.

        The discriminator's pass runs through the fake score up to its bottleneck and its head.
        """
        counted = self._counted()
        return {
            "forward": {name: n.forward_samples for name, n in counted.items()},
            "backward": {name: n.backward_samples for name, n in counted.items()},
        }

    def result(self) -> Network:
        """The student to sample from: the average where there is one."""
        return self.networks.get("average", self.networks["student"])


def _groups(
    fake_score: Network, head: list[torch.nn.Parameter], settings: TrainSettings
) -> list[tuple[list[torch.nn.Parameter], float]]:
    """The step's embedding starts at zero and each row meets few samples: it has its own rate."""
    embedding = fake_score.step_embedding
    others = [p for name, p in fake_score.parameters.items() if name not in embedding]
    return [
        (others + head, settings.fake_score_learning_rate),
        (list(embedding.values()), settings.step_embedding_learning_rate),
    ]


def _mean_rows(rows: Sequence[Row]) -> Row:
    """Mean of each value over the rows that have it; of none that is finite, NaN: missing."""
    mean = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row[name] for row in rows if not math.isnan(row.get(name, math.nan))]
        mean[name] = sum(values) / len(values) if values else math.nan
    return mean


def _culprit(x0: Tensor, direction: Direction, losses: dict[str, Tensor]) -> str:
    """Which part of the student's loss is not finite, the first in the order of computation."""
    parts: dict[str, Tensor | None] = {
        "the student's x0": x0,
        "the DM direction": direction.dm,
        "the CA direction": direction.ca,
        "the normalised direction": direction.total,
        **losses,
    }
    return next(k for k, v in parts.items() if v is not None and not v.isfinite().all())
