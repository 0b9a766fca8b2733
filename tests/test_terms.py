"""The terms against DMD2's own formula, and what each method costs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from small_worlds import NUM, World, eps_world, velocity_world
from torch import Tensor

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.objective.methods import METHODS, Method
from ddmd_bench.objective.process import flow_level
from ddmd_bench.objective.schedules import tau_of
from ddmd_bench.objective.terms import (
    Cond,
    Denoise,
    Direction,
    Renoising,
    student_direction,
    student_loss,
)
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.update import Training

DECOUPLED = ("decoupled_full", "decoupled_constrained", "decoupled_hybrid")
EXACT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture(params=[velocity_world, eps_world], ids=["velocity", "eps"], scope="module")
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param()
    return made


def dmd2(world: World, draw: Renoising, g: float) -> Tensor:
    """DMD2's gradient as its code states it: p = x - x0_pred, the real score guided."""
    cond = world.x0_of("teacher", draw, world.cond)
    uncond = world.x0_of("teacher", draw, world.uncond)
    p_real = world.x0 - (uncond + g * (cond - uncond))
    p_fake = world.x0 - world.x0_of("fake_score", draw, world.cond)
    return (p_real - p_fake) / p_real.abs().mean(dim=(1, 2, 3), keepdim=True)


# Identities


@pytest.mark.parametrize("g", [1.0, 4.0, 7.5])
def test_dm_plus_ca_at_one_shared_draw_is_the_direction_of_dmd2(world: World, g: float) -> None:
    draw = world.draw(1)
    total = world.direction((draw, draw), g).total
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, dmd2(world, draw, g), **EXACT)


def test_equal_draws_of_a_decoupled_method_are_dmd2_as_well(world: World) -> None:
    """The very values in two `Renoising`s: the teacher runs again and says the same."""
    total = world.direction((world.draw(2), world.draw(2))).total
    torch.testing.assert_close(total, dmd2(world, world.draw(2), 4.0), **EXACT)


def test_at_two_draws_decoupled_is_not_dmd2(world: World) -> None:
    dm, ca = world.draw(2), world.draw(3)
    assert not torch.allclose(world.direction((dm, ca)).total, dmd2(world, dm, 4.0), rtol=1e-3)


def test_without_guidance_ca_is_exactly_zero(world: World) -> None:
    dm, ca = world.draw(3), world.draw(4)
    for draws in ((dm, dm), (dm, ca), (None, ca)):
        direction = world.direction(draws, g=1.0)
        assert torch.equal(direction.ca, torch.zeros_like(world.x0))
    assert torch.equal(direction.total, torch.zeros_like(world.x0))
    # What is left of the coupled and of the decoupled method is DM alone.
    assert torch.equal(world.direction((dm, ca), 1.0).total, world.direction((dm, None)).total)


@pytest.mark.parametrize("normalizer", ["none", "per_term", "guided"])
def test_each_term_is_evaluated_at_its_own_draw(world: World, normalizer: str) -> None:
    dm, ca = world.draw(4), world.draw(5)
    direction = world.direction((dm, ca), normalizer=normalizer)
    real, real_ca = (world.x0_of("teacher", draw, world.cond) for draw in (dm, ca))
    expected_dm = world.x0_of("fake_score", dm, world.cond) - real
    expected_ca = -3.0 * (real_ca - world.x0_of("teacher", ca, world.uncond))
    torch.testing.assert_close(direction.dm, expected_dm, **EXACT)
    torch.testing.assert_close(direction.ca, expected_ca, **EXACT)
    guided = world.x0 - (real - expected_ca)
    distances = {
        "none": None,
        "per_term": (world.x0 - real, world.x0 - real_ca),
        "guided": (guided, guided),
    }[normalizer]
    norms = [d.abs().mean(dim=(1, 2, 3), keepdim=True) for d in distances] if distances else [1, 1]
    expected = expected_dm / norms[0] + expected_ca / norms[1]
    torch.testing.assert_close(direction.total, expected, **EXACT)


