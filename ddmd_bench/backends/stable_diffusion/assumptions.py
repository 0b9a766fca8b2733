"""What a repository of Stable Diffusion must say of itself to be drawn as diffusers draws it.

The noise levels are those of `LCMScheduler` in the repository's own settings, which draws an
exported student; the teacher is sampled by the class that the repository names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod, sqrt
from typing import NamedTuple

from ddmd_bench.backends.assumptions import (
    NO_STATISTICS,
    VAE_CLASS,
    Config,
    Rule,
    Said,
    broken,
    least_pixels,
    unread_channels,
    vae_factor,
    wrong_pipeline,
    wrong_resolution,
)


class TeacherScheduler(NamedTuple):
    """A class of diffusers with the DDPM schedule, by which a teacher is sampled."""

    # Steps and its settings -> passes of the network for one branch.
    evaluations: Callable[[int, Config], int]
    zero_snr: bool = False  # whether it reads rescale_betas_zero_snr


def _each(steps: int, config: Config) -> int:
    return steps


def _second_order(steps: int, config: Config) -> int:
    return 2 * steps - 1  # all but the last correct their step


def _plms(steps: int, config: Config) -> int:
    # Two passes for one of the steps; or Runge-Kutta's, twelve in place of three.
    return steps + (1 if config.get("skip_prk_steps", False) else 9)


SCHEDULERS = {
    "DDIMScheduler": TeacherScheduler(_each, zero_snr=True),
    "DDPMScheduler": TeacherScheduler(_each, zero_snr=True),
    "DEISMultistepScheduler": TeacherScheduler(_each),
    "DPMSolverMultistepScheduler": TeacherScheduler(_each, zero_snr=True),
    "DPMSolverSinglestepScheduler": TeacherScheduler(_each),
    "EulerAncestralDiscreteScheduler": TeacherScheduler(_each, zero_snr=True),
    "EulerDiscreteScheduler": TeacherScheduler(_each, zero_snr=True),
    "HeunDiscreteScheduler": TeacherScheduler(_second_order),
    "KDPM2AncestralDiscreteScheduler": TeacherScheduler(_second_order),
    "KDPM2DiscreteScheduler": TeacherScheduler(_second_order),
    "LCMScheduler": TeacherScheduler(_each, zero_snr=True),
    "LMSDiscreteScheduler": TeacherScheduler(_each),
    "PNDMScheduler": TeacherScheduler(_plms),
    "UniPCMultistepScheduler": TeacherScheduler(_each, zero_snr=True),
}
PREDICTION_TYPES = ("epsilon", "v_prediction")
LEAST_ALPHA = 1e-3  # of pure noise, by which x0 of an eps is divided; SDXL's is 0.068

RULES = (
    Rule(
        "network",
        "_class_name",
        ("UNet2DConditionModel",),
        "no other network is loaded",
    ),
    Rule(
        "network",
        "time_cond_proj_dim",
        (None,),
        "its guidance is an input (LCM), so that there is no pass without a prompt to distil. It "
        "works as a student: source: checkpoint, format: unet, embedded_guidance_scale",
    ),
    *(
        Rule("network", key, (None,), "it reads an input that no prompt gives")
        for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type")
    ),
    Rule(
        "scheduler",
        "_class_name",
        tuple(SCHEDULERS),
        "others have another frame than the DDPM schedule (EDM, flow matching), or draw noise that "
        "no seed determines. Take a repository whose scheduler is one of these",
    ),
    Rule(
        "scheduler",
        "prediction_type",
        PREDICTION_TYPES,
        "x0 is computed of these. A network that predicts anything else is no teacher here",
    ),
    Rule(
        "scheduler",
        "beta_schedule",
        ("scaled_linear", "linear", "squaredcos_cap_v2"),
        "LCMScheduler, which draws few-step students, knows no other",
    ),
    Rule("scheduler", "timestep_type", ("discrete",), "the network would read other times"),
    Rule("scheduler", "use_flow_sigmas", (False, None), "that is flow matching's frame"),
    Rule(
        "vae",
        "shift_factor",
        (None, 0, 0.0),
        "diffusers' pipeline of this family does not read it",
    ),
    VAE_CLASS,
)
WITHOUT_SIZE = (
    Rule("network", "addition_embed_type", (None,), "it is another family's"),
    *NO_STATISTICS,
)
WITH_SIZE = (Rule("network", "addition_embed_type", ("text_time",), "it is another family's"),)


def problems(
    said: Mapping[str, Said], backend: str, parts: tuple[str, ...], resolution: int, has_size: bool
) -> Iterator[str]:
    """Whatever keeps a model from being taught by and drawn as diffusers' pipeline draws it.

    parts: names of text encoders and tokenizers. has_size: whether the UNet reads the image's size.
    """
    if wrong := list(wrong_pipeline(said, backend, parts)):
        yield from wrong  # all else would follow from it
        return
    yield from broken((*RULES, *(WITH_SIZE if has_size else WITHOUT_SIZE)), said)
    yield from unread_channels(said)
    yield from _schedule(said["scheduler"])
    yield from _widths(said, has_size)
    yield from _lengths(said)
    yield from wrong_resolution(resolution, least_pixels(vae_factor(said["vae"].values)))


def _schedule(scheduler: Said) -> Iterator[str]:
    """A schedule that is not stated, that the class does not read, or that eps cannot invert."""
    place, config, own = scheduler
    if not own:
        return
    silent = [k for k in ("beta_start", "beta_end", "beta_schedule") if k not in config]
    if silent and config.get("trained_betas") is None:
        yield (
            f"{place} does not say {', '.join(silent)}, and diffusers' classes differ in what they "
            "suppose. State the values that the network was trained with"
        )
        return
    row = SCHEDULERS.get(config["_class_name"])
    if config.get("rescale_betas_zero_snr") and row is not None and not row.zero_snr:
        yield (
            f"{place} says rescale_betas_zero_snr, which {config['_class_name']} does not read. "
            "Name EulerDiscreteScheduler, or leave it out"
        )
    alpha = terminal_alpha(config)
    if config.get("prediction_type", "epsilon") == "epsilon" and alpha < LEAST_ALPHA:
        yield (
            f"{place}: alpha is {alpha:.1g} at t = 1 (a terminal SNR of zero, or near it), and x0 "
            "of an eps is divided by it. Such a schedule works with prediction_type: v_prediction, "
            "where the network was trained so; else leave rescale_betas_zero_snr out"
        )


def terminal_alpha(config: Config) -> float:
    """alpha of the noisiest level, as the schedule's settings have it."""
    if config.get("rescale_betas_zero_snr"):
        return 0.0
    betas = config.get("trained_betas")
    if betas is None:
        if config.get("beta_schedule") not in ("linear", "scaled_linear"):
            return 5e-5  # the cosine schedule's
        power = 2 if config["beta_schedule"] == "scaled_linear" else 1
        first, last = (config[name] ** (1 / power) for name in ("beta_start", "beta_end"))
        num = config.get("num_train_timesteps", 1000)
        betas = [(first + (last - first) * k / (num - 1)) ** power for k in range(num)]
    return sqrt(prod(1 - beta for beta in betas))


