"""What a suite claims, and the margins of its gate, as far as they can be judged at all."""

from __future__ import annotations

from collections.abc import Iterator

from ddmd_bench.errors import unknown
from ddmd_bench.objective.series import SERIES
from ddmd_bench.planning.part import Asked, Part
from ddmd_bench.scorers import METRICS

NO_DIRECTION = ("same", "above")  # claims that need no better direction


def _problems(asked: Asked) -> Iterator[str]:
    for k, claim in enumerate(asked.suite.claims):
        if claim.series is not None and claim.series not in SERIES:
            yield f"claims[{k}]: " + unknown("series", claim.series, SERIES)
        metric = METRICS.get(claim.metric or "")
        if metric and metric.better == "reference" and claim.claim not in NO_DIRECTION:
            yield (
                f"claims[{k}]: {claim.metric} is best where real images have it, so nobody can be "
                f"{claim.claim!r} on it; claim 'same' or 'above', or another metric"
            )
    for name, margin in asked.suite.gate.items():
        metric = METRICS.get(name)
        if metric and metric.kind == "distribution" and margin.spreads is not None:
            yield (
                f"gate.{name}: spreads are of the values of prompts, of which it has none. Take a "
                "margin in its own units, or a share of the baseline's value"
            )


CLAIMS = Part(_problems)
