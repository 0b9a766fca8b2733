"""Which metrics the authors' packages know: a row for each in `VENDORS`. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.measuring.reference import (
    extractors_of,
    find_statistics,
    has_features,
    read_card,
)
from ddmd_bench.scorers import METRICS, scorer_weights
from ddmd_bench.scorers.weights import located, missing_sentence

# Largest relative difference of features that are read from the same files, and of their distance.
SAME_FILES = 1e-4


@dataclass(frozen=True)
class Vendor:
    """How a metric's authors compute it."""

    packages: tuple[str, ...]  # by their names on PyPI
    job: str  # of `authors.JOBS`
    # Largest difference between theirs and ours, of scores about ten times what sums in another
    # order make of it. It finds even a wrong epsilon (4e-5 for ImageReward) or an approximate GELU
    # (8e-6 for HPS v2); a resize without antialias, or a palette that is RGB too early, makes 1e-3
    # and more.
    tolerance: float
    relative: bool = False  # whether the difference is divided by theirs
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


VENDORS = {
    "hps_v21": Vendor(("hpsv2",), "hps_v2", 1e-6, settings={"hps_version": "v2.1"}),
    "hps_v20": Vendor(("hpsv2",), "hps_v2", 1e-6, settings={"hps_version": "v2.0"}),
    "image_reward": Vendor(("image-reward",), "image_reward", 1e-5),
    "hps_v3": Vendor(("hpsv3",), "hps_v3", 1e-5),
    "fid": Vendor(
        ("clean-fid", "torch-fidelity", "torchmetrics"), "distances", SAME_FILES, relative=True
    ),
    "precision": Vendor(("clean-fid", "torch-fidelity"), "distances", SAME_FILES, relative=True),
    "recall": Vendor(("clean-fid", "torch-fidelity"), "distances", SAME_FILES, relative=True),
}


def vendor_problems(metrics: Iterable[str], reference: str | None) -> list[str]:
    """Metrics that no package here computes, weights that are not here or not in the file that a
    package reads, and statistics without the features that packages compare with."""
    metrics = list(metrics)
    problems = [
        f"{name}: none of the authors' packages computes it. Known: {', '.join(VENDORS)}"
        if name in METRICS
        else unknown("metric", name, VENDORS)
        for name in metrics
        if name not in VENDORS
    ]
    for weights in scorer_weights(name for name in metrics if name in VENDORS):
        if not (found := located(weights)):
            problems.append(missing_sentence(weights))
        elif set(found) != set(weights.files):
            wanted = ", ".join(weights.files)
            problems.append(
                f"{weights.what}: found {', '.join(map(str, found.values()))}, and the authors' "
                f"package reads {wanted} alone, from {weights.url}. Put it beside that file"
            )
    known = [name for name in metrics if name in VENDORS]
    return problems + list(_without_features(known, reference))


def _without_features(metrics: Iterable[str], reference: str | None) -> Iterator[str]:
    """The packages are handed the real images' features, which imported statistics may lack."""
    if reference is None:
        return
    for extractor in extractors_of(metrics):
        try:
            folder = find_statistics(reference)
            card = read_card(folder)
        except BenchError:
            return  # a problem of the statistics themselves
        if extractor in card["scorers"] and not has_features(card, extractor):
            yield (
                f"--reference {reference}: {folder} has the mean and covariance of {extractor} "
                "alone, and the authors' packages compare with features of real images. Take "
                "statistics that `stats build` made"
            )
