"""The one update of every method (Alg. 1), its samples shared among the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ddmd_bench.backends import Backend
from ddmd_bench.files import ranks
from ddmd_bench.files.memory import AtOnce
from ddmd_bench.objective.diagnostics import Array, joined, sample_diagnostics, update_diagnostics
from ddmd_bench.objective.methods import Method
from ddmd_bench.objective.process import renoise
from ddmd_bench.objective.regularizers import (
    gan_fake_score_loss,
    gan_student_loss,
    mean_variance_kl,
)
from ddmd_bench.objective.sampler import rows_of
from ddmd_bench.objective.terms import Cond, student_direction, student_loss
from ddmd_bench.students.networks import Network, make_networks
from ddmd_bench.students.sharding import whole
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.suite.used import has_fake_score
from ddmd_bench.training.batches import Batch, Batches, Generators
from ddmd_bench.training.discriminator import Discriminator
from ddmd_bench.training.finite import NotFinite, culprit
from ddmd_bench.training.optimizers import Stepper

Row = dict[str, float]
Cost = dict[str, dict[str, int]]  # samples by way (forward, backward) and network
Made = TypeVar("Made")


class Samples(NamedTuple):
    """What the fake score learns from: the student's x0 [B, C, H, W], without gradient."""

    x0: Tensor
    fake_cond: Cond

    def rows(self, rows: slice) -> Samples:
        """Some of them."""
        return Samples(self.x0[rows], rows_of(self.fake_cond, rows))


