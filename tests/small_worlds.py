"""Real networks at tiny size in float64, and what they predict, restated without the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddmd_bench.backends.shapes.backend import ShapesDenoiser
from ddmd_bench.backends.shapes.networks import EMBED_DIM, LATENT_SHAPE, make_unet
from ddmd_bench.objective.process import NoiseLevel, ddpm_index, ddpm_level, flow_level, x0_from_eps
from ddmd_bench.objective.terms import Cond, Denoise, Direction, Renoising, student_direction

NUM = 3  # samples
NUM_WORDS = 5


@dataclass(frozen=True)
class World:
    """Networks in float64, their noise levels, and one batch.

    `predict` states x0 of a bare UNet's output for a re-noised `x0`, without the package.
    """

    teacher: Denoise
    fake_score: Denoise
    unets: dict[str, nn.Module]
    predict: Callable[[nn.Module, Tensor, Renoising, Tensor], Tensor]
    level: Callable[[Tensor], NoiseLevel]
    x0: Tensor
    cond: Cond
    uncond: Cond

    def draw(self, seed: int) -> Renoising:
        generator = torch.Generator().manual_seed(seed)
        tau = torch.rand(len(self.x0), generator=generator, dtype=torch.float64) * 0.9 + 0.05
        return Renoising(tau, torch.randn(self.x0.shape, generator=generator, dtype=torch.float64))

    def direction(
        self, draws: tuple[Renoising | None, Renoising | None], g: float = 4.0, **options: object
    ) -> Direction:
        return student_direction(
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

    def x0_of(self, network: str, draw: Renoising, cond: Cond) -> Tensor:
        return self.predict(self.unets[network], self.x0, draw, cond["prompt_embeds"])


def sdxl_alphas_cumprod() -> Tensor:
    """SDXL's schedule, 1000 values."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod.double()


def _eps_unet() -> nn.Module:
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


class _EpsDenoiser(nn.Module):
    """An eps-predicting UNet, called as `denoise(x_t, t, cond) -> x0`."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        eps = self.unet(x_t, ddpm_index(t), cond["prompt_embeds"]).sample
        return x0_from_eps(eps, x_t, ddpm_level(sdxl_alphas_cumprod())(t))


def _predict_from_eps(unet: nn.Module, x0: Tensor, draw: Renoising, words: Tensor) -> Tensor:
    timesteps = [round(1000 * tau) - 1 for tau in draw.tau.tolist()]
    x0_hat = []
    for k, a in enumerate(sdxl_alphas_cumprod()[timesteps]):
        x_tau = a**0.5 * x0[k : k + 1] + (1 - a) ** 0.5 * draw.eps[k : k + 1]
        eps = unet(x_tau, timesteps[k], words[k : k + 1]).sample
        x0_hat.append((x_tau - (1 - a) ** 0.5 * eps) / a**0.5)
    return torch.cat(x0_hat)


def _predict_from_velocity(unet: nn.Module, x0: Tensor, draw: Renoising, words: Tensor) -> Tensor:
    x0_hat = []
    for k, tau in enumerate(draw.tau):
        x_tau = (1 - tau) * x0[k : k + 1] + tau * draw.eps[k : k + 1]
        x0_hat.append(x_tau - tau * unet(x_tau, 1000 * tau, words[k : k + 1]).sample)
    return torch.cat(x0_hat)


def _make_world(
    make: Callable[[], nn.Module],
    denoiser: Callable[[nn.Module], Denoise],
    predict: Callable[[nn.Module, Tensor, Renoising, Tensor], Tensor],
    level: Callable[[Tensor], NoiseLevel],
    image: tuple[int, int, int],
    embed_dim: int,
) -> World:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        names = ("teacher", "fake_score")
        unets = {name: make().double().requires_grad_(False).eval() for name in names}
        x0 = torch.randn(NUM, *image, dtype=torch.float64)
        words = torch.randn(2, NUM, NUM_WORDS, embed_dim, dtype=torch.float64)
    networks = {name: denoiser(unet) for name, unet in unets.items()}
    cond, uncond = ({"prompt_embeds": w} for w in words)
    return World(
        **networks, unets=unets, predict=predict, level=level, x0=x0, cond=cond, uncond=uncond
    )


def velocity_world() -> World:
    """Flow matching, with the embedded world's UNet."""
    return _make_world(
        make_unet, ShapesDenoiser, _predict_from_velocity, flow_level, LATENT_SHAPE, EMBED_DIM
    )


def eps_world() -> World:
    """Noise prediction with SDXL's schedule."""
    level = ddpm_level(sdxl_alphas_cumprod())
    return _make_world(_eps_unet, _EpsDenoiser, _predict_from_eps, level, (4, 8, 8), 8)