@pytest.mark.parametrize("normalizer", ["none", "per_term", "guided"])
def test_weights_scale_their_terms(world: World, normalizer: str) -> None:
    draws = (world.draw(8), world.draw(9))

    def direction(weight_dm: float, weight_ca: float) -> Direction:
        weights = {"weight_dm": weight_dm, "weight_ca": weight_ca}
        return world.direction(draws, normalizer=normalizer, **weights)

    dm, ca, both = direction(1, 0), direction(0, 1), direction(0.5, 3)
    torch.testing.assert_close(both.total, 0.5 * dm.total + 3 * ca.total, **EXACT)
    assert torch.equal(both.dm, dm.dm)  # what is recorded of a term is the term itself
    assert torch.equal(both.ca, ca.ca)


def test_a_method_with_one_term_is_that_term(world: World) -> None:
    draw = world.draw(10)
    both = world.direction((draw, draw), normalizer="none")
    dm_only = world.direction((draw, None), normalizer="none")
    ca_only = world.direction((None, draw), normalizer="none")
    assert torch.equal(dm_only.total, both.dm)
    assert torch.equal(ca_only.total, both.ca)
    assert dm_only.ca is None
    assert ca_only.dm is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_normalised_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, x0_teacher, x0_fake, eps = torch.randn(4, 2, 4, 16, 16, generator=generator).to(dtype)
    total = student_direction(
        x0,
        (Renoising(torch.full((2,), 0.5, dtype=dtype), eps), None),
        {},
        {},
        teacher=lambda x_t, t, cond: x0_teacher,
        fake_score=lambda x_t, t, cond: x0_fake,
        fake_cond={},
        level=flow_level,
        guidance_scale=4.0,
    ).total
    distance = (x0.double() - x0_teacher.double()).abs().mean(dim=(1, 2, 3), keepdim=True)
    assert total.dtype == torch.float32
    expected = (x0_fake - x0_teacher).double() / distance
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=1e-6)


def test_a_student_that_equals_its_teacher_moves_nowhere() -> None:
    """0 / 0 is no direction: the denominator has a bound."""
    x0 = torch.ones(2, 1, 4, 4)
    draw = Renoising(torch.full((2,), 0.5), torch.zeros_like(x0))
    network = {"teacher": lambda x, t, c: x0, "fake_score": lambda x, t, c: x0}
    for normalizer in ("guided", "per_term"):
        direction = student_direction(
            x0,
            (draw, draw),
            {},
            {},
            **network,
            fake_cond={},
            level=flow_level,
            guidance_scale=4.0,
            normalizer=normalizer,
        )
        assert torch.equal(direction.total, torch.zeros_like(x0))


def test_the_loss_has_the_direction_as_its_gradient(world: World) -> None:
    x0 = world.x0.clone().requires_grad_()
    direction = world.direction((world.draw(11), world.draw(12))).total
    loss = student_loss(x0, direction).mean()
    loss.backward()
    torch.testing.assert_close(x0.grad, direction / direction.numel(), **EXACT)
    assert loss.item() == pytest.approx(0.5 * direction.square().mean().item(), rel=1e-12)


def _drawn(world: World, row: Method, t: Tensor) -> tuple[Renoising, Renoising]:
    """(DM's, CA's), each term with a generator of its own, as in training."""
    draws = []
    for seed, schedule in ((1, row.tau_dm), (2, row.tau_ca)):
        uniform = torch.rand(len(t), generator=torch.Generator().manual_seed(seed))
        tau = tau_of(schedule, t, (0.02, 0.98), uniform)
        draws.append(Renoising(tau, world.draw(seed).eps))
    return draws[0], draws[1]


