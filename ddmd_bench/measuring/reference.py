"""Features of real images that belong to no prompt, kept in a folder: found, checked, read.

The folder holds `card.json`, written last, which says what it is of; `NAME.npy`, the features of
each extractor, float32 [n, d]; and `NAME.safetensors` with their mean, covariance and its
triangular factor in float64. `ddmd_bench.measuring.reference_build` makes it of images, and
`reference_import` of what others publish, where there may be no `NAME.npy`. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.files.arrays import read_features, write_npy
from ddmd_bench.files.carried import carried_folders
from ddmd_bench.files.inside import require_inside
from ddmd_bench.files.records import differing, file_sha256, read_versioned, write_whole
from ddmd_bench.files.tensors import read_safetensors_arrays
from ddmd_bench.files.versions import scorer_versions
from ddmd_bench.hub.hashes import known_sha256
from ddmd_bench.scorers import METRICS, SCORERS
from ddmd_bench.scorers.weights import files_sha256, located
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import Factored, Gaussian, RealFeatures
from ddmd_bench.stats.moments import factored

CARD = "card.json"
CARD_SCHEMA = 2
IMPORTED_SCHEMA = 3  # of each extractor a file of others, of images that nobody here has seen
GAUSSIAN = ("mean", "cov", "factor")
# By schema what a Gaussian's file holds: the first had a symmetric root, which nothing reads now.
GAUSSIANS = {1: ("mean", "cov"), CARD_SCHEMA: GAUSSIAN, IMPORTED_SCHEMA: GAUSSIAN}
_ROW = {
    "weights": {...: str}, "versions?": {...: int}, "files": {...: str},
    "num_features": int, "protocol": str,
}  # fmt: skip
CARD_FORM = {
    "n": int,
    "source": {"source": str},
    "subset": str,
    "images_sha256": str,
    "scorers": {...: _ROW},
}
_IMPORTED = {"file": str, "sha256": str, "n": (int, type(None)), "source": str}
CARD_FORMS = {
    1: CARD_FORM,
    CARD_SCHEMA: CARD_FORM,
    IMPORTED_SCHEMA: {"scorers": {...: {**_ROW, "imported": _IMPORTED}}},
}
UNFINISHED = "unfinished"  # what a build keeps until its card is written
_FOLDER = "reference_stats"  # a suite's expected values lie there as well


def find_statistics(name: str, scorers: Iterable[str] = ()) -> Path:
    """A folder by its path, or by its name in the working folder's, the clone's or the package's
    `reference_stats`; `scorers` are named where it has to be made."""
    stores = [Path(_FOLDER), *carried_folders(_FOLDER)]
    for folder in (Path(name).expanduser(), *(store / name for store in stores)):
        if (folder / CARD).is_file():
            return folder
    raise BenchError(
        f"no reference statistics {name!r}: neither {name} nor {stores[0] / name} holds a {CARD}. "
        f"Make them: {build_command(name, scorers)}"
    )


def build_command(name: str, scorers: Iterable[str]) -> str:
    """The command that would make a folder, of a published list's own images where it has some."""
    row = PROMPT_SOURCES.get(name)
    source = name if row is not None and row.images else "IMAGES"
    output = name if "/" in name else f"{_FOLDER}/{name}"
    wanted = " ".join(f"--scorers {scorer}" for scorer in scorers) or "--scorers inception"
    return f"python -m ddmd_bench stats build {source} {output} {wanted}"


def import_command(folder: Path, extractor: str) -> str:
    """The command that would take over an extractor's statistics from a file of others."""
    return f"python -m ddmd_bench stats import FILE {folder} --scorer {extractor}"


def build_again(folder: Path) -> str:
    """What to do where a folder is not whole."""
    return f"Copy it whole, or build it again: {build_command(str(folder), ())}"


def read_card(folder: Path) -> dict[str, Any]:
    """What a folder's statistics are of."""
    return read_versioned(folder / CARD, CARD_FORMS, build_again(folder))


def is_imported(card: Mapping[str, Any]) -> bool:
    """Whether a folder's statistics are what others publish."""
    return bool(card["schema"] == IMPORTED_SCHEMA)


def has_features(card: Mapping[str, Any], extractor: str) -> bool:
    """Whether single features of an extractor were kept, beside their Gaussian."""
    return not is_imported(card) or f"{extractor}.npy" in card["scorers"][extractor]["files"]


def told_of_imported(card: Mapping[str, Any], extractor: str) -> str:
    """What is known of an extractor's imported statistics, and what is not."""
    row = card["scorers"][extractor]
    known, here = row["imported"], SCORERS[extractor].protocol
    number = "an unknown number of" if known["n"] is None else known["n"]
    alone = "" if has_features(card, extractor) else ", their mean and covariance alone"
    return (
        f"{row['num_features']} features of {number} images{alone}; "
        f"{known['source'] or 'source unknown'}; imported from {known['file']} "
        f"{known['sha256'][:12]}. By which weights those were seen, and how they were resized, is "
        f"unknown: comparable only where that was as here{here and f' ({here})'}"
    )


def told_of_reference(folder: Path, extractors: Iterable[str]) -> dict[str, str]:
    """By extractor what is known of imported statistics, and what is not; {} of those built."""
    card = read_card(folder)
    return {name: told_of_imported(card, name) for name in extractors} if is_imported(card) else {}


def require_extractors(names: Iterable[str]) -> None:
    """Refuse what is no scorer, and one without features."""
    for name in names:
        if name not in SCORERS:
            raise BenchError(unknown("scorer", name, SCORERS))
        if SCORERS[name].num_features is None:
            able = [k for k, row in SCORERS.items() if row.num_features]
            raise BenchError(f"scorer {name} has no features. Those that have: {', '.join(able)}")


