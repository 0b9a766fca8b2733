"""Distillation settings: every option of a training, with its default, in one place."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

# What Windows takes for a device, whatever folder it is in.
PORTS = {f"{port}{k}" for port in ("com", "lpt") for k in range(10)}
DEVICES = {"con", "prn", "aux", "nul"} | PORTS


def _plain(name: Any) -> Any:
    """Refuse what would leave the run's folder on some system, or read as another name."""
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str):
        return name
    for character in name:
        if character not in string.ascii_lowercase + string.digits + "_":
            called = unicodedata.name(character, f"U+{ord(character):04X}")
            raise ValueError(
                f"a name is a folder's too: expected a to z, 0 to 9 and _, found {called}"
            )
    if len(name) > 64:
        raise ValueError(f"a name has at most 64 characters, found {len(name)}")
    if name in DEVICES:
        raise ValueError("Windows keeps this name for a device; choose another")
    return name


# Far above any use: what lies beyond is a slip, or would fill memory before it fails.
COUNT = 1_000_000_000
Count = Annotated[int, Field(ge=0, le=COUNT)]
Positive = Annotated[int, Field(gt=0, le=COUNT)]
Pixels = Annotated[int, Field(gt=0, le=16_384)]
Each = Annotated[int, Field(gt=0, le=100_000)]  # images of one prompt, steps, samples at once
Seed = Annotated[int, Field(ge=0, lt=2**63)]  # what every generator takes
# Names become folders and columns.
Name = Annotated[str, BeforeValidator(_plain), Field(pattern=r"^[a-z0-9_]+$")]
Unit = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Guidance = Annotated[float, Field(ge=1, le=1e4)]


# A number as JSON writes it. Python's int() would also take 010, 1_000 and full-width digits.
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*|(0|[1-9][0-9]*)?\.[0-9]+)([eE][-+]?[0-9]+)?")


def _takes(kinds: tuple[Any, ...], annotation: Any) -> bool:
    """Whether a value of one of these kinds, or a word, may stand in a field, or in its list."""
    words = any(isinstance(one, str) for one in get_args(annotation))  # of a Literal
    inside = (part for part in get_args(annotation) if not isinstance(part, str))
    return (
        annotation in (*kinds, Any)
        or (str in kinds and words)
        or any(_takes(kinds, part) for part in inside)
    )


class Strict(BaseModel):
    """A part of a suite file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """A word is no number and a number no truth value; where a text stands, a number is one."""
        assert info.field_name is not None, "of a field"
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, list | tuple):
            return [_one_as_written(item, annotation) for item in value]
        return _one_as_written(value, annotation)


def _one_as_written(value: Any, annotation: Any) -> Any:
    truth, text, number = (_takes(kinds, annotation) for kinds in ((bool,), (str,), (int, float)))
    if isinstance(value, bool):
        if not truth:
            raise ValueError("expected no truth value: write a number, or text in quotes")
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("holds half of a character (a lone surrogate), which no file can hold")
        if number and not (text or _NUMBER.fullmatch(value)):
            raise ValueError("expected a number such as 20, 0.5 or 5e-5")
    elif isinstance(value, int) and not number:
        if truth:
            raise ValueError("expected true or false")
        if text:  # a year, or a category's number
            return str(value)
    return value


class Model(Strict):
    """The published weights behind a backend; what is left out is the backend's own choice."""

    # owner/name on the Hub, or a folder in diffusers' format.
    repository: str | None = None
    revision: str | None = None
    # Of the files, e.g. fp16.
    variant: str | None = None
    # Another VAE than the repository's own.
    vae: str | None = None
    vae_revision: str | None = None
    # Pixels per side.
    resolution: Pixels | None = None
    # Of networks that only run forward outside training: text encoders, VAE, what is sampled.
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # Drawn in one batch; no image depends on it but for rounding.
    images_at_once: Each | None = None


class DataSource(Strict):
    """Where texts or images come from: a name, a local file or folder, or owner/name on the Hub."""

    source: str
    # Of the text; a file's own where it is called prompt, caption or text.
    column: str | None = None
    # Of a dataset on the Hub.
    config: str | None = None
    split: str | None = None
    revision: str | None = None


class TrainPrompts(DataSource):
    """Captions that a student trains on: the first so many of their source, or of a named list."""

    num_prompts: Positive


class TrainImages(DataSource):
    """Real images with their captions, for a GAN: the first so many of their source."""

    num_images: Positive


class TrainData(Strict):
    """What a training reads beside its models."""

    prompts: TrainPrompts | None = None
    images: TrainImages | None = None


class TrainSettings(Strict):
    """Distillation settings, the same for every method; a student may override single values.

    A weight counts for the methods that have its term.
    """

    num_iterations: Positive = 100
    # Samples of one update, in all.
    batch_size: Each = 32
    # So many of them are computed at once, all where nothing is given, fewer where memory runs out:
    # the order of sums changes and nothing else, so that a training may go on with another number.
    samples_at_once: Each | None = None
    # The student's noise levels, 1 = pure noise.
    t_list: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (1.0, 0.75, 0.5, 0.25)

    guidance_scale: Guidance = 4.0
    weight_ca: Weight = 1.0
    weight_dm: Weight = 1.0
    normalizer: Literal["guided", "per_term", "none"] = "guided"
    # Levels that CA and DM may re-noise to: DMD2's 2 % to 98 %; [0, 1] for no clipping.
    tau_range: tuple[Unit, Unit] = (0.02, 0.98)
    weight_mean_variance: Weight = 1.0
    # Mean and variance of real latents (Eq. 7); the backend's own where nothing is given.
    mean_variance_targets: tuple[float, Rate] | None = None
    # DMD2's weights of the GAN loss.
    weight_gan: Weight = 5e-3
    weight_gan_fake_score: Weight = 1e-2

    learning_rate: Rate = 5e-5
    fake_score_learning_rate: Rate = 2e-4
    betas: tuple[Unit, Unit] = (0.9, 0.95)
    # Updates of a network over which its rate rises from 0; the fake score counts its own.
    warmup_updates: Count = 0
    max_grad_norm: Rate | None = None
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    # Updates of the fake score for each update of the student.
    fake_score_updates: Each = 4
    # What they see: the samples of the student's update, or fresh ones for each (DMD2).
    fake_score_samples: Literal["same", "fresh"] = "same"
    # Whether the fake score is told which of the student's steps made a sample.
    fake_score_sees: Literal["mixture", "step"] = "mixture"
    step_embedding_learning_rate: Rate = 2e-2
    # Decay of the average of the student's weights, which is what is sampled; 0 for none.
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.95

    # Adapters of this rank on one frozen base instead of training all weights.
    lora_rank: Each | None = None
    lora_alpha: Each = 8
    # bfloat16 is mixed precision: weights and optimizer states stay float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: bool = False
    compile: bool = False
    # What several ranks keep in parts: nothing, the optimizer's states, or weights and gradients
    # too; auto: the first of them by which it fits (docs/scale.md).
    sharding: Literal["auto", "none", "optimizer", "weights"] = "auto"

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
