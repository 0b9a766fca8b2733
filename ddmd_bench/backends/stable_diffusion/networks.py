"""Stable Diffusion's UNet as a denoiser: it predicts eps, the objective reads x0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ddmd_bench.backends.stable_diffusion.formats import guidance_embedding
from ddmd_bench.backends.unets import step_labels
from ddmd_bench.objective.process import NoiseLevel, ddpm_index, x0_from_eps
from ddmd_bench.objective.terms import Cond


class EpsDenoiser(nn.Module):
    """A UNet that predicts eps, called as `denoise(x_t, t, cond) -> x0`."""

    def __init__(self, unet: Any, level: Callable[[Tensor], NoiseLevel]) -> None:
        super().__init__()
        self.unet = unet
        self.level = level

    def predict(
        self,
        x_t: Tensor,
        timestep: Tensor,
        cond: Cond,
        embedded_guidance_scale: float | None = None,
    ) -> Tensor:
        """x_t [B, 4, H, W], timestep (0 to 999; one, or [B]) -> eps in the dtype of x_t.

        embedded_guidance_scale: for a UNet that is told its guidance (LCM), and only for such.
        """
        dtype = self.unet.dtype
        # SDXL's pooled text and size join the time embedding; SD 1.5 has neither.
        added = {k: cond[k].to(dtype) for k in ("text_embeds", "time_ids") if k in cond}
        eps = self.unet(
            x_t.to(dtype),
            timestep,
            cond["prompt_embeds"].to(dtype),
            class_labels=step_labels(self.unet, len(x_t), cond, x_t.device),
            added_cond_kwargs=added,
            timestep_cond=guidance_embedding(self.unet, embedded_guidance_scale, len(x_t)),
        )
        predicted: Tensor = eps.sample.to(x_t.dtype)
        return predicted

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x_t [B, 4, H, W], t [B] in [0, 1] -> x0 [B, 4, H, W]."""
        return x0_from_eps(self.predict(x_t, ddpm_index(t), cond), x_t, self.level(t))
