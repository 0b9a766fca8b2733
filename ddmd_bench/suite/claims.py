"""The claims of a suite: what it expects of its students, checked against what was measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ddmd_bench.suite.settings import Strict


class Claim(Strict):
    """What a suite expects, with where the paper says so.

    beats   student is better than `other` on `metric`
    worst   student is worse than every other trained student on `metric`
    above   student has a larger value than `other` on `metric`, whether that is better or not
    same    student and `other` differ by less than `margin` on `metric`
    keeps   student has at least `share` of what `other` has of `metric`, as of its diversity
    rises   the training diagnostic `series` of student rises throughout
    bounded the training diagnostic `series` stays within a factor of `margin` of its start
    preferred people of `study` (a folder of `study make`) put student above `other`

    beats, worst and above may have a `margin`, in the metric's own units: differences that do not
    matter. Undecided within it is alike, beyond it too few to tell.
    """

    claim: Literal["beats", "worst", "above", "same", "keeps", "rises", "bounded", "preferred"]
    student: str
    other: str | None = None
    metric: str | None = None
    series: str | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    study: str | None = None
    paper: str = ""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What earlier versions have written of other claims stays what it is.
        later = ("study", "share")
        return {k: v for k, v in dump(self).items() if k not in later or v is not None}

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        needed = {
            "beats": {"other", "metric"},
            "worst": {"metric"},
            "above": {"other", "metric"},
            "same": {"other", "metric", "margin"},
            "keeps": {"other", "metric", "share"},
            "rises": {"series"},
            "bounded": {"series", "margin"},
            "preferred": {"other", "study"},
        }[self.claim]
        fields = ("other", "metric", "series", "margin", "share", "study")
        given = {name for name in fields if getattr(self, name) is not None}
        optional = {"margin"} if self.claim in ("beats", "worst", "above") else set()
        if given - optional != needed:
            raise ValueError(f"claim {self.claim!r} takes {sorted(needed)}, found {sorted(given)}")
        return self
