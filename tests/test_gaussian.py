"""A case solved on paper: Gaussian data, a linear one-step student, an exact fake score.

Data given the prompt is N(m_c, C_c), without one N(m_u, C_u); the student is x0 = A z + b with z
standard normal, so its samples are N(b, S), S = A A^T. For any N(m, C) the x0 prediction at
x_tau = alpha * x0 + sigma * eps is the posterior mean m + K (x_tau - alpha * m), with the gain
K = alpha * C (alpha^2 C + sigma^2)^-1. Write F(C) for the mean over tau of alpha * K, the share of
the variance that survives noise and denoising: between 0 and 1, and growing with C.

A student that follows -direction, unnormalised, then moves on average by

    DM:  dA = -(F(S) - F(C_c)) A                db = -(1 - F(C_c)) (b - m_c)
    CA:  dA = (g - 1) (F(C_c) - F(C_u)) A       db = (g - 1) ((1 - F(C_c)) m_c - (1 - F(C_u)) m_u
                                                              + (F(C_c) - F(C_u)) b)

DM's pull turns round where S = C_c. CA knows nothing of S: its A is an exponential.

The averages are exact here: the direction is affine in (z, eps), the gradient in A quadratic, and
the points +-sqrt(n) e_i of n dimensions have the moments of a standard normal to third order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from ddmd_bench.objective.process import flow_level
from ddmd_bench.objective.terms import Cond, Denoise, Renoising, student_direction, student_loss

DIM = 2
PROMPT: Cond = {"prompt": torch.ones(1)}
FULL = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)  # tau, over which means are taken
BELOW_HALF = 0.5 * FULL
IDENTITY = torch.eye(DIM, dtype=torch.float64)
AXES = torch.tensor(
    [[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]], dtype=torch.float64
)


class Gaussian(NamedTuple):
    mean: Tensor
    cov: Tensor


def gaussian(mean: tuple[float, ...], variances: tuple[float, ...], turns: int = 1) -> Gaussian:
    """Mean and variances along `AXES`, turned as often."""
    axes = torch.linalg.matrix_power(AXES, turns)
    mean_on_axes, diagonal = torch.tensor([mean, variances], dtype=torch.float64)
    return Gaussian(axes @ mean_on_axes, axes @ diagonal.diag() @ axes.T)


def denoiser(data: Gaussian) -> Denoise:
    """The posterior mean of x0 given x_tau."""

    def denoise(x_tau: Tensor, tau: Tensor, cond: Cond) -> Tensor:
        alpha, sigma = (v.view(-1, 1, 1) for v in flow_level(tau))
        gain = alpha * data.cov @ torch.linalg.inv(alpha**2 * data.cov + sigma**2 * IDENTITY)
        residual = x_tau.flatten(1) - alpha[:, 0] * data.mean
        return (data.mean + (gain @ residual.unsqueeze(2)).squeeze(2)).view_as(x_tau)

    return denoise


def points(num_tau: int) -> tuple[Tensor, Tensor]:
    """(z, eps), [4 * DIM * num_tau, DIM] each: the moments of a normal, for each tau."""
    n = 2 * DIM
    corners = math.sqrt(n) * torch.eye(n, dtype=torch.float64)
    both = torch.cat([corners, -corners]).repeat(num_tau, 1)
    return both[:, :DIM], both[:, DIM:]


def follow(
    start: Gaussian,
    cond: Gaussian,
    uncond: Gaussian,
    *,
    tau_dm: Tensor | None,
    tau_ca: Tensor | None,
    g: float = 1.0,
    num_updates: int = 400,
    rate: float = 1.0,
) -> Gaussian:
    """The student's samples after gradient descent on the package's own loss and direction."""
    a = torch.linalg.cholesky(start.cov).requires_grad_()
    b = start.mean.clone().requires_grad_()
    z, eps = points(len(FULL))
    noise = eps.view(-1, DIM, 1, 1)
    draws = [
        t if t is None else Renoising(t.repeat_interleave(4 * DIM), noise) for t in (tau_dm, tau_ca)
    ]
    by_prompt = {True: denoiser(cond), False: denoiser(uncond)}
    for _ in range(num_updates):
        x0 = (z @ a.T + b).view(-1, DIM, 1, 1)
        direction = student_direction(
            x0.detach(),
            (draws[0], draws[0] if tau_ca is tau_dm else draws[1]),
            PROMPT,
            {},
            teacher=lambda x, t, c: by_prompt["prompt" in c](x, t, c),
            fake_score=denoiser(Gaussian(b.detach(), (a @ a.T).detach())),
            fake_cond=PROMPT,
            level=flow_level,
            guidance_scale=g,
            normalizer="none",
        )
        # A mean over images of a sum over dimensions: rate * E[-direction] for b.
        loss = DIM * student_loss(x0, direction.total).mean()
        gradients = torch.autograd.grad(loss, (a, b))
        with torch.no_grad():
            for parameter, gradient in zip((a, b), gradients, strict=True):
                parameter -= rate * gradient
    return Gaussian(b.detach(), (a @ a.T).detach())


def survival(cov: Tensor, tau: Tensor) -> Tensor:
    """F(C) above."""
    shares = [
        (1 - t) ** 2 * cov @ torch.linalg.inv((1 - t) ** 2 * cov + t**2 * IDENTITY) for t in tau
    ]
    return torch.stack(shares).mean(0)


def assert_close(found: Gaussian, expected: Gaussian, tolerance: float) -> None:
    torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.cov, expected.cov, rtol=0, atol=tolerance)


START = gaussian((0.0, 0.0), (0.2, 0.1), turns=0)
DATA = gaussian((1.0, -2.0), (1.5, 0.3))


def test_the_closed_form_is_the_best_denoiser() -> None:
    """What a fake score's training ends at: an error of mean 0, uncorrelated with its input."""
    z, eps = points(1)
    for tau in FULL:
        x0 = DATA.mean + z @ torch.linalg.cholesky(DATA.cov).T
        x_tau = (1 - tau) * x0 + tau * eps
        x0_hat = denoiser(DATA)(x_tau.view(-1, DIM, 1, 1), tau.repeat(len(z)), {}).flatten(1)
        error = x0 - x0_hat
        assert error.mean(0).abs().max() < 1e-14
        assert (error.T @ x_tau).abs().max() < 1e-13


