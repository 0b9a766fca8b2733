"""Which training settings a method uses: those that its result hangs on, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ddmd_bench.objective.methods import Method
from ddmd_bench.suite.settings import TrainSettings

Uses = Callable[[TrainSettings, Method], bool]


def has_fake_score(method: Method) -> bool:
    """Without DM a fake score has nothing to tell; with a GAN it carries the discriminator."""
    return method.tau_dm is not None or method.gan


def _never(settings: TrainSettings, method: Method) -> bool:
    return False


def _with_ca(settings: TrainSettings, method: Method) -> bool:
    return method.tau_ca is not None


def _with_dm(settings: TrainSettings, method: Method) -> bool:
    return method.tau_dm is not None


def _with_gan(settings: TrainSettings, method: Method) -> bool:
    return method.gan


def _with_mean_variance(settings: TrainSettings, method: Method) -> bool:
    return method.mean_variance


def _with_fake_score(settings: TrainSettings, method: Method) -> bool:
    return has_fake_score(method)


def _with_step_embedding(settings: TrainSettings, method: Method) -> bool:
    return has_fake_score(method) and settings.fake_score_sees == "step"


def _with_lora(settings: TrainSettings, method: Method) -> bool:
    return settings.lora_rank is not None


# A setting that is not here counts for every method.
USES: Mapping[str, Uses] = {
    "guidance_scale": _with_ca,
    "weight_ca": _with_ca,
    "weight_dm": _with_dm,
    "weight_mean_variance": _with_mean_variance,
    "mean_variance_targets": _with_mean_variance,
    "weight_gan": _with_gan,
    "weight_gan_fake_score": _with_gan,
    "fake_score_learning_rate": _with_fake_score,
    "fake_score_updates": _with_fake_score,
    "fake_score_samples": _with_fake_score,
    "fake_score_sees": _with_fake_score,
    "step_embedding_learning_rate": _with_step_embedding,
    "lora_alpha": _with_lora,
    # How it is computed, or how often it is saved: the same values but for rounding.
    "samples_at_once": _never,
    "gradient_checkpointing": _never,
    "compile": _never,
    "sharding": _never,
    "checkpoint_every": _never,
}


# Settings of a training by which no value moves but for rounding.
FREE = frozenset(name for name, uses in USES.items() if uses is _never)


def used_settings(settings: TrainSettings, method: Method) -> dict[str, Any]:
    """The settings that the method uses, as a key takes them."""
    told: dict[str, Any] = settings.model_dump(mode="json")
    return {
        name: value
        for name, value in told.items()
        if name not in USES or USES[name](settings, method)
    }


def uses_real_images(settings: TrainSettings, method: Method) -> bool:
    """For a discriminator, or for the moments that the mean-variance KL pulls to."""
    return method.gan or (method.mean_variance and settings.mean_variance_targets is None)
