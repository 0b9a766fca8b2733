"""The mean-variance KL (Eq. 7) and DMD2's GAN against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddmd_bench.objective.regularizers import (
    DiscriminatorHead,
    gan_fake_score_loss,
    gan_student_loss,
    mean_variance_kl,
)

SDXL = (0.075, 0.81)  # the paper's targets, mean and variance of SDXL's latents
SEED = st.integers(0, 2**40)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_moments(x: Tensor, mean: float, variance: float) -> Tensor:
    """The images [B, C, H, W], shifted and scaled to the given moments each."""
    var, m = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
    return mean + (x - m) * (variance / var).sqrt()


# Mean-variance KL


@settings(max_examples=100, deadline=None)
@given(mean=st.floats(-3, 3), variance=st.floats(0.01, 10), seed=SEED)
def test_kl_is_zero_at_its_targets_alone(mean: float, variance: float, seed: int) -> None:
    x0 = with_moments(normal(3, 2, 4, 4, seed=seed), mean, variance)
    torch.testing.assert_close(
        mean_variance_kl(x0, mean, variance), torch.zeros(3).double(), rtol=0, atol=1e-12
    )
    spread = variance**0.5
    for other in (x0 + 0.1 * spread, mean + 1.1 * (x0 - mean), mean + 0.9 * (x0 - mean)):
        assert (mean_variance_kl(other, mean, variance) > 1e-3).all()


@settings(max_examples=200, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    near=st.floats(-1e-6, 1e-6),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=SEED,
)
def test_kl_is_never_negative(scale: float, near: float, dtype: torch.dtype, seed: int) -> None:
    """Neither far from the targets nor where rounding decides."""
    far = scale * normal(4, 2, 4, 4, seed=seed)
    close = with_moments(far, SDXL[0] + near, SDXL[1] * (1 + near))
    for x0 in (far, close):
        kl = mean_variance_kl(x0.to(dtype), *SDXL)
        assert kl.shape == (4,)
        assert kl.dtype == torch.promote_types(dtype, torch.float32)
        assert (kl >= 0).all()


def test_kl_is_the_divergence_of_two_gaussians() -> None:
    mean, variance = SDXL
    x0 = 0.4 + 1.7 * normal(3, 4, 8, 8, seed=0)
    for image, found in zip(x0, mean_variance_kl(x0, mean, variance), strict=True):
        of_image = torch.distributions.Normal(image.mean(), image.std(correction=0))
        target = torch.distributions.Normal(
            image.new_tensor(mean), image.new_tensor(variance).sqrt()
        )
        expected = torch.distributions.kl_divergence(of_image, target)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_kl_pulls_as_the_plain_formula_does() -> None:
    """Its gradient is that of Eq. 7, and in closed form: towards the target mean and variance."""
    mean, variance = SDXL
    x0 = (0.4 + 1.7 * normal(3, 4, 8, 8, seed=1)).requires_grad_()
    (found,) = torch.autograd.grad(mean_variance_kl(x0, mean, variance).sum(), x0)
    m = x0.mean(dim=(1, 2, 3), keepdim=True)
    s2 = (x0 - m).square().mean(dim=(1, 2, 3), keepdim=True)
    plain = 0.5 * ((s2 + (m - mean) ** 2) / variance - 1 - torch.log(s2 / variance))
    (expected,) = torch.autograd.grad(plain.sum(), x0)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-15)
    closed = ((m - mean) / variance + (1 / variance - 1 / s2) * (x0 - m)) / x0[0].numel()
    torch.testing.assert_close(found, closed.detach(), rtol=1e-11, atol=1e-15)


def test_following_the_kl_reaches_its_targets() -> None:
    x0 = 1.0 + 3 * normal(2, 2, 4, 4, seed=2)
    for _ in range(200):
        x0.requires_grad_()
        (gradient,) = torch.autograd.grad(mean_variance_kl(x0, *SDXL).sum(), x0)
        x0 = (x0 - 0.2 * x0[0].numel() * gradient).detach()
    torch.testing.assert_close(x0, with_moments(x0, *SDXL), rtol=0, atol=1e-10)


def test_a_constant_image_is_infinitely_far() -> None:
    assert mean_variance_kl(torch.full((1, 1, 2, 2), 0.075), *SDXL).tolist() == [math.inf]


# GAN


def test_losses_are_softplus_and_means_over_the_batch() -> None:
    fake, real = torch.tensor([[-3.0], [0.5]]), torch.tensor([[2.0], [-1.0]])

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    student = -(log_sigmoid(-3.0) + log_sigmoid(0.5)) / 2
    critic = (
        -(log_sigmoid(3.0) + log_sigmoid(-0.5)) / 2 - (log_sigmoid(2.0) + log_sigmoid(-1.0)) / 2
    )
    assert gan_student_loss(fake).mean().item() == pytest.approx(student, rel=1e-6)
    assert gan_fake_score_loss(fake, real).mean().item() == pytest.approx(critic, rel=1e-6)
    assert (
        gan_fake_score_loss(0 * fake, 0 * real).tolist() == [[pytest.approx(2 * math.log(2))]] * 2
    )


def test_student_and_fake_score_pull_apart() -> None:
    """Non-saturating: a student that is found out has the steepest way back."""
    fake = torch.tensor([-9.0, 0.0, 9.0], requires_grad=True)
    (student,) = torch.autograd.grad(gan_student_loss(fake).sum(), fake)
    (critic,) = torch.autograd.grad(gan_fake_score_loss(fake, torch.zeros(3)).sum(), fake)
    torch.testing.assert_close(student, -torch.sigmoid(-fake.detach()))
    torch.testing.assert_close(critic, torch.sigmoid(fake.detach()))
    assert student.abs().argmax() == 0


@pytest.mark.parametrize("channels", [4, 12, 20, 64])
@pytest.mark.parametrize("size", [2, 4, 7, 8, 11, 16, 32])
def test_a_head_reads_the_whole_map(channels: int, size: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = DiscriminatorHead(channels, size).double()
        features = torch.randn(2, channels, size, size, dtype=torch.float64, requires_grad=True)
    logits = head(features)
    assert logits.shape == (2, 1, 1, 1)
    logits[0].sum().backward()
    assert features.grad is not None
    assert features.grad[0].all()
    assert not features.grad[1].any()  # an image's logit is its own


def test_a_head_of_sdxl_is_dmd2_s() -> None:
    from torch import nn

    with torch.device("meta"):
        layers = list(DiscriminatorHead(1280, 32).layers)
    convolutions = [(c.kernel_size[0], c.stride[0]) for c in layers if isinstance(c, nn.Conv2d)]
    # The fourth covers a 4x4 map: stride 4 or 1 is the same.
    assert convolutions == [(4, 2), (4, 2), (4, 2), (4, 1), (1, 1)]
    assert [n.num_groups for n in layers if isinstance(n, nn.GroupNorm)] == [32] * 4


def test_a_head_learns_to_tell_two_textures_apart() -> None:
    """At 8x8 with few channels, where a group of one channel would see nothing at all."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = DiscriminatorHead(16, 8)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
        stripes = torch.tensor([1.0, -1.0]).repeat(4)
        for _ in range(30):
            fake, real = torch.randn(2, 32, 16, 8, 8)
            loss = gan_fake_score_loss(head(fake), head(real + 0.5 * stripes)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        fake, real = torch.randn(2, 64, 16, 8, 8)
        with torch.no_grad():
            right = (head(fake) < 0).sum() + (head(real + 0.5 * stripes) > 0).sum()
    assert right / 128 > 0.9