@pytest.mark.parametrize(
    "start", [START, gaussian((5.0, 5.0), (9.0, 4.0), turns=3)], ids=["narrow", "wide"]
)
def test_dm_alone_leads_to_the_data(start: Gaussian) -> None:
    found = follow(start, DATA, DATA, tau_dm=FULL, tau_ca=None)
    assert_close(found, DATA, 1e-8)


def test_ca_alone_grows_without_bound_where_the_prompt_widens() -> None:
    """F grows with C, so C_c > C_u makes F(C_c) - F(C_u) positive definite, and

        A_n = (1 + rate * (g - 1) * (F(C_c) - F(C_u)))^n A_0

    grows by a constant factor an update, however wide the data: CA climbs log p(x | prompt) / p(x),
    which has no top where the conditional tails are the heavier ones.
    """
    uncond = gaussian((0.0, 0.5), (0.5, 0.1), turns=2)
    growth = IDENTITY + (4.0 - 1) * (survival(DATA.cov, FULL) - survival(uncond.cov, FULL))
    assert torch.linalg.eigvalsh(growth).min() > 1
    for n in (1, 40):
        found = follow(START, DATA, uncond, tau_dm=None, tau_ca=FULL, g=4.0, num_updates=n)
        power = torch.linalg.matrix_power(growth, n)
        torch.testing.assert_close(found.cov, power @ START.cov @ power, rtol=1e-10, atol=0)
    assert torch.linalg.eigvalsh(found.cov).max() > 1e3 * torch.linalg.eigvalsh(DATA.cov).max()


def test_ca_alone_drifts_where_the_prompt_only_shifts() -> None:
    """With C_c = C_u the variance stays, and the mean leaves the data at a constant speed."""
    uncond = Gaussian(DATA.mean - 1.0, DATA.cov)
    speed = (4.0 - 1) * (IDENTITY - survival(DATA.cov, FULL)) @ (DATA.mean - uncond.mean)
    for n in (1, 100):
        found = follow(START, DATA, uncond, tau_dm=None, tau_ca=FULL, g=4.0, num_updates=n)
        assert_close(found, Gaussian(START.mean + n * speed, START.cov), 1e-10 * n)


def test_ca_alone_shrinks_to_a_point_where_the_prompt_narrows() -> None:
    uncond = gaussian((0.0, 0.5), (3.0, 2.0), turns=2)
    found = follow(START, DATA, uncond, tau_dm=None, tau_ca=FULL, g=4.0)
    assert torch.linalg.eigvalsh(found.cov).max() < 1e-8


