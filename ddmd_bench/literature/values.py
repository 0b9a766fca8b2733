"""Numbers that others published, with the protocol that each was measured under, as data.

(tab2,) = (t for t in load_tables() if t.id == "decoupled_dmd_tab2")
tab2.value("dmd2", "hps_v21").raw   # 0.3064, printed as 30.64

They are context for a reader, never a gate: between three papers one and the same checkpoint's
ImageReward differs by 0.22.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StrictFloat, TypeAdapter, ValidationError, model_validator

from ddmd_bench.errors import BenchError
from ddmd_bench.files.lines import read_text
from ddmd_bench.files.yaml_text import parse_yaml
from ddmd_bench.suite.settings import Name, Positive, Rate, Strict

PATH = Path(__file__).with_name("values.yaml")
NonEmpty = Annotated[str, Field(min_length=1)]
# How a number was read, the surest first.
HOW = {
    "paper": "transcription of the paper's text",
    "readme": "README",
    "issue": "issue thread",
    "notes": "second hand",
    "rows": "as each row says",
}


class Source(Strict):
    """Where a number stands."""

    work: NonEmpty
    place: NonEmpty
    how: Literal["paper", "readme", "issue", "notes", "rows"]

    def __str__(self) -> str:
        return f"{self.work}, {self.place} ({HOW[self.how]})"


class Protocol(Strict):
    """How a number was measured. A field that is left out does not matter for it; None: it matters
    and was not stated."""

    prompts: NonEmpty | None = None  # a prompt source's name
    num_prompts: Positive | None = None
    images_per_prompt: Positive | None = None
    resolution: Positive | None = None  # pixels per side
    num_inference_steps: Positive | None = None
    gan: bool | None = None  # whether the student was trained with a GAN
    reference: NonEmpty | None = None  # the images that a distribution metric compares with
    num_reference: Positive | None = None
    resize: NonEmpty | None = None  # of the images before they are read
    version: NonEmpty | None = None  # of the network that measures
    text_prefix: str | None = None  # before each prompt, for metrics that read it
    inferred: tuple[str, ...] = ()  # fields that were concluded, not stated

    @model_validator(mode="after")
    def _whole(self) -> Protocol:
        if absent := set(self.inferred) - {k for k, v in self.fields().items() if v is not None}:
            raise ValueError(f"inferred: {sorted(absent)} have no value here")
        return self

    def fields(self) -> dict[str, Any]:
        """The fields that matter, in the order above."""
        return {k: getattr(self, k) for k in PROTOCOL_FIELDS if k in self.model_fields_set}


PROTOCOL_FIELDS = tuple(name for name in Protocol.model_fields if name != "inferred")


class Stated(NamedTuple):
    """What a source says of a field of its protocol; value None: nothing."""

    value: Any
    inferred: bool


class Column(Strict):
    """One printed column: printed = raw x scale."""

    metric: Name | None = None  # ours; the column's key where it is left out
    category: Name | None = None  # of the prompts, for a column that is over a part of them
    label: NonEmpty
    scale: Rate = 1
    decimals: Annotated[int, Field(ge=0)]
    protocol: Protocol = Protocol()


class Number(Strict):
    """One printed number, with what must be said of it."""

    printed: StrictFloat
    uncertain: bool = False
    note: str = ""


class Row(Strict):
    """One printed row: its values in the order of the columns, None where nothing is printed."""

    label: NonEmpty
    student: Name | None = None  # whose values; the row's key where it is left out
    source: Source | None = None  # where it is not the table's
    note: str = ""
    protocol: Protocol = Protocol()
    values: tuple[Number | StrictFloat | None, ...]


class Value(NamedTuple):
    """A published number: `raw` as our metric stores it, `printed` as its source shows it."""

    raw: float
    printed: str
    source: Source
    uncertain: bool
    note: str


class Table(Strict):
    """One published table."""

    id: Name
    title: NonEmpty
    source: Source
    notes: tuple[NonEmpty, ...] = ()
    protocol: Protocol
    columns: Annotated[dict[Name, Column], Field(min_length=1)]
    rows: Annotated[dict[Name, Row], Field(min_length=1)]

    @model_validator(mode="after")
    def _whole(self) -> Table:
        for name, row in self.rows.items():
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"rows.{name}: {len(row.values)} values for {len(self.columns)} columns"
                )
            for (key, column), value in zip(self.columns.items(), row.values, strict=True):
                number = _number(value)
                if number and _decimals(number.printed) > column.decimals:
                    raise ValueError(
                        f"rows.{name}.{key}: {number.printed} has more than the column's "
                        f"{column.decimals} decimals"
                    )
        return self

    def metric(self, column: str) -> str:
        """Our name of the metric of a column."""
        return self.columns[column].metric or column

    def value(self, row: str, column: str) -> Value | None:
        """A cell, None where the source prints none."""
        number = _number(self.rows[row].values[list(self.columns).index(column)])
        if number is None:
            return None
        spec = self.columns[column]
        # Through decimals: 32.29 / 100 is the float nearest to 0.3229.
        raw = float(Decimal(str(number.printed)) / Decimal(str(spec.scale)))
        printed = f"{number.printed:.{spec.decimals}f}".replace("-", "\u2212")
        source = self.rows[row].source or self.source
        return Value(raw, printed, source, number.uncertain, number.note)

    def protocol_of(self, row: str, column: str) -> dict[str, Stated]:
        """The protocol of a cell: the table's, the column's over it, the row's over both."""
        stated: dict[str, Stated] = {}
        parts = (self.protocol, self.columns[column].protocol, self.rows[row].protocol)
        for part in parts:
            stated |= {k: Stated(v, k in part.inferred) for k, v in part.fields().items()}
        return {k: stated[k] for k in PROTOCOL_FIELDS if k in stated}


def _number(value: Number | float | None) -> Number | None:
    return Number(printed=value) if isinstance(value, float) else value


def _decimals(value: float) -> int:
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    assert isinstance(exponent, int), f"{value} is finite"
    return max(0, -exponent)


@cache
def load_tables(path: Path = PATH) -> tuple[Table, ...]:
    """All published tables, strictly checked."""
    try:
        data = parse_yaml(read_text(path), str(path)).data
        tables = TypeAdapter(tuple[Table, ...]).validate_python(data)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BenchError("\n".join(f"{path}: {line}" for line in lines)) from error
    ids = [table.id for table in tables]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise BenchError(f"{path}: tables {repeated} stand more than once")
    return tables


def literature_tables() -> dict[str, Table]:
    """The tables by id."""
    return {table.id: table for table in load_tables()}
