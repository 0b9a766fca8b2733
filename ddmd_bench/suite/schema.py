"""A suite: one small YAML file that says what to compare. Strictly checked, defaults in one place.

suite = Suite.model_validate(data)      # from a file: `ddmd_bench.suite.files.load_suite`
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ddmd_bench.errors import unknown
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import (
    DataSource,
    Model,
    Name,
    Positive,
    Strict,
    TrainData,
    TrainSettings,
    Unit,
)


class PromptSet(DataSource):
    """Prompts of one source; the subset is the head of a fixed shuffle, the same for every seed.

    Column, config, split and revision are for files and datasets of the Hub alone.
    """

    num_prompts: Positive
    images_per_prompt: Positive = 2
    # Those of one category of the source, e.g. a style; None: all.
    category: str | None = None
    # The suite's metrics that are for these prompts; None: all.
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        unused = [name for name in ("category", "metrics") if getattr(self, name) is None]
        return {name: value for name, value in data.items() if name not in unused}


class Checkpoint(Strict):
    """Weights of a student that was trained elsewhere, and how it is sampled."""

    # owner/name on the Hub, or a local file or folder.
    repository: str
    revision: str | None = None
    file: str | None = None
    # unet, lora, or pipeline: a whole diffusers pipeline of any kind, sampled by itself.
    format: Literal["unet", "lora", "pipeline"]
    lora_scale: float = 1.0
    scheduler: str = "own"
    num_inference_steps: Positive
    timesteps: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    guidance_scale: Annotated[float, Field(ge=1)] = 1.0
    embedded_guidance_scale: float | None = None


class Student(Strict):
    """One contender: distilled by a method, the teacher, published or other weights, images."""

    source: Literal["train", "teacher", "published", "checkpoint", "images", "real"] = "train"
    title: str = ""
    method: str | None = None
    train: dict[str, Any] = Field(default_factory=dict)
    # A row of `ddmd_bench.students.catalogue.PUBLISHED`.
    published: str | None = None
    checkpoint: Checkpoint | None = None
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
        }.get(self.source, set())
        given = {k for k in self.model_fields_set if getattr(self, k) is not None}
        if missing := needed.get(self.source, set()) - given:
            raise ValueError(f"a student with source {self.source!r} needs {sorted(missing)}")
        if extra := given - allowed:
            raise ValueError(f"a student with source {self.source!r} takes no {sorted(extra)}")
        if self.method is not None and self.method not in METHODS:
            raise ValueError(unknown("method", self.method, METHODS))
        return self


class Reference(Strict):
    """Real images that distribution metrics compare with.

    So many for each prompt of the suite, from a backend that draws them, or statistics of others.
    """

    images_per_prompt: Positive = 10
    # Made with `ddmd_bench stats build`: a folder, or a name in reference_stats.
    statistics: str | None = None


class Scoring(Strict):
    """How the scorers' networks run."""

    # bfloat16 is quicker and moves scores a little: `doctor --dtype bfloat16` says how much.
    dtype: Literal["float32", "bfloat16"] = "float32"


class Evaluation(Strict):
    """When and on what a student is evaluated while it trains.

    The prompts are the head of each prompt set, sets in proportion to their sizes.
    """

    at: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]  # 0: not updated
    num_prompts: Positive  # over all prompt sets
    images_per_prompt: Positive = 1
    metrics: Annotated[list[str], Field(min_length=1)]  # the suite need not have them
    keep_best: str | None = None  # keep the weights that are best by this metric beside the last

    @model_validator(mode="after")
    def _whole(self) -> Evaluation:
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"at must rise, got {list(self.at)}")
        if repeated := {m for m in self.metrics if self.metrics.count(m) > 1}:
            raise ValueError(f"metrics: {sorted(repeated)} named more than once")
        if self.keep_best is not None and self.keep_best not in self.metrics:
            raise ValueError("keep_best: " + unknown("metric", self.keep_best, self.metrics))
        return self


class Claim(Strict):
    """What a suite expects, with where the paper says so.

    beats   student is better than `other` on `metric`
    worst   student is worse than every other trained student on `metric`
    above   student has a larger value than `other` on `metric`, whether that is better or not
    same    student and `other` differ by less than `margin` on `metric`
    rises   the training diagnostic `series` of student rises throughout
    bounded the training diagnostic `series` stays within a factor of `margin` of its start
    """

    claim: Literal["beats", "worst", "above", "same", "rises", "bounded"]
    student: str
    other: str | None = None
    metric: str | None = None
    series: str | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    paper: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        needed = {
            "beats": {"other", "metric"},
            "worst": {"metric"},
            "above": {"other", "metric"},
            "same": {"other", "metric", "margin"},
            "rises": {"series"},
            "bounded": {"series", "margin"},
        }[self.claim]
        given = {k for k in ("other", "metric", "series", "margin") if getattr(self, k) is not None}
        if given != needed:
            raise ValueError(f"claim {self.claim!r} takes {sorted(needed)}, found {sorted(given)}")
        return self


