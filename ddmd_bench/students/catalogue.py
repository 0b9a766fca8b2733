"""What a student that was trained elsewhere is: where its weights lie, and how it is sampled.

The rows of published ones are in `published`. A checkpoint that a suite names itself is one too:
`repository` may be a local file or folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"
PIPELINE = "pipeline"  # a format: a whole diffusers pipeline, sampled by its own rules


@dataclass(frozen=True)
class Sampling:
    """How a student is sampled.

    `scheduler` names a row of `backends.schedulers.SCHEDULERS`. guidance_scale is ours: 1 = none,
    which diffusers writes as 0 (any value <= 1 skips the unconditional pass).
    """

    scheduler: str
    num_inference_steps: int
    timesteps: tuple[int, ...] | None = None  # the scheduler's own where None
    guidance_scale: float = 1.0
    # The scale that a network with a guidance embedding is told, in diffusers' convention.
    embedded_guidance_scale: float | None = None
    sigmas: tuple[float, ...] | None = None  # of flow matching, in place of timesteps

    def words(self, class_name: str | None = None) -> str:
        """How the student is sampled, for people; class_name: of the scheduler, where known."""
        given = {"timesteps": self.timesteps, "sigmas": self.sigmas}
        levels = [f"{kind} {', '.join(map(str, v))}" for kind, v in given.items() if v is not None]
        guided = f"guidance {self.guidance_scale:g}" if self.guidance_scale != 1 else "no guidance"
        told = self.embedded_guidance_scale
        embedded = [] if told is None else [f"told guidance {told:g}"]
        steps = f"{self.num_inference_steps} step{'s' * (self.num_inference_steps > 1)}"
        scheduler = f"{self.scheduler} ({class_name})" if class_name else self.scheduler
        return ", ".join([f"scheduler {scheduler}", steps, *levels, guided, *embedded])


@dataclass(frozen=True)
class StackedLora:
    """A LoRA on top of a student's weights."""

    repository: str  # as a student's
    revision: str | None = None
    file: str | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class StudentWeights:
    """One student. `base` is the repository of all that the weights do not hold.

    backend: the family that a published one belongs to, "pipeline" for a whole diffusers pipeline
    of any architecture, "" for weights that a suite names, which are of its own family.
    format: of `Backend.formats` ("unet" or "transformer", a whole network, and "lora"), or
    "pipeline".
    """

    title: str
    backend: str
    format: str
    repository: str  # owner/name on the Hub, or a local folder or file
    sampling: Sampling
    revision: str | None = None
    file: str | None = None  # in the repository; the repository itself where None
    variant: str | None = None  # of a pipeline's weights; None: its plain ones, or the only one
    base: str | None = SDXL_BASE
    base_revision: str | None = None  # of a base that is another repository
    # Of a pipeline, the part that the weights are, named by `file`: a folder in diffusers' format,
    # or a state dict in one file, which is filled into the base's configuration; the rest is the
    # base's. None: the repository is the whole pipeline.
    component: str | None = None
    lora_scale: float = 1.0
    adapters: tuple[StackedLora, ...] = ()  # fused in this order
    resolution: int | None = None  # pixels per side of its protocol; None: as the suite draws
    # Of a prompt, that a pipeline's call is told to read; None: as many as the call does by itself.
    max_sequence_length: int | None = None
    # Where each setting was seen, by its name; of a suite's own checkpoint nowhere.
    seen_in: Mapping[str, str] = field(default_factory=dict)
