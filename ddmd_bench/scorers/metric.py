"""What a metric is: a row of plain facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is shown; values are stored raw."""

    title: str
    kind: Literal["image", "prompt", "distribution"]
    better: Literal["higher", "lower", "reference"]  # reference: nearer to the real scenes' value
    extractor: str | None
    scale: float  # display only
    unit: str
    decimals: int
    description: str
    judges: bool = False  # whether an image's value is 1 for right and 0 for wrong
    # What others' protocols say of the metric, in the fields of `literature`.
    facts: Mapping[str, str] = field(default_factory=dict)
    # A column with how much each image counts; one of 0 has no value, and is not missing.
    counts: str | None = None
    # Of kind distribution: a row of `ddmd_bench.stats.distances.DISTANCES`, over the extractor's
    # features.
    distance: str | None = None
    # Of kind prompt: the scorer of whose features it is made, and a row of
    # `ddmd_bench.stats.diversity.DIVERSITIES`; else a scorer gives its column.
    within: tuple[str, str] | None = None
    # Of kind image: the scorer in whose features an image is held against those of other prompts,
    # and the cosine above which one is a copy.
    across: tuple[str, float] | None = None
    # Images of each published value, at least; 0: where none is published.
    published_n: int = 0
    # Between which an image's values lie, where they come near: intervals stay inside, and between
    # two finite ones are those of a share.
    bounds: tuple[float, float] | None = None
    # Whether `check` counts the images by itself, in any suite: then it has no margin by default.
    counted_by_check: bool = False
