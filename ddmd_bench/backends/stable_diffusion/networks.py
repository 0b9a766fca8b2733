"""Stable Diffusion's UNet as a denoiser: it predicts eps or v, the objective reads x0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from ddmd_bench.backends.mixed_precision import input_dtype
from ddmd_bench.backends.stable_diffusion.formats import guidance_embedding
from ddmd_bench.backends.unets import step_labels
from ddmd_bench.objective.process import (
    NoiseLevel,
    ddpm_index,
    eps_weight,
    v_weight,
    x0_from_eps,
    x0_from_v,
)
from ddmd_bench.objective.terms import Cond


class Prediction(NamedTuple):
    """What a UNet predicts."""

    # A prediction and x_t at a level -> x0.
    x0: Callable[[Tensor, Tensor, NoiseLevel], Tensor]
    # Level -> what makes a squared error of x0 that of the prediction.
    weight: Callable[[NoiseLevel], Tensor]


# By `prediction_type` of a scheduler's configuration.
PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": Prediction(x0_from_eps, eps_weight),
    "v_prediction": Prediction(x0_from_v, v_weight),
}


@dataclass(frozen=True)
class Frame:
    """In which a repository's UNet was trained: its noise levels, and what it predicts."""

    level: Callable[[Tensor], NoiseLevel]
    prediction: Prediction
    num_levels: int  # of the discrete schedule


class UNetDenoiser(nn.Module):
    """A UNet that predicts eps or v, called as `denoise(x_t, t, cond) -> x0`."""

    def __init__(self, unet: Any, frame: Frame) -> None:
        super().__init__()
        self.unet = unet
        self.frame = frame

    def predict(
        self,
        x_t: Tensor,
        timestep: Tensor,
        cond: Cond,
        embedded_guidance_scale: float | None = None,
    ) -> Tensor:
        """x_t [B, C, H, W], timestep (one, or [B]) -> eps or v in the dtype of x_t.

        embedded_guidance_scale: for a UNet that is told its guidance (LCM), and only for such.
        """
        dtype = input_dtype(self.unet, x_t)
        # SDXL's pooled text and size join the time embedding; SD 1.5 has neither.
        added = {k: cond[k].to(dtype) for k in ("text_embeds", "time_ids") if k in cond}
        output = self.unet(
            x_t.to(dtype),
            timestep,
            cond["prompt_embeds"].to(dtype),
            class_labels=step_labels(self.unet, len(x_t), cond, x_t.device),
            added_cond_kwargs=added,
            timestep_cond=guidance_embedding(self.unet, embedded_guidance_scale, len(x_t)),
        )
        predicted: Tensor = output.sample.to(x_t.dtype)
        return predicted

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """x_t [B, C, H, W], t [B] in [0, 1] -> x0 [B, C, H, W]."""
        predicted = self.predict(x_t, ddpm_index(t, self.frame.num_levels), cond)
        return self.frame.prediction.x0(predicted, x_t, self.frame.level(t))
