"""Distillation settings: every option of a training, with its default, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
# Names become folders and columns.
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Unit = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """A part of a suite file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainSettings(Strict):
    """Distillation settings, the same for every method; a student may override single values."""

    num_iterations: Positive = 100
    batch_size: Positive = 32
    t_list: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0, 0.75, 0.5, 0.25)
    guidance_scale: Annotated[float, Field(ge=1)] = 4.0
    weight_ca: Annotated[float, Field(ge=0)] = 1.0
    weight_dm: Annotated[float, Field(ge=0)] = 1.0
    normalizer: Literal["guided", "per_term", "none"] = "guided"
    tau_range: tuple[Unit, Unit] = (0.02, 0.98)
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    fake_score_learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    betas: tuple[Unit, Unit] = (0.9, 0.95)
    fake_score_updates: Positive = 4
    fake_score_sees: Literal["mixture", "step"] = "mixture"
    step_embedding_learning_rate: Annotated[float, Field(gt=0)] = 2e-2
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.95
    checkpoint_every: Positive = 50

    @model_validator(mode="after")
    def _orders(self) -> TrainSettings:
        if list(self.t_list) != sorted(set(self.t_list), reverse=True) or not self.t_list:
            raise ValueError(f"t_list must fall from noise to image, got {list(self.t_list)}")
        if self.tau_range[0] >= self.tau_range[1]:
            raise ValueError(f"tau_range must be [low, high], got {list(self.tau_range)}")
        if self.batch_size % len(self.t_list):
            raise ValueError(
                f"batch_size must be a multiple of the {len(self.t_list)} steps in t_list, "
                f"since each batch holds every step equally often; got {self.batch_size}"
            )
        return self
