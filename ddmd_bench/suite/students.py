"""The students of a suite: where the images of each come from, and how it is sampled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ddmd_bench.errors import unknown
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import Count, Each, Guidance, Pixels, Strict, Unit

FILL_IN = "FILL_IN"  # a repository that a suite leaves to its user


class Checkpoint(Strict):
    """Weights of a student that was trained elsewhere, and how it is sampled."""

    # owner/name on the Hub, or a local file or folder.
    repository: str
    revision: str | None = None
    file: str | None = None
    # unet or transformer: the whole network; lora: on the suite's base; pipeline: a whole diffusers
    # pipeline of any kind, called as it is.
    format: Literal["unet", "transformer", "lora", "pipeline"]
    # Of a pipeline's weights, e.g. fp16; its plain ones, or the only one, where it is left out.
    variant: str | None = None
    # Of a LoRA alone; 1 where it is left out.
    lora_scale: FiniteFloat | None = None
    # Pixels per side; the suite's where it is left out.
    resolution: Pixels | None = None
    # A row of `ddmd_bench.backends.schedulers.SCHEDULERS`; own: the base's, or the pipeline's.
    scheduler: str = "own"
    # As many as there are timesteps or sigmas, where those are given.
    num_inference_steps: Each | None = None
    timesteps: tuple[Count, ...] | None = None
    # Noise levels of flow matching, 1 = pure noise, before a shift of the scheduler.
    sigmas: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    guidance_scale: Guidance = 1.0
    # What a network with an input for it is told of guidance, in diffusers' convention.
    embedded_guidance_scale: float | None = None

    @property
    def num_steps(self) -> int:
        """Steps of the sampling, counted from what is given."""
        given = self.num_inference_steps or len(self.timesteps or self.sigmas or ())
        assert given, "checked"
        return given

    @model_validator(mode="after")
    def _steps(self) -> Checkpoint:
        if self.timesteps is not None and self.sigmas is not None:
            raise ValueError("timesteps and sigmas say the same twice; give one of them")
        name = "sigmas" if self.timesteps is None else "timesteps"
        levels = getattr(self, name)
        if levels is None:
            if self.num_inference_steps is None:
                raise ValueError("num_inference_steps is missing, or timesteps, or sigmas")
            return self
        if not levels or list(levels) != sorted(set(levels), reverse=True):
            raise ValueError(f"{name} must fall from noise to image, got {list(levels)}")
        if self.num_inference_steps not in (None, len(levels)):
            raise ValueError(
                f"{self.num_inference_steps} num_inference_steps, but {len(levels)} {name}"
            )
        return self

    @model_validator(mode="after")
    def _of_its_format(self) -> Checkpoint:
        if self.lora_scale is not None and self.format != "lora":
            raise ValueError(
                f"lora_scale: {self.lora_scale} with format {self.format}, which has none: it is "
                "of format lora. LoRAs on top have a scale each, under adapters"
            )
        if self.variant is not None and self.format != "pipeline":
            raise ValueError(f"variant is of format pipeline; of a {self.format} name the file")
        if self.file is not None and self.format == "pipeline":
            raise ValueError("a pipeline is a whole repository or folder; leave file out")
        return self


class Adapter(Strict):
    """A LoRA that is fused into a student trained elsewhere, beside its own weights."""

    repository: str
    revision: str | None = None
    file: str | None = None
    scale: FiniteFloat = 1.0


class Student(Strict):
    """One student: distilled by a method, the teacher, published or other weights, images."""

    source: Literal["train", "teacher", "published", "checkpoint", "images", "real"] = "train"
    title: str = ""
    method: str | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    # Of the training: those of its end, or its best by the suite's evaluation.keep_best. Students
    # that differ in nothing else share one training.
    weights: Literal["last", "best"] = "last"
    # A row of `ddmd_bench.students.published.PUBLISHED`.
    published: str | None = None
    checkpoint: Checkpoint | None = None
    # On top of published or other weights, fused in this order.
    adapters: tuple[Adapter, ...] = ()
    # A folder of images with a metadata.jsonl that gives each file_name its prompt.
    images: str | None = None
    num_inference_steps: Each | None = None
    guidance_scale: Guidance | None = None
    # Lumina-Image-2.0's: the share of the steps that are guided, and whether guidance keeps norms.
    cfg_trunc_ratio: Unit | None = None
    cfg_normalization: bool | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The record of a suite does not change by an option that it leaves alone.
        data: dict[str, Any] = dump(self)
        if not self.adapters:
            data.pop("adapters", None)
        if self.weights == "last":
            data.pop("weights", None)
        return data

    def teacher_options(self) -> dict[str, Any]:
        """The given options of a teacher's sampling beside steps and guidance."""
        given = {name: getattr(self, name) for name in ("cfg_trunc_ratio", "cfg_normalization")}
        return {name: value for name, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _whole(self) -> Student:
        needed = {
            "train": {"method"},
            "teacher": {"num_inference_steps", "guidance_scale"},
            "published": {"published"},
            "checkpoint": {"checkpoint"},
            "images": {"images"},
        }
        allowed = needed.get(self.source, set()) | {"source", "title"}
        allowed |= {
            "train": {"train", "weights"},
            "teacher": {"cfg_trunc_ratio", "cfg_normalization"},
            "published": {"adapters"},
            "checkpoint": {"adapters"},
        }.get(self.source, set())
        given = {k for k in self.model_fields_set if getattr(self, k) is not None}
        if missing := needed.get(self.source, set()) - given:
            raise ValueError(f"a student with source {self.source!r} needs {sorted(missing)}")
        if extra := given - allowed:
            raise ValueError(f"a student with source {self.source!r} takes no {sorted(extra)}")
        if self.method is not None and self.method not in METHODS:
            raise ValueError(unknown("method", self.method, METHODS))
        return self
