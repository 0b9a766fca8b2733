"""The claims of a suite: what it expects of its students, checked against what was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ddmd_bench.suite.settings import Strict


class Claim(Strict):
    """What a suite expects, with where the paper says so.

    beats   student is better than `other` on `metric`
    worst   student is worse than every other trained student on `metric`
    above   student has a larger value than `other` on `metric`, whether that is better or not
    same    student and `other` differ by less than `margin` on `metric`
    rises   the training diagnostic `series` of student rises throughout
    bounded the training diagnostic `series` stays within a factor of `margin` of its start

    beats, worst and above may have a `margin`, in the metric's own units: differences that do not
    matter. Undecided within it is alike, beyond it too few to tell.
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
        optional = {"margin"} if self.claim in ("beats", "worst", "above") else set()
        if given - optional != needed:
            raise ValueError(f"claim {self.claim!r} takes {sorted(needed)}, found {sorted(given)}")
        return self