def extractors_of(metrics: Iterable[str]) -> list[str]:
    """The extractors whose features the metrics compare with real images."""
    return sorted({extractor for m in metrics if (extractor := METRICS[m].extractor)})


def statistics_inputs(name: str | None, metrics: Iterable[str]) -> dict[str, Any]:
    """What statistics add to a key: sha256 of the files that the metrics read, by extractor.

    Nothing where no metric compares with real images.
    """
    if name is None or not (extractors := extractors_of(metrics)):
        return {}
    scorers = read_card(find_statistics(name))["scorers"]
    return {"statistics": {extractor: scorers[extractor]["files"] for extractor in extractors}}


def statistics_problems(name: str, metrics: Iterable[str]) -> list[str]:
    """What is wrong with the statistics that metrics compare with, as far as the card tells."""
    metrics = list(metrics)
    extractors = extractors_of(metrics)
    try:
        folder = find_statistics(name, extractors)
        card = read_card(folder)
    except BenchError as error:
        return [f"reference.statistics: {error}"]
    problems = []
    for extractor in extractors:
        if extractor not in card["scorers"]:
            command = build_command(name, [*card["scorers"], extractor])
            if is_imported(card):
                command = import_command(folder, extractor)
            problems.append(
                f"reference.statistics: {folder} has features of "
                f"{', '.join(sorted(card['scorers']))}, not of {extractor}. Make them: " + command
            )
        elif not has_features(card, extractor) and (few := _of_features(metrics, extractor)):
            problems.append(
                f"reference.statistics: {folder} has the mean and covariance of {extractor} alone, "
                f"as others publish them, and {', '.join(few)} compare single features of real "
                f"images. Leave {'them' if len(few) > 1 else 'it'} out, or build statistics of the "
                f"images: {build_command('NAME', [extractor])}"
            )
        else:
            problems += [
                f"reference.statistics: {line}. Use the same weights and version, or build it again"
                for line in made_otherwise(folder, card, extractor)
            ]
    return problems


def _of_features(metrics: Iterable[str], extractor: str) -> list[str]:
    """Those of the metrics that compare single features of an extractor."""
    rows = {name: METRICS[name] for name in metrics if METRICS[name].extractor == extractor}
    return [name for name, row in rows.items() if DISTANCES[row.distance or ""].needs_features]


def made_otherwise(folder: Path, card: Mapping[str, Any], extractor: str) -> list[str]:
    """How the scorer here, where its weights are, differs from the one that made the features.

    Nothing where that is not known.
    """
    row, where = card["scorers"][extractor], f"{folder}: {extractor}"
    if is_imported(card):
        return []
    here = scorer_versions([extractor])
    made = row.get("versions", dict.fromkeys(here, 1))  # a card that names none is of the first
    lines = list(differing(where, made, here))
    if all(located(weights) for weights in SCORERS[extractor].weights):
        lines += differing(where, row["weights"], weights_of(extractor))
    return lines


def weights_of(scorer: str) -> dict[str, str]:
    """sha256 of a scorer's files by their names."""
    parts = [files_sha256(weights) for weights in SCORERS[scorer].weights]
    return {name: sha256 for part in parts for name, sha256 in part.items()}


def write_statistics(
    folder: Path, extractor: str, features: NDArray[Any] | None, gaussian: Factored
) -> dict[str, str]:
    """Write an extractor's files, of single features where they are known; sha256 by name."""
    from safetensors.numpy import save

    files = [f"{extractor}.safetensors"]
    if features is not None:
        files = [f"{extractor}.npy", *files]
        write_npy(folder / files[0], features)
    tensors = dict(zip(GAUSSIAN, map(np.ascontiguousarray, gaussian), strict=True))
    write_whole(folder / files[-1], save(tensors))
    return {name: file_sha256(folder / name) for name in files}


@cache
def load_reference(folder: Path, extractor: str) -> RealFeatures:
    """An extractor's features with their Gaussian; every byte is what the card says.

    Of imported statistics there may be the Gaussian alone: features [0, d].
    """
    card = read_card(folder)
    if extractor not in card["scorers"]:
        known = ", ".join(sorted(card["scorers"]))
        raise BenchError(f"{folder} has features of {known}, not of {extractor}. Build it again")
    if extractor not in SCORERS:
        raise BenchError(f"{folder / CARD}: {unknown('scorer', extractor, SCORERS)}")
    row = card["scorers"][extractor]
    again = build_again(folder)
    if is_imported(card):
        again = f"Copy it whole, or delete it and run: {import_command(folder, extractor)}"
    if lines := made_otherwise(folder, card, extractor):
        raise BenchError("\n".join(lines))
    for name, expected in row["files"].items():
        path = folder / require_inside(name, str(folder / CARD))
        if not path.is_file():
            raise BenchError(f"{path}: missing. {again}")
        if (actual := known_sha256(path)) != expected:
            raise BenchError(f"{path} has sha256 {actual}, {CARD} says {expected}. {again}")
    if has_features(card, extractor):
        features = read_features(folder / f"{extractor}.npy", again)
    else:
        features = np.empty((0, SCORERS[extractor].num_features or 0), np.float32)
    num, d = features.shape
    shapes = {name: (d,) if name == "mean" else (d, d) for name in GAUSSIANS[card["schema"]]}
    tensors = read_safetensors_arrays(folder / f"{extractor}.safetensors", shapes, again)
    fixed = Factored(**tensors) if "factor" in tensors else factored(Gaussian(**tensors))
    stated = row["imported"]["n"] if is_imported(card) else num
    return RealFeatures(features, np.arange(num), fixed, stated)
