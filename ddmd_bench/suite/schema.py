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
from ddmd_bench.suite.claims import Claim
from ddmd_bench.suite.gate import Margin
from ddmd_bench.suite.settings import (
    Count,
    DataSource,
    Each,
    Model,
    Name,
    Positive,
    Seed,
    Strict,
    TrainData,
    TrainSettings,
)
from ddmd_bench.suite.students import Student
from ddmd_bench.suite.until_settled import UntilSettled


class PromptSet(DataSource):
    """Prompts of one source; the subset is the head of a fixed shuffle, the same for every seed.

    Column, config, split and revision are for files and datasets of the Hub alone.
    """

    num_prompts: Positive
    images_per_prompt: Each = 2
    # Those of one category of the source, e.g. a style; None: all.
    category: str | None = None
    # The suite's metrics that are for these prompts; None: all.
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        unused = [name for name in ("category", "metrics") if getattr(self, name) is None]
        return {name: value for name, value in data.items() if name not in unused}


class Reference(Strict):
    """Real images that distribution metrics compare with.

    So many for each prompt of the suite, from a backend that draws them, or statistics of others.
    """

    images_per_prompt: Each = 10
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

    at: Annotated[tuple[Count, ...], Field(min_length=1)]  # 0: not updated
    num_prompts: Positive  # over all prompt sets
    images_per_prompt: Each = 1
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
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
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
    # What `check --baseline` lets each metric lose; none: all that have a better direction.
    gate: dict[str, Margin] = Field(default_factory=dict)
    # As few images as the comparisons need; None: those of all prompts.
    until_settled: UntilSettled | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Neither the key nor the report of a suite changes by an option that it leaves alone.
        data: dict[str, Any] = dump(self)
        for name in ("literature", "scoring", "gate"):
            if name not in self.model_fields_set:
                data.pop(name, None)
        if self.until_settled is None:
            data.pop("until_settled", None)
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
                # Either may be the slip: what a metric may be called is asked elsewhere.
                raise ValueError(
                    f"claims[{k}] is about {claim.metric!r}, which is not among the suite's "
                    f"metrics: {', '.join(self.metrics)}"
                )
        for metric in self.gate:
            if metric not in self.metrics:
                raise ValueError("gate: " + unknown("metric", metric, self.metrics))
        if self.until_settled is not None:
            self._check_until_settled(self.until_settled)
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

    def _check_until_settled(self, settling: UntilSettled) -> None:
        for metric in settling.metrics or ():
            if metric not in self.metrics:
                raise ValueError(
                    "until_settled.metrics: " + unknown("metric", metric, self.metrics)
                )
        for metric in settling.margins:
            known = settling.metrics or self.metrics
            if metric not in known:
                raise ValueError("until_settled.margins: " + unknown("metric", metric, known))

    def _check_evaluation(self, student: str, num_iterations: int) -> None:
        keeps_best = self.evaluation is not None and self.evaluation.keep_best is not None
        if self.students[student].weights == "best" and not keeps_best:
            raise ValueError(
                f"students.{student}.weights: best, but nothing says by which metric. Name it: "
                "evaluation.keep_best, a metric of evaluation.metrics"
            )
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