class LiteratureRows(Strict):
    """A published table to show the students beside: its row for each of them."""

    table: str  # an id of `ddmd_bench.literature.values`
    rows: Annotated[dict[Name, str], Field(min_length=1)]  # by our student


class Suite(Strict):
    """The whole file, defaults filled in."""

    name: Name
    title: str
    description: str = ""
    backend: str
    model: Model = Model()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    prompts: Annotated[dict[Name, PromptSet], Field(min_length=1)]
    train: TrainSettings = TrainSettings()
    train_data: TrainData | None = None
    students: Annotated[dict[Name, Student], Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    reference: Reference = Reference()
    scoring: Scoring = Scoring()
    evaluation: Evaluation | None = None
    # Where training's diagnostics go beside the run's own files.
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    baseline: str
    claims: list[Claim] = Field(default_factory=list)
    literature: tuple[LiteratureRows, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Neither the key nor the report of a suite changes by an option that it leaves alone.
        data: dict[str, Any] = dump(self)
        for name in ("literature", "scoring"):
            if name not in self.model_fields_set:
                data.pop(name, None)
        if self.reference.statistics is None and "reference" in data:
            data["reference"].pop("statistics", None)
        return data

    @model_validator(mode="after")
    def _names(self) -> Suite:
        if "all" in self.prompts:
            raise ValueError("prompts.all: 'all' stands for every prompt set; choose another name")
        if repeated := {m for m in self.metrics if self.metrics.count(m) > 1}:
            raise ValueError(f"metrics: {sorted(repeated)} named more than once")
        for name, prompts in self.prompts.items():
            for metric in prompts.metrics or ():
                if metric not in self.metrics:
                    raise ValueError(
                        f"prompts.{name}.metrics: " + unknown("metric", metric, self.metrics)
                    )
        asked = sum(p.num_prompts for p in self.prompts.values())
        if self.evaluation and self.evaluation.num_prompts > asked:
            raise ValueError(
                f"evaluation.num_prompts: asks for {self.evaluation.num_prompts} prompts, the "
                f"suite has {asked}"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names a seed more than once")
        if self.baseline not in self.students:
            raise ValueError("baseline: " + unknown("student", self.baseline, self.students))
        for k, claim in enumerate(self.claims):
            for name in filter(None, (claim.student, claim.other)):
                if name not in self.students:
                    raise ValueError(f"claims[{k}]: " + unknown("student", name, self.students))
            if claim.series and self.students[claim.student].source != "train":
                raise ValueError(f"claims[{k}]: {claim.student} is not trained and has no series")
            if claim.metric and claim.metric not in self.metrics:
                raise ValueError(f"claims[{k}]: " + unknown("metric", claim.metric, self.metrics))
        tables = [beside.table for beside in self.literature]
        for k, beside in enumerate(self.literature):
            where = f"literature[{k}]"
            for name in beside.rows:
                if name not in self.students:
                    raise ValueError(f"{where}.rows: " + unknown("student", name, self.students))
            if beside.table in tables[:k]:
                raise ValueError(f"{where}.table: {beside.table!r} named more than once")
        for name in self.students:
            if self.students[name].source == "train":
                self._check_evaluation(name, self.train_settings(name).num_iterations)
        return self

    def _check_evaluation(self, student: str, num_iterations: int) -> None:
        if self.evaluation is None:
            return
        if beyond := [k for k in self.evaluation.at if k > num_iterations]:
            raise ValueError(
                f"evaluation.at: {beyond} lie beyond the {num_iterations} iterations of student "
                f"{student}; leave them out, or raise its num_iterations"
            )

    @property
    def intervals_over(self) -> Literal["prompts", "seeds"]:
        """What an interval is over: with several seeds, no longer each seed's own prompts."""
        return "prompts" if len(self.seeds) == 1 else "seeds"

    @property
    def all_metrics(self) -> list[str]:
        """The metrics of the report, then those of the evaluation in training alone."""
        evaluated = self.evaluation.metrics if self.evaluation else []
        return list(dict.fromkeys([*self.metrics, *evaluated]))

    def metrics_of(self) -> dict[str, tuple[str, ...]]:
        """The metrics that are for each prompt set's prompts."""
        return {name: p.metrics or tuple(self.metrics) for name, p in self.prompts.items()}

    def images_per_prompt(self) -> dict[str, int]:
        """Images per prompt by prompt set."""
        return {name: prompts.images_per_prompt for name, prompts in self.prompts.items()}

    def train_settings(self, student: str) -> TrainSettings:
        """The suite's training settings with the student's own values over them."""
        own = self.students[student].train
        for key in own:
            if key not in TrainSettings.model_fields:
                known = TrainSettings.model_fields
                raise ValueError(f"students.{student}.train: " + unknown("key", key, known))
        try:
            return TrainSettings.model_validate({**self.train.model_dump(), **own})
        except ValidationError as error:
            found = "; ".join(
                ": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")])
                for e in error.errors()
            )
            raise ValueError(f"students.{student}.train: {found}") from error
