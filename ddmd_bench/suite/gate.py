"""How much worse than a baseline a student may be: the margins of a suite's gate."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from ddmd_bench.suite.settings import Strict

Above = Annotated[float, Field(gt=0)]


class Margin(Strict):
    """What a metric may lose, said in one of three ways."""

    margin: Above | None = None  # in the metric's own units, as they are stored
    spreads: Above | None = None  # in standard deviations of the baseline's values over prompts
    share: Above | None = None  # of the baseline's value

    @model_validator(mode="after")
    def _one(self) -> Margin:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of margin, spreads and share, found {given or 'none'}")
        return self
