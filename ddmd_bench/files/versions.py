"""Versions of what is computed: they stand in the keys of results, which no source file does.

Raise a number where the same question gets another answer beyond rounding, and say in its line
what changed: results of other versions are then made again, once somebody says so. A comment, a
rename or a quicker way to the same values raises nothing. `tests/test_versions.py` computes small
results of every kind and fails where values moved and their version did not.
"""

from __future__ import annotations

# Stages and what they share; a scorer (`scorer NAME`) stands here from its second version on.
VERSIONS: dict[str, int] = {
    "doctor": 1,
    "training data": 1,  # captions and real images, as they are collected
    "encode": 1,
    "reference": 1,
    "train": 2,  # a draw belongs to a sample, not to a batch; losses are sums over samples
    "evaluation": 2,  # of students in training; drawn in the precision of their images
    "generate": 1,
    "answers": 1,  # what scorers are given and how their answers are kept
    # From answers to values and intervals. 2: shares keep within their range, skewed means and
    # differences of few prompts hold what they say.
    "score": 2,
    # Networks, noise levels, encoders and decoders.
    "backend shapes": 1,
    "backend sdxl": 1,
    "backend sd15": 1,
    "backend lumina2": 1,
    # Weights that were trained elsewhere, and the schedulers that sample them.
    "loaded": 1,
}


def versions(*names: str) -> dict[str, int]:
    """The version of each, as a key takes it."""
    return {name: VERSIONS.get(name, 1) for name in names}


def backend_versions(backend: str) -> dict[str, int]:
    """Of a backend's networks."""
    return versions(f"backend {backend}")


def scorer_versions(scorers: list[str]) -> dict[str, int]:
    """What the scorers' answers hang on beside their weights."""
    return versions("answers", *(f"scorer {name}" for name in scorers))
