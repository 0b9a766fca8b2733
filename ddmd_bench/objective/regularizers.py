"""What stands in for DM, or beside it: the mean-variance KL (Eq. 7) and DMD2's GAN."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def mean_variance_kl(x0: Tensor, mean: float, variance: float) -> Tensor:
    """Eq. 7: KL of each image's moments to the targets, both as Gaussians; [B, C, H, W] -> [B].

    1/2 * ((s^2 + (m - mean)^2) / variance - 1 - log(s^2 / variance)), m and s^2 over C, H, W.
    s^2 is the biased variance: an image's values are all there are, not a sample of more, and
    targets measured the same way are met exactly. Infinite for a constant image.
    """
    x0 = x0.to(torch.promote_types(x0.dtype, torch.float32))
    s2, m = torch.var_mean(x0, dim=(1, 2, 3), correction=0)
    # r - log(1 + r) of r = s^2 / variance - 1: rounding near the targets cannot make it negative.
    excess = (s2 - variance) / variance
    return 0.5 * ((m - mean).square() / variance + (excess - excess.log1p()))


def gan_student_loss(logits_fake: Tensor) -> Tensor:
    """Non-saturating: softplus(-D(fake)), [B] -> [B]; the student wants to be taken for real."""
    return F.softplus(-logits_fake)


def gan_fake_score_loss(logits_fake: Tensor, logits_real: Tensor) -> Tensor:
    """softplus(D(fake)) + softplus(-D(real)), two [B] -> [B]; positive logits mean real."""
    return F.softplus(logits_fake) + F.softplus(-logits_real)


class DiscriminatorHead(nn.Module):
    """One logit per image from the fake score's bottleneck, after DMD2.

    The map is halved by 4x4 convolutions while its halves are 4 or more wide (three times
    for SDXL's 32x32, once for 8x8), then one convolution covers what is left, then 1x1.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        while size >= 8:
            layers += _block(channels, nn.Conv2d(channels, channels, 4, stride=2, padding=1))
            size //= 2
        layers += _block(channels, nn.Conv2d(channels, channels, size))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, channels, size, size] -> logits [B, 1, 1, 1]."""
        logits: Tensor = self.layers(features)
        return logits


def _block(channels: int, conv: nn.Conv2d) -> list[nn.Module]:
    # DMD2's 32 groups hold 40 channels each. In a 1x1 map a group of one or two channels would be
    # normalised to a constant or a sign, so narrow heads get fewer groups, of 8 or more channels.
    groups = math.gcd(32, channels, max(channels // 8, 1))
    return [conv, nn.GroupNorm(groups, channels), nn.SiLU()]