def _widths(said: Mapping[str, Said], has_size: bool) -> Iterator[str]:
    """Text embeddings that the UNet does not read."""
    place, unet, _ = said["network"]
    encoders = [said[name].values for name in ("text_encoder", "text_encoder_2") if name in said]
    widths = [encoder["hidden_size"] for encoder in encoders if "hidden_size" in encoder]
    reads = unet.get("cross_attention_dim", 1280)
    if len(widths) == len(encoders) and reads != sum(widths):
        yield f"{place} reads embeddings of width {reads}, the text encoders give {sum(widths)}"
    pooled = encoders[-1].get("projection_dim")
    if has_size and isinstance(pooled, int):
        reads = unet.get("projection_class_embeddings_input_dim")
        gives = 6 * (unet.get("addition_time_embed_dim") or 0) + pooled
        if reads != gives:
            yield (
                f"{place} reads {reads} values beside the time, and the pooled text with the six "
                f"numbers of a size has {gives}. A refiner, which reads an aesthetic score, is no "
                "teacher here; take the base model"
            )


def _lengths(said: Mapping[str, Said]) -> Iterator[str]:
    """Tokenizers that give more tokens than their encoder reads, or unlike numbers of them."""
    lengths = {}
    for number in ("", "_2"):
        name = f"tokenizer{number}"
        length = said[name].values.get("model_max_length") if name in said else None
        if length is None:
            continue
        lengths[length] = name
        most = said[f"text_encoder{number}"].values.get("max_position_embeddings")
        if most is not None and length > most:
            yield (
                f"{said[name].place} says model_max_length: {length}, and the text encoder reads "
                f"{most} tokens at most. Set it to that"
            )
    if len(lengths) > 1:
        yield (
            f"{said['index'].place}: the two tokenizers cut prompts at {min(lengths)} and "
            f"{max(lengths)} tokens (model_max_length), and their embeddings are joined token by "
            "token. Make them the same"
        )
