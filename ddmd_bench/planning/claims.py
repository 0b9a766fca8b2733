"""What a suite claims, and the margins of its gate, as far as they can be judged at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ddmd_bench.errors import unknown
from ddmd_bench.files.records import file_sha256
from ddmd_bench.objective.series import SERIES
from ddmd_bench.planning.part import Asked, Part
from ddmd_bench.scorers import METRICS
from ddmd_bench.suite.studies import studies_of, tally_file

NO_DIRECTION = ("same", "above", "keeps")  # claims that need no better direction


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
        if metric and claim.claim == "keeps" and metric.kind == "distribution":
            yield (
                f"claims[{k}]: {claim.metric} is of whole sets of images; 'keeps' takes a metric "
                "that images or prompts have, such as diversity"
            )
    for name, margin in asked.suite.gate.items():
        metric = METRICS.get(name)
        if metric and metric.kind == "distribution" and margin.spreads is not None:
            yield (
                f"gate.{name}: spreads are of the values of prompts, of which it has none. Take a "
                "margin in its own units, or a share of the baseline's value"
            )


def _reported(asked: Asked) -> Mapping[str, Any]:
    """The tallies that claims rest on, as they are now."""
    tallies = {study: tally_file(study) for study in studies_of(asked.suite.claims)}
    if not tallies:
        return {}
    told = {study: file_sha256(path) if path.is_file() else None for study, path in tallies.items()}
    return {"studies": told}


CLAIMS = Part(_problems, reported=_reported)
