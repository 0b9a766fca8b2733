"""The terms against DMD2's own formula, and what each method costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ddmd_bench.backends.shapes.backend import VelocityDenoiser, make_backend
from ddmd_bench.backends.shapes.networks import EMBED_DIM, LATENT_SHAPE, MAX_WORDS, make_unet
from ddmd_bench.diffusion import NoiseLevel, flow_level
from ddmd_bench.distill.terms import Cond, Denoise, Draw, student_direction, student_loss
from ddmd_bench.methods import METHODS
from ddmd_bench.settings import TrainSettings
from ddmd_bench.training.update import Training

NUM = 3  # samples
DECOUPLED = ("decoupled_full", "decoupled_constrained", "decoupled_hybrid")


@dataclass(frozen=True)
class World:
    """Networks in float64, their noise levels, and one batch."""

    teacher: Denoise
    fake_score: Denoise
    level: Callable[[Tensor], NoiseLevel]
    x0: Tensor
    cond: Cond
    uncond: Cond

    def draw(self, seed: int) -> Draw:
        generator = torch.Generator().manual_seed(seed)
        tau = torch.rand(len(self.x0), generator=generator, dtype=torch.float64) * 0.9 + 0.05
        return Draw(tau, torch.randn(self.x0.shape, generator=generator, dtype=torch.float64))

    def direction(self, method: str, draws: tuple, g: float = 4.0, **options: object):
        return student_direction(
            METHODS[method],
            self.x0,
            draws,
            self.cond,
            self.uncond,
            teacher=self.teacher,
            fake_score=self.fake_score,
            fake_cond=self.cond,
            level=self.level,
            guidance_scale=g,
            **options,
        )

    def x0_of(self, network: Denoise, draw: Draw, cond: Cond) -> Tensor:
        alpha, sigma = self.level(draw.tau)
        return network(alpha * self.x0 + sigma * draw.eps, draw.tau, cond)


def _ddpm_level(t: Tensor) -> NoiseLevel:
    """Stable Diffusion's schedule, t in [0, 1] for its 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = (1 - betas).cumprod(0)[(t * 999).long()].view(-1, 1, 1, 1)
    return NoiseLevel(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def _eps_unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type="UNetMidBlock2DCrossAttn",
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def _eps_denoiser() -> Denoise:
    unet = _eps_unet().double().requires_grad_(False).eval()

    def denoise(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        level = _ddpm_level(t)
        eps = unet(x_t, (t * 999).long(), cond["prompt_embeds"]).sample
        return (x_t - level.sigma * eps) / level.alpha

    return denoise


def _velocity_denoiser() -> Denoise:
    return VelocityDenoiser(make_unet().double()).requires_grad_(False).eval()


@pytest.fixture(params=["velocity", "eps"], scope="module")
def world(request: pytest.FixtureRequest) -> World:
    velocity = request.param == "velocity"
    make, level = (_velocity_denoiser, flow_level) if velocity else (_eps_denoiser, _ddpm_level)
    image = LATENT_SHAPE if velocity else (4, 8, 8)
    words = (MAX_WORDS, EMBED_DIM) if velocity else (5, 8)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        teacher, fake_score = make(), make()
        x0, cond, uncond = (
            torch.randn(NUM, *shape, dtype=torch.float64) for shape in (image, words, words)
        )
    return World(teacher, fake_score, level, x0, {"prompt_embeds": cond}, {"prompt_embeds": uncond})


def dmd2(world: World, draw: Draw, g: float) -> Tensor:
    """DMD2's gradient as its paper and code state it: p = x - x0_pred, guided real score."""
    cond = world.x0_of(world.teacher, draw, world.cond)
    uncond = world.x0_of(world.teacher, draw, world.uncond)
    p_real = world.x0 - (uncond + g * (cond - uncond))
    p_fake = world.x0 - world.x0_of(world.fake_score, draw, world.cond)
    return (p_real - p_fake) / p_real.abs().mean(dim=(1, 2, 3), keepdim=True)


# Identities


@pytest.mark.parametrize("g", [1.0, 4.0, 7.5])
def test_dm_plus_ca_at_one_shared_draw_is_the_direction_of_dmd2(world: World, g: float) -> None:
    draw = world.draw(1)
    direction = world.direction("dmd", (draw, draw), g)
    # The denominator is taken in float32.
    torch.testing.assert_close(direction.total, dmd2(world, draw, g), rtol=1e-6, atol=1e-9)


def test_a_decoupled_method_at_one_shared_draw_is_dmd2_as_well(world: World) -> None:
    draw = world.draw(2)
    for method in DECOUPLED:
        total = world.direction(method, (draw, draw)).total
        torch.testing.assert_close(total, dmd2(world, draw, 4.0), rtol=1e-6, atol=1e-9)


def test_at_two_draws_decoupled_is_not_dmd2(world: World) -> None:
    dm, ca = world.draw(2), world.draw(3)
    total = world.direction("decoupled_full", (dm, ca)).total
    assert not torch.allclose(total, dmd2(world, dm, 4.0), rtol=1e-3)


def test_without_guidance_ca_is_exactly_zero(world: World) -> None:
    draw = world.draw(3)
    for method in ("dmd", "decoupled_hybrid"):
        direction = world.direction(method, (draw, draw), g=1.0)
        assert torch.equal(direction.ca, torch.zeros_like(world.x0))
    assert world.direction("ca_only", (None, draw), g=1.0).total.abs().max() == 0


def test_each_term_is_evaluated_at_its_own_draw(world: World) -> None:
    dm, ca = world.draw(4), world.draw(5)
    direction = world.direction("decoupled_hybrid", (dm, ca), normalizer="none")
    real = world.x0_of(world.teacher, dm, world.cond)
    expected_dm = world.x0_of(world.fake_score, dm, world.cond) - real
    cond, uncond = (world.x0_of(world.teacher, ca, c) for c in (world.cond, world.uncond))
    expected_ca = -3.0 * (cond - uncond)
    torch.testing.assert_close(direction.dm, expected_dm, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(direction.ca, expected_ca, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(direction.total, expected_dm + expected_ca, rtol=1e-12, atol=1e-12)


def test_per_term_divides_each_by_the_distance_to_its_conditional_teacher(world: World) -> None:
    dm, ca = world.draw(6), world.draw(7)
    plain = world.direction("decoupled_full", (dm, ca), normalizer="none")
    total = world.direction("decoupled_full", (dm, ca), normalizer="per_term").total
    expected = 0
    for term, draw in ((plain.dm, dm), (plain.ca, ca)):
        distance = (world.x0 - world.x0_of(world.teacher, draw, world.cond)).abs()
        expected = expected + term / distance.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalizer", ["none", "per_term"])
def test_weights_scale_their_terms(world: World, normalizer: str) -> None:
    draws = (world.draw(8), world.draw(9))
    weigh = {"normalizer": normalizer}
    dm = world.direction("decoupled_full", draws, weight_ca=0.0, **weigh).total
    ca = world.direction("decoupled_full", draws, weight_dm=0.0, **weigh).total
    both = world.direction("decoupled_full", draws, weight_dm=0.5, weight_ca=3.0, **weigh).total
    torch.testing.assert_close(both, 0.5 * dm + 3.0 * ca, rtol=1e-10, atol=1e-12)


def test_a_method_with_one_term_is_that_term(world: World) -> None:
    draw = world.draw(10)
    both = world.direction("dmd", (draw, draw), normalizer="none")
    dm_only = world.direction("dm_only", (draw, None), normalizer="none")
    ca_only = world.direction("ca_only", (None, draw), normalizer="none")
    assert torch.equal(dm_only.total, both.dm)
    assert torch.equal(ca_only.total, both.ca)
    assert dm_only.ca is None
    assert ca_only.dm is None


def test_the_loss_has_the_direction_as_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x0, direction = torch.randn(2, NUM, 4, 8, 8, generator=generator, dtype=torch.float64)
    x0.requires_grad_()
    loss = student_loss(x0, direction)
    loss.backward()
    torch.testing.assert_close(x0.grad, direction / direction.numel(), rtol=1e-9, atol=1e-12)
    assert loss.item() == pytest.approx(0.5 * direction.square().mean().item(), rel=1e-9)


# Cost

# Forwards of one student update: teacher on prompts, teacher on '', fake score.
COST = {
    "dmd": (1, 1, 1),
    "ca_only": (1, 1, 0),
    "dm_only": (1, 0, 1),
    "decoupled_full": (2, 1, 1),
    "decoupled_constrained": (2, 1, 1),
    "decoupled_hybrid": (2, 1, 1),
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
    dm = Draw(torch.tensor([0.3, 0.6]), torch.ones_like(x0))
    ca = dm if row.shared_draw else Draw(torch.tensor([0.2, 0.1]), torch.ones_like(x0))
    student_direction(
        row,
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


@pytest.mark.parametrize("method", METHODS)
def test_an_update_costs_what_the_method_needs(method: str) -> None:
    settings = TrainSettings(batch_size=8, fake_score_updates=2)
    training = Training(make_backend(), METHODS[method], settings, seed=0, device="cpu")
    training.update(1)
    prompts, empty, fake = COST[method]
    # Four steps, two rows at each: 6 + 4 + 2 rows in backward simulation, then all 8.
    expected = {"student": 6 + 4 + 2 + 8, "teacher": 8 * (prompts + empty)}
    if fake:
        expected["fake_score"] = 8 * (fake + 2)
    assert training.num_samples() == expected


# Coincidence


def test_decoupled_methods_coincide_for_a_one_step_student() -> None:
    """At t = 1 'cleaner than t' is the whole range: the very same update."""
    settings = TrainSettings(batch_size=2, t_list=(1.0,), learning_rate=1e-3)
    rows, weights = [], []
    for method in DECOUPLED:
        training = Training(make_backend(), METHODS[method], settings, seed=3, device="cpu")
        rows.append(training.update(1))
        weights.append(torch.cat([p.flatten() for p in training.result().parameters()]))
    for row, weight in zip(rows[1:], weights[1:], strict=True):
        assert row == pytest.approx(rows[0], rel=0, abs=0, nan_ok=True)
        assert torch.equal(weight, weights[0])


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