# CA + DM

COND, UNCOND = gaussian((1.0, -2.0), (1.0, 0.3)), gaussian((0.0, 0.5), (0.5, 0.6))


def fixed_point(tau_dm: Tensor, tau_ca: Tensor, g: float) -> Gaussian:
    """Where the two movements cancel, along each common axis of C_c and C_u:

    F_dm(S) = F_dm(C_c) + (g - 1) (F_ca(C_c) - F_ca(C_u)),
    (1 - F_dm(S)) b = (1 - F_dm(C_c)) m_c + (g - 1) ((1 - F_ca(C_c)) m_c - (1 - F_ca(C_u)) m_u).

    It exists where the right side of the first lies between 0 and 1, and there it is stable: F
    grows with S, so a wider student is pulled in and a narrower one let out.
    """

    def shares(variance: float, tau: Tensor) -> float:
        return ((1 - tau) ** 2 * variance / ((1 - tau) ** 2 * variance + tau**2)).mean().item()

    means, variances = [], []
    for axis in AXES.T:
        c, u = (float(axis @ data.cov @ axis) for data in (COND, UNCOND))
        m_c, m_u = (float(axis @ data.mean) for data in (COND, UNCOND))
        c_ca, u_ca, c_dm = shares(c, tau_ca), shares(u, tau_ca), shares(c, tau_dm)
        target = c_dm + (g - 1) * (c_ca - u_ca)
        variances.append(brentq(lambda s, y=target: shares(s, tau_dm) - y, 1e-6, 1e6, xtol=1e-13))
        pull = (1 - c_dm) * m_c + (g - 1) * ((1 - c_ca) * m_c - (1 - u_ca) * m_u)
        means.append(pull / (1 - target))
    return gaussian(tuple(means), tuple(variances))


@pytest.mark.parametrize(
    ("tau_dm", "tau_ca"),
    [(FULL, FULL), (FULL, FULL.flip(0)), (FULL, BELOW_HALF), (BELOW_HALF, BELOW_HALF)],
    ids=["shared", "full", "hybrid", "constrained"],
)
def test_dm_holds_ca_at_a_fixed_point(tau_dm: Tensor, tau_ca: Tensor) -> None:
    expected = fixed_point(tau_dm, tau_ca, g=2.0)
    for start in (START, COND):
        found = follow(start, COND, UNCOND, tau_dm=tau_dm, tau_ca=tau_ca, g=2.0)
        assert_close(found, expected, 1e-9)
    # Wider than the data where the prompt widens, narrower where it narrows.
    variances = (AXES.T @ expected.cov @ AXES).diag()
    assert variances[0] > 1.5 * 1.0
    assert variances[1] < 0.3 / 1.5


def test_the_fixed_point_in_one_plain_number() -> None:
    """tau and 1 - tau are equally likely, so F(1 / C) = 1 - F(C). Then C_c = 1, C_u = 1/2 and
    g = 2 ask for F(S) = 2 F(1) - F(1/2) = 1 - F(1/2) = F(2): twice the variance of the data."""
    found = follow(START, COND, UNCOND, tau_dm=FULL, tau_ca=FULL, g=2.0)
    assert (AXES.T @ found.cov @ AXES)[0, 0].item() == pytest.approx(2.0, abs=1e-9)


def test_shared_and_independent_draws_settle_alike_and_a_hybrid_elsewhere() -> None:
    """Unnormalised the movement is a sum over the terms: only the range of each one's tau counts.

    What a shared draw changes is how much the direction scatters about that mean.
    """
    shared, full, hybrid = (
        follow(START, COND, UNCOND, tau_dm=FULL, tau_ca=tau_ca, g=2.0, num_updates=50)
        for tau_ca in (FULL, FULL.flip(0), BELOW_HALF)
    )
    assert_close(full, shared, 1e-12)
    assert (hybrid.cov - shared.cov).abs().max() > 0.05


def test_where_the_prompt_only_shifts_the_student_is_the_guided_mean() -> None:
    """C_c = C_u leaves S = C_c and b = m_u + g (m_c - m_u): guidance itself, made stable by DM."""
    uncond = Gaussian(UNCOND.mean, COND.cov)
    found = follow(START, COND, uncond, tau_dm=FULL, tau_ca=FULL, g=4.0)
    guided = uncond.mean + 4.0 * (COND.mean - uncond.mean)
    assert_close(found, Gaussian(guided, COND.cov), 1e-8)
