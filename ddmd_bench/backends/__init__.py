"""The model families behind a suite: `BACKENDS`, frozen records of callables and facts.

A new backend is a module that makes a `Backend`, and a row in `BACKENDS`.

Imports: errors, objective, files, suite, hub.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ddmd_bench.errors import BenchError
from ddmd_bench.suite.settings import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ddmd_bench.backends.skeleton import Skeleton
    from ddmd_bench.hub import Remote
    from ddmd_bench.objective.process import NoiseLevel
    from ddmd_bench.objective.terms import Cond


Loras = Sequence[tuple[Path, float]]  # a file or folder each, with its scale


class SampleTeacher(Protocol):
    """How a backend draws from its teacher."""

    def __call__(
        self,
        teacher: nn.Module,
        num_inference_steps: int,
        guidance_scale: float,
        cond: Cond,
        uncond: Cond,
        noise: Tensor,
        generators: list[torch.Generator] | None = None,
        **options: Any,
    ) -> Tensor:
        """Noise [B, C, H, W] -> latents; the options are those of `Backend.teacher_options`.

        generators: one an image, for a scheduler that adds noise again.
        """


@dataclass(frozen=True)
class Encoders:
    """Networks that run once, before any training; their results are kept on disk."""

    # Of the text encoders' weights: what determines an embedding.
    identity: Callable[[], Mapping[str, str]]
    # On a device: prompts -> for each its tensors without a batch dimension, on the CPU.
    load_prompt_encoder: Callable[[str], Callable[[Sequence[str]], list[dict[str, Tensor]]]]
    # The kept tensors of a batch's prompts -> what the network reads.
    collate: Callable[[Sequence[Mapping[str, Tensor]]], Cond]
    # On a device: images [B, 3, H, W] in [-1, 1] -> latents [B, C, h, w].
    load_image_encoder: Callable[[str], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Base:
    """A part of a model, as planning sees it."""

    weights: Callable[[], Mapping[str, str]]  # what determines it, a sha256 or a commit each
    remotes: tuple[Remote, ...]


@dataclass(frozen=True)
class PipelineForm:
    """How a student of a family is written as a pipeline of diffusers, and how that is called."""

    pipeline: str  # its class
    network: str  # the name of the network in it, and in our denoiser
    scheduler: str  # the row of `SCHEDULERS` that samples as `few_step_sample` does
    # The student's t_list -> arguments of the call.
    schedule: Callable[[Sequence[float]], dict[str, list[Any]]]
    # Whether the scheduler's noise comes from torch's global generator, not from the call's.
    global_noise: bool
    no_guidance: float  # the guidance_scale that means none
    repository: str  # of the base
    resolution: int
    dtype: str
    scheduler_config: Callable[[], dict[str, Any]]
    # Components by name, and a dtype -> the pipeline with the base's other components.
    load: Callable[[dict[str, Any], torch.dtype], Any]


def twice_guided(num_inference_steps: int, guidance_scale: float, **options: Any) -> int:
    """Passes of the network for one image of a teacher: two a step, or one without guidance."""
    return num_inference_steps * (1 if guidance_scale == 1 else 2)


@dataclass(frozen=True)
class Backend:
    """What a stage may ask of a family of models; conversions to x0 end in here.

    Networks are modules called as `denoise(x_t, t, cond) -> x0`: latents [B, C, H, W], t [B] in
    [0, 1] with 1 = pure noise. After `add_step_embedding` a network reads each sample's step of the
    student from `cond["step"]`, [B], where it is given; it starts as it was.
    """

    resolution: int  # pixels per side
    latent_shape: tuple[int, int, int]  # C, H, W
    # What determines the networks, a sha256 or a commit each, `vae` that of encoder and decoder.
    weights: Callable[[], Mapping[str, str]]
    check_prompt: Callable[[str], None]  # raises BenchError for a prompt it cannot read
    draw_prompt: Callable[[torch.Generator], str]  # one to train on
    level: Callable[[Tensor], NoiseLevel]  # t [B] -> alpha, sigma
    # Level -> weight of a squared x0 error, so that a fake score learns as the teacher was trained.
    denoising_weight: Callable[[NoiseLevel], Tensor]
    load_teacher: Callable[[], nn.Module]
    skeleton: Callable[[], Skeleton]  # the same without weights, for what a plan says early
    sample_teacher: SampleTeacher
    add_step_embedding: Callable[[nn.Module, int], None]  # so that it reads cond["step"] < steps
    bottleneck: Callable[[nn.Module], nn.Module]  # whose output a discriminator reads
    lora_targets: tuple[str, ...]  # names of the layers that adapters join
    encode_prompts: Callable[[Sequence[str]], Cond]  # '' is unconditional
    images_at_once: int  # drawn in one batch; no image depends on it but for rounding
    decode: Callable[[Tensor], Tensor]  # latents -> images [B, 3, H, W], [-1, 1] and beyond
    prompt_sets: Mapping[str, Callable[[], Sequence[str]]] = field(default_factory=dict)
    # One real image of a prompt.
    draw_real: Callable[[str, torch.Generator], Tensor] | None = None
    # Prompts and real latents [B, C, H, W] of them, one of each generator, for a GAN.
    draw_real_latents: Callable[[Sequence[torch.Generator]], tuple[list[str], Tensor]] | None = None
    # Of real latents: the mean of each one's mean and of each one's variance (Eq. 7).
    real_moments: tuple[float, float] | None = None
    teacher_options: frozenset[str] = frozenset()  # that a suite may set, beside the steps
    # Steps, guidance and options of a teacher -> passes of its network for one image.
    teacher_evaluations: Callable[..., int] = twice_guided
    dtype: str = "float32"  # of networks while they are sampled
    # How a suite names the weights of students that were trained elsewhere -> whether those are the
    # whole network, so that the base's own is needed by none of them.
    formats: Mapping[str, bool] = field(default_factory=dict)
    # A whole network's file, or None for the base's own, and LoRAs with their scales, fused in
    # order -> a network with `predict`, as schedulers call it; and what those start from.
    load_student: Callable[[Path | None, Loras], nn.Module] | None = None
    check_student: Callable[[Path | None, Loras], None] | None = None  # raises what that would
    scheduler_config: Callable[[], dict[str, Any]] | None = None
    prediction_type: str = "velocity"  # of its networks, as diffusers' schedulers name it
    pipeline: PipelineForm | None = None
    remotes: tuple[Remote, ...] = ()  # what must be on this machine first
    without_network: Base | None = None  # of those, what students of a whole network need
    encoders: Encoders | None = None  # where text encoders and networks do not run side by side


def _shapes(model: Model) -> Backend:
    from ddmd_bench.backends.shapes.backend import make_backend

    if model.model_fields_set:
        raise BenchError(f"model: backend shapes carries its own, found {model.model_dump()}")
    return make_backend()


def _sdxl(model: Model) -> Backend:
    from ddmd_bench.backends.stable_diffusion.backend import SDXL, make_backend

    return make_backend(model, SDXL)


def _sd15(model: Model) -> Backend:
    from ddmd_bench.backends.stable_diffusion.backend import SD15, make_backend

    return make_backend(model, SD15)


def _lumina2(model: Model) -> Backend:
    from ddmd_bench.backends.lumina2.backend import make_backend

    return make_backend(model)


BACKENDS: dict[str, Callable[[Model], Backend]] = {
    "shapes": _shapes,
    "sdxl": _sdxl,
    "sd15": _sd15,
    "lumina2": _lumina2,
}