class FakeScoreUpdate(NamedTuple):
    """What an update of the fake score told."""

    losses: dict[str, Array]  # of this rank's samples
    grad_norm: float  # of all


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
        self.at_once = AtOnce(settings.samples_at_once or settings.batch_size, "samples")
        # Whether no rank passes through a network without the others.
        self.in_step = settings.sharding == "weights"
        self.targets = settings.mean_variance_targets or backend.real_moments

    def update(self, iteration: int) -> Row:
        """One update of the student and `fake_score_updates` of the fake score; its diagnostics.

        All ranks call it and have the same weights, before and after, and the same diagnostics.
        Raises NotFinite before the values that caused it reach any weight.
        """
        before = self.cost()
        numbers = self.batches.numbers(iteration - 1)
        self.steppers["student"].start(iteration)
        made = self._accumulated("student", numbers, self._student_backward)
        row = {"iteration": float(iteration)}
        norm = self._step("student")
        self._update_average()
        losses = list[FakeScoreUpdate]()
        if "fake_score" in self.steppers:
            samples = _joined_samples([one for _, one in made])
            losses = self._update_fake_score(iteration, samples)
        here = joined([found for found, _ in made]), [one.losses for one in losses]
        told = ranks.gathered((*here, self.cost()))
        self._load_cost(_summed(before, [cost for *_, cost in told]))
        found, size = joined([found for found, *_ in told]), math.prod(self.backend.latent_shape)
        row |= update_diagnostics(found, len(self.settings.t_list), size)
        row["grad_norm_student"] = norm
        return row | _means(losses, [theirs for _, theirs, _ in told])

    def _accumulated(
        self, name: str, numbers: Sequence[int], backward: Callable[[Sequence[int]], Made]
    ) -> list[Made]:
        """The gradients of all samples on all ranks; what each part of this rank's own gave.

        A rank has as many samples at once as its memory holds, all the same number where weights
        are kept in parts.
        """
        cost, stepper = self.cost(), self.steppers[name]

        def start() -> None:
            stepper.clear()
            self._load_cost(cost)

        own = ranks.share(numbers)
        if self.in_step:
            size = self.at_once.size
            start()
            with ranks.in_step():
                made = [backward(own[k : k + size]) for k in range(0, len(own), size)]
        else:
            with ranks.together():
                made = self.at_once.of_all(own, backward, start)
        ranks.sum_gradients(stepper.parameters)
        return made

    def _refusing(self) -> AbstractContextManager[None]:
        """What one rank refuses inside, all do, where they go through a backward pass together."""
        return ranks.together() if self.in_step else nullcontext()

    def _student_backward(self, numbers: Sequence[int]) -> tuple[dict[str, Array], Samples]:
        """Gradients of some samples' share of the student's loss."""
        settings, student = self.settings, self.networks["student"]
        batch = self.batches.batch("batch", numbers, student)
        x0 = student(batch.x_t, batch.t, batch.cond)
        renoisings = self.batches.of_terms(batch.t, numbers)
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
                **self._regularizers(x0, batch, numbers),
            }
            loss = torch.stack(list(losses.values())).sum(0)
            with self._refusing():
                if not loss.isfinite().all():
                    raise NotFinite(culprit(x0, direction, losses))
            (loss.sum() / settings.batch_size).backward()
        x0, told = x0.detach(), {"loss_student": loss, **losses}
        found = sample_diagnostics(x0, batch.step, direction, renoisings, told)
        return found, Samples(x0, batch.fake_cond)

    def _regularizers(self, x0: Tensor, batch: Batch, numbers: Sequence[int]) -> dict[str, Tensor]:
        """What a method has beside its direction, weighted, [B] each."""
        settings, losses = self.settings, {}
        if self.method.mean_variance:
            assert self.targets is not None, "plan refuses a method without its targets"
            distance = mean_variance_kl(x0, *self.targets)
            losses["loss_mean_variance"] = settings.weight_mean_variance * distance
        if self.discriminator is not None:
            renoising = self.batches.whole_range(self.batches.generators("gan_student", numbers))
            logits = self.discriminator.logits(x0, renoising, batch.fake_cond)
            losses["loss_gan_student"] = settings.weight_gan * gan_student_loss(logits)
        return losses

    def _update_fake_score(self, iteration: int, samples: Samples) -> list[FakeScoreUpdate]:
        """The fake score's updates, on the student's samples of this rank or on fresh ones."""
        num_updates = self.settings.fake_score_updates
        done = []
        for update in range((iteration - 1) * num_updates, iteration * num_updates):
            self.steppers["fake_score"].start(update + 1)
            numbers = self.batches.numbers(update)
            backward = partial(self._fake_score_backward, samples, ranks.share(numbers)[0])
            losses = joined(self._accumulated("fake_score", numbers, backward))
            done.append(FakeScoreUpdate(losses, self._step("fake_score")))
        return done

    def _fake_score_backward(
        self, same: Samples, start: int, numbers: Sequence[int]
    ) -> dict[str, Array]:
        """Gradients of some samples: denoising for DM, telling real from made for a GAN.

        start: the number of the sample that the student's first one serves as.
        """
        num, first = self.settings.batch_size, numbers[0] - start
        fresh = self.settings.fake_score_samples == "fresh"
        samples = self._fresh(numbers) if fresh else same.rows(slice(first, first + len(numbers)))
        generators = self.batches.generators("fake_score", numbers)
        losses: dict[str, Tensor] = {}
        if self.method.tau_dm is not None:
            losses["loss_fake_score"] = self._denoising_loss(samples, generators)
        if self.discriminator is not None:
            weight = self.settings.weight_gan_fake_score
            losses["loss_gan_fake_score"] = weight * self._gan_loss(samples, generators)
        table = torch.stack(list(losses.values()))
        found = dict(zip(losses, table.detach().double().cpu().numpy(), strict=True))
        with self._refusing():
            for name, values in found.items():
                if not np.isfinite(values).all():
                    raise NotFinite(name)
        (table.sum() / num).backward()
        return found

    def _denoising_loss(self, samples: Samples, generators: Generators) -> Tensor:
        """Denoising of the student's samples, tau over all of [0, 1] (Alg. 1); [B]."""
        x0 = samples.x0
        renoising = self.batches.whole_range(generators)
        level = self.backend.level(renoising.tau)
        x_tau = renoise(x0, level, renoising.eps)
        x0_fake = self.networks["fake_score"](x_tau, renoising.tau, samples.fake_cond)
        error = self.backend.denoising_weight(level) * (x0_fake - x0).square()
        return error.mean(dim=(1, 2, 3))

    def _gan_loss(self, samples: Samples, generators: Generators) -> Tensor:
        """The discriminator on samples and real images, each noised over all of [0, 1] (DMD2)."""
        assert self.discriminator is not None
        real, real_cond = self.batches.real(samples.fake_cond, generators)
        logits = []
        for x0, cond in ((samples.x0, samples.fake_cond), (real, real_cond)):
            renoising = self.batches.whole_range(generators)
            logits.append(self.discriminator.logits(x0, renoising, cond))
        return gan_fake_score_loss(*logits)

    @torch.no_grad()
    def _fresh(self, numbers: Sequence[int]) -> Samples:
        """New samples of the student as it now is."""
        student = self.networks["student"]
        batch = self.batches.batch("fresh", numbers, student)
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

    def state(self) -> dict[str, Any]:
        """All that an exact continuation needs beside the iteration.

        All ranks call it; what they keep in parts is whole on the first one.
        """
        head = whole(self.discriminator.head.state_dict()) if self.discriminator else None
        return {
            "networks": {k: whole(n.state()) for k, n in self.networks.items() if n.parameters},
            "discriminator": head,
            "optimizers": {k: s.state() for k, s in self.steppers.items()},
            "cost": self.cost(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        for role, values in state["networks"].items():
            self.networks[role].load_state(values)
        if self.discriminator is not None:
            self.discriminator.load_state(state["discriminator"])
        for name, stepper in self.steppers.items():
            stepper.load_state(state["optimizers"][name])
        self._load_cost(state["cost"])

    def _counted(self) -> dict[str, Network | Discriminator]:
        counted: dict[str, Network | Discriminator] = {
            k: n for k, n in self.networks.items() if k != "average"
        }
        return counted | ({"discriminator": self.discriminator} if self.discriminator else {})

    def cost(self) -> Cost:
        """Samples of all ranks through each network so far, forward and backward.

        The discriminator's pass runs through the fake score up to its bottleneck and its head.
        """
        counted = self._counted()
        return {
            "forward": {name: n.forward_samples for name, n in counted.items()},
            "backward": {name: n.backward_samples for name, n in counted.items()},
        }

    def _load_cost(self, cost: Cost) -> None:
        for name, counted in self._counted().items():
            counted.forward_samples = cost["forward"][name]
            counted.backward_samples = cost["backward"][name]

    def result(self) -> Network:
        """The student to sample from: the average where there is one."""
        return self.networks.get("average", self.networks["student"])

    def result_state(self) -> dict[str, Tensor]:
        """Its weights, whole on the first rank; all ranks call it."""
        state: dict[str, Tensor] = whole(self.result().state())
        return state


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


def _means(updates: Sequence[FakeScoreUpdate], losses: Sequence[list[dict[str, Array]]]) -> Row:
    """Mean losses and gradient norm over the fake score's updates; losses: by rank and update."""
    rows = []
    for update, of_ranks in zip(updates, zip(*losses, strict=True), strict=True):
        rows.append({name: float(values.mean()) for name, values in joined(of_ranks).items()})
        rows[-1]["grad_norm_fake_score"] = update.grad_norm
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def _summed(before: Cost, of_ranks: Sequence[Cost]) -> Cost:
    """What all ranks together have spent, who each began at `before`."""
    return {
        way: {
            name: num + sum(cost[way][name] - num for cost in of_ranks)
            for name, num in networks.items()
        }
        for way, networks in before.items()
    }


def _joined_samples(parts: Sequence[Samples]) -> Samples:
    names = parts[0].fake_cond
    fake_cond = {name: torch.cat([part.fake_cond[name] for part in parts]) for name in names}
    return Samples(torch.cat([part.x0 for part in parts]), fake_cond)
