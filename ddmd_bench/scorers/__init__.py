"""The networks that judge an image: `METRICS`, what is measured, `SCORERS`, what measures it.

Importing loads no torch.

Imports: errors, files, hub, backends.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.records import content_key
from ddmd_bench.hub import Remote
from ddmd_bench.scorers.catalogue import SCORERS
from ddmd_bench.scorers.interface import PromptScorer, Scored, Scorer, ScorerModel
from ddmd_bench.scorers.metric import Metric
from ddmd_bench.scorers.metrics import METRICS
from ddmd_bench.scorers.weights import Weights, files_sha256, remote_needed

if TYPE_CHECKING:
    import torch

__all__ = [
    "METRICS",
    "SCORERS",
    "Metric",
    "PromptScorer",
    "Scored",
    "Scorer",
    "ScorerModel",
    "batch_size",
    "loaded",
    "needed_scorers",
    "outside_scorers",
    "scorer_remotes",
    "scorer_weights",
    "weights_sha256",
    "why_no_value",
]


def needed_scorers(metrics: Iterable[str]) -> list[str]:
    """Names of the scorers that the metrics need, in the order of `SCORERS`."""
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, METRICS))
    rows = [METRICS[name] for name in wanted]
    compared = (of for row in rows for of in (row.within, row.across) if of)
    extractors = {row.extractor for row in rows} | {of[0] for of in compared}
    return [
        name
        for name, row in SCORERS.items()
        if name in extractors or {*row.columns, *row.prompt_columns} & set(wanted)
    ]


def outside_scorers(metrics: Iterable[str]) -> list[str]:
    """The needed scorers with weights that no package carries: what a run has examined first."""
    return [
        name
        for name in needed_scorers(metrics)
        if any(weights.package is None for weights in SCORERS[name].weights)
    ]


def needs_of(metric: str) -> list[str]:
    """What a metric needs beside pixels: prompts, real images, weights to be fetched, an extra."""
    names = needed_scorers([metric])
    files = {weights.what: None for name in names for weights in SCORERS[name].weights
             if weights.package is None}  # fmt: skip
    extras = {f"the extra {weights.extra}": None for name in names
              for weights in SCORERS[name].weights if weights.extra}  # fmt: skip
    return [
        *(["images of a run"] if not names else []),
        *(["several images a prompt"] if METRICS[metric].kind == "prompt" else []),
        *(["prompts"] if any(SCORERS[name].reads_prompts for name in names) else []),
        *(["real images"] if METRICS[metric].kind == "distribution" else []),
        *files,
        *extras,
    ]


def why_no_value(metric: str, prompts: Iterable[str]) -> str | None:
    """Why images of none of the prompts have a value of the metric; None where some have."""
    texts = list(prompts)
    for name in needed_scorers([metric]):
        reasons = [SCORERS[name].why_no_value(text) for text in texts]
        if reasons and all(reasons):
            return f"none of {len(texts)} prompts can have a value; the first: {reasons[0]}"
    return None


def scorer_weights(metrics: Iterable[str]) -> list[Weights]:
    """All files that the metrics' scorers read, each once."""
    found = (weights for name in needed_scorers(metrics) for weights in SCORERS[name].weights)
    return list(dict.fromkeys(found))


def scorer_remotes(metrics: Iterable[str]) -> list[Remote]:
    """The repositories of the scorers' weights that are to be fetched, or have been."""
    found = [remote_needed(weights) for weights in scorer_weights(metrics)]
    return [remote for remote in found if remote is not None]


# Images at once on a CPU, at most. Tensors above 32 MiB, the largest threshold of glibc, are mapped
# anew for every layer, and the kernel zeroes them: with 8 images 168,000 page faults an image of
# ViT-H-14 and 0.43 s of the kernel's time, with 4 hardly any.
_CPU_BATCH = 4


def batch_size(name: str, device: str) -> int:
    """How many images a scorer is given at once, at most."""
    own = SCORERS[name].batch_size
    return min(own, _CPU_BATCH) if device == "cpu" else own


@cache
def loaded(name: str, device: str, dtype: torch.dtype) -> ScorerModel:
    """A scorer with its weights; it stays in memory for the students that follow."""
    return SCORERS[name].load(name, device, dtype)


def weights_sha256(names: Iterable[str]) -> dict[str, str]:
    """Of each scorer that has weights their sha256, or of several files the hash of theirs."""
    found = {name: [files_sha256(w) for w in SCORERS[name].weights] for name in names}
    files = {
        name: {k: v for part in parts for k, v in part.items()} for name, parts in found.items()
    }
    return {
        name: next(iter(hashes.values())) if len(hashes) == 1 else content_key(hashes)
        for name, hashes in files.items()
        if hashes
    }