def test_the_schedules_differ_only_after_the_first_step(world: World) -> None:
    """At t = 1 'cleaner than t' is the whole range: a one-step student knows no schedules."""

    def totals(t: float) -> list[Tensor]:
        t_batch = torch.full((NUM,), t, dtype=torch.float64)
        rows = [METHODS[name] for name in DECOUPLED]
        return [world.direction(_drawn(world, row, t_batch)).total for row in rows]

    full, constrained, hybrid = totals(1.0)
    assert torch.equal(full, constrained)
    assert torch.equal(full, hybrid)
    full, constrained, hybrid = totals(0.5)
    assert not torch.allclose(full, constrained)
    assert not torch.allclose(full, hybrid)
    assert not torch.allclose(constrained, hybrid)


# Cost

# Forwards for one direction: teacher on prompts, teacher on '', fake score. A whole update's cost,
# with regularizers, is tests/test_training.py's.
COST = {
    "dmd": (1, 1, 1),
    "ca_only": (1, 1, 0),
    "dm_only": (1, 0, 1),
    "decoupled_full": (2, 1, 1),
    "decoupled_constrained": (2, 1, 1),
    "decoupled_hybrid": (2, 1, 1),
    "ca_mean_variance": (1, 1, 0),
    "ca_gan": (1, 1, 0),
    "dmd2": (1, 1, 1),
    "decoupled_hybrid_gan": (2, 1, 1),
}


def test_every_method_has_a_known_cost() -> None:
    assert COST.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_networks_run_as_often_as_the_method_needs(method: str) -> None:
    calls: Counter[str] = Counter()

    def counting(name: str) -> Denoise:
        def denoise(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
            calls[f"{name} {'prompts' if cond['words'].any() else 'empty'}"] += 1
            return 0.5 * x_t

        return denoise

    row = METHODS[method]
    x0, words = torch.ones(2, 1, 4, 4), torch.ones(2)
    dm = Renoising(torch.tensor([0.3, 0.6]), torch.ones_like(x0))
    ca = dm if row.shared_draw else Renoising(torch.tensor([0.2, 0.1]), torch.ones_like(x0))
    student_direction(
        x0,
        (dm if row.tau_dm else None, ca if row.tau_ca else None),
        {"words": words},
        {"words": 0 * words},
        teacher=counting("teacher"),
        fake_score=counting("fake") if row.tau_dm else None,
        fake_cond={"words": words},
        level=flow_level,
        guidance_scale=4.0,
    )
    prompts, empty, fake = COST[method]
    assert calls == +Counter(
        {"teacher prompts": prompts, "teacher empty": empty, "fake prompts": fake}
    )


# Coincidence


def test_decoupled_methods_coincide_for_a_one_step_student() -> None:
    """At t = 1 'cleaner than t' is the whole range: the very same updates."""
    settings = TrainSettings(batch_size=2, t_list=(1.0,), learning_rate=1e-3)
    rows, weights = [], []
    for method in DECOUPLED:
        training = Training(make_backend(), METHODS[method], settings, seed=3, device="cpu")
        training.update(1)
        rows.append(training.update(2))  # the fake score has learnt: DM is not zero
        assert rows[-1]["dm_norm"] > 0
        weights.append(torch.cat([p.flatten() for p in training.result().parameters.values()]))
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        assert row == pytest.approx(rows[0], rel=0, abs=0, nan_ok=True)
        assert torch.equal(weight, weights[0])


@pytest.mark.long
def test_decoupled_methods_differ_for_a_student_of_more_steps() -> None:
    settings = TrainSettings(batch_size=4)
    norms = set()
    for method in DECOUPLED:
        training = Training(make_backend(), METHODS[method], settings, seed=3, device="cpu")
        # The fake score starts as the teacher: DM is zero until it has learnt.
        assert training.update(1)["dm_norm"] == 0
        row = training.update(2)
        norms.add((row["dm_norm"], row["ca_norm"]))
    assert len(norms) == len(DECOUPLED)
