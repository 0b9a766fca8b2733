"""Drawing until comparisons are settled: what a suite says of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ddmd_bench.suite.gate import Above
from ddmd_bench.suite.settings import Positive, Strict


class UntilSettled(Strict):
    """Prompts are drawn in blocks, and a student's drawing ends with the block that settles all its
    comparisons with the baseline: better, worse, or alike within a margin.
    """

    # Those to settle, of images or prompts; None: the first image metric with a better direction.
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    # Prompts between two looks.
    block: Positive = 50
    # Differences that do not matter, in each metric's own units; where none is named, the gate's
    # in those units. A metric without one is never alike: where nothing differs, all is drawn.
    margins: dict[str, Above] = Field(default_factory=dict)
