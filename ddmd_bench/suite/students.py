"""The students of a suite: where the images of each come from, and how it is sampled."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from ddmd_bench.errors import unknown
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import Positive, Strict, Unit


class Checkpoint(Strict):
    """Weights of a student that was trained elsewhere, and how it is sampled."""

    # owner/name on the Hub, or a local file or folder.
    repository: str
    revision: str | None = None
    file: str | None = None
    # unet or transformer: the whole network; lora: on the suite's base; pipeline: a whole diffusers
    # pipeline of any kind, sampled by itself.
    format: Literal["unet", "transformer", "lora", "pipeline"]
    # Of a pipeline's weights, e.g. fp16; its plain ones, or the only one, where it is left out.
    variant: str | None = None
    lora_scale: float = 1.0
    scheduler: str = "own"
    num_inference_steps: Positive
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    guidance_scale: Annotated[float, Field(ge=1)] = 1.0
    embedded_guidance_scale: float | None = None

    @model_validator(mode="after")
    def _files_of_its_format(self) -> Checkpoint:
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
    # A row of `ddmd_bench.students.published.PUBLISHED`.
    published: str | None = None
    checkpoint: Checkpoint | None = None
    # On top of published or other weights, fused in this order.
    adapters: tuple[Adapter, ...] = ()
    # A folder of images with a metadata.jsonl that gives each file_name its prompt.
    images: str | None = None
    num_inference_steps: Positive | None = None
    guidance_scale: Annotated[float, Field(ge=1)] | None = None
    # Lumina-Image-2.0's: the share of the steps that are guided, and whether guidance keeps norms.
    cfg_trunc_ratio: Unit | None = None
    cfg_normalization: bool | None = None

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
            "train": {"train"},
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
