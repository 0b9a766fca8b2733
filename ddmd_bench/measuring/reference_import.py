"""Take over statistics of real images that others publish, whose images need not be at hand.

python -m ddmd_bench stats import coco.npz reference_stats/coco --scorer inception --num 30000

A file is known by its arrays. `mu` and `sigma` of an npz are the mean and covariance that
pytorch-fid, clean-fid, ADM's evaluations and EDM write (their fid_score.py, fid.py, evaluator.py
and fid.py); `feats` of one are features, as clean-fid keeps them for KID, `reps` those of dgm-eval,
and so are the numbers of an npy. What else an npz holds, as ADM's images and `mu_s`, is not read.
None says of how many images and of which these are, how they were resized, or which weights saw
them: the card leaves it empty but for what its user was told.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh

from ddmd_bench.errors import BenchError
from ddmd_bench.files.arrays import read_features, read_npz_of_others
from ddmd_bench.files.locks import locked
from ddmd_bench.files.provenance import package_versions
from ddmd_bench.files.reading import FETCH_AGAIN, refuse
from ddmd_bench.files.records import file_sha256, write_json
from ddmd_bench.measuring.reference import (
    CARD,
    IMPORTED_SCHEMA,
    UNFINISHED,
    is_imported,
    read_card,
    require_extractors,
    write_statistics,
)
from ddmd_bench.scorers import SCORERS
from ddmd_bench.stats.frechet import Gaussian
from ddmd_bench.stats.moments import factored, gaussian_of_parts

_LARGEST = float(np.finfo(np.float32).max)
MOMENTS = ("mu", "sigma")
LAYOUTS = [MOMENTS, ("feats",), ("reps",)]
_NPY, _PICKLES = b"\x93NUMPY", (b"\x80", b"(dp", b"}q")
# Of the largest entry or eigenvalue: sums in float32 of fewer images than features leave 2e-6.
ROUNDING = 1e-5
_PICKLE = (
    "Pickles, as EDM2's .pkl, are programs, and are not read. Where you trust it, let numpy write "
    "an npz with the mean as `mu` and the covariance as `sigma`"
)


def import_statistics(path: Path, output: Path, scorer: str, num: int | None, source: str) -> Path:
    """Write the folder, or add to one of imported statistics; card last.

    num: of how many images they are; source: which images, and from where. Both as you were told:
    nothing in the file says it but for features, which are counted.
    """
    require_extractors([scorer])
    card = _card_of(output, scorer)
    features, gaussian = _read(path, scorer)
    if features is not None:
        if num not in (None, len(features)):
            raise BenchError(f"{path}: features of {len(features)} images, --num says {num}")
        num = len(features)
    work = output / UNFINISHED
    with locked(work, "Wait until that has ended, or choose another folder"):
        files = write_statistics(output, scorer, features, factored(gaussian))
        card["scorers"][scorer] = {
            "protocol": "",
            "num_features": len(gaussian.mean),
            "weights": {},
            "files": files,
            "imported": {
                "file": path.name, "sha256": file_sha256(path), "n": num, "source": source,
            },
        }  # fmt: skip
        write_json(output / CARD, {**card, "packages": package_versions()})
        shutil.rmtree(work)
    return output


def _card_of(output: Path, scorer: str) -> dict[str, Any]:
    """What a folder has already that an import adds to."""
    if not (output / CARD).is_file():
        return {"schema": IMPORTED_SCHEMA, "scorers": {}}
    card = read_card(output)
    if not is_imported(card):
        raise BenchError(
            f"{output}: there already, built from images that the imported ones need not be. "
            "Choose another folder, or delete it"
        )
    if scorer in card["scorers"]:
        raise BenchError(
            f"{output}: has statistics of {scorer} already. Choose another folder, or delete it"
        )
    return card


def _read(path: Path, scorer: str) -> tuple[NDArray[Any] | None, Gaussian]:
    """A file's features, where it has some, and their Gaussian: of this scorer, as far as can be
    told."""
    start = _start_of(path)
    if start.startswith(_PICKLES):
        raise refuse(path, "a pickle", "an npz or npy file", _PICKLE)
    if start == _NPY:
        arrays = {"the array": read_features(path, FETCH_AGAIN)}
    else:
        arrays = read_npz_of_others(path, LAYOUTS, FETCH_AGAIN)
    num_features = SCORERS[scorer].num_features
    assert num_features is not None
    if tuple(arrays) == MOMENTS:
        _require(path, arrays, "mu", (num_features,), scorer)
        _require(path, arrays, "sigma", (num_features, num_features), scorer)
        return None, _covariance_checked(path, Gaussian(*(arrays[name] for name in MOMENTS)))
    (name,) = arrays
    _require(path, arrays, name, (None, num_features), scorer)
    features = arrays[name].astype(np.float32)
    if len(features) < 2:
        raise refuse(path, f"features of {len(features)} images", "two or more", FETCH_AGAIN)
    return features, gaussian_of_parts([features])


def _start_of(path: Path) -> bytes:
    """A file's first bytes; none of what is no file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(len(_NPY))


def _require(
    path: Path,
    arrays: dict[str, NDArray[Any]],
    name: str,
    shape: tuple[int | None, ...],
    scorer: str,
) -> None:
    """An array holds numbers that float32 has too, in the shape that the scorer's features give."""
    array, num_features = arrays[name], shape[-1]
    fits = len(shape) == array.ndim and all(
        asked in (None, found) for asked, found in zip(shape, array.shape, strict=True)
    )
    if array.dtype.kind != "f" or not fits:
        found = array.shape[-1] if array.ndim else 0
        others = [key for key, row in SCORERS.items() if row.num_features == found]
        named = f"those with {found} are {', '.join(others)}" if others else "no other has as many"
        raise refuse(
            path,
            f"{name} is {array.dtype} {[*array.shape]}",
            f"numbers [{', '.join('n' if size is None else str(size) for size in shape)}], as "
            f"{scorer} has {num_features} features",
            f"Name the scorer whose features they are ({named})",
        )
    if not (np.abs(array) <= _LARGEST).all():  # nor is NaN
        raise refuse(path, f"{name} has values that are not finite", "numbers", FETCH_AGAIN)


def _covariance_checked(path: Path, gaussian: Gaussian) -> Gaussian:
    """In float64; its covariance is symmetric and has no eigenvalue below 0, but for rounding."""
    mean, cov = (np.asarray(array, np.float64) for array in gaussian)
    if (gap := float(np.abs(cov - cov.T).max())) > ROUNDING * float(np.abs(cov).max()):
        raise refuse(
            path, f"sigma differs from its transpose by {gap:g}", "a covariance", FETCH_AGAIN
        )
    cov = (cov + cov.T) / 2
    values = eigvalsh(cov)
    if values[0] < -ROUNDING * values[-1]:
        found = f"sigma has the eigenvalue {values[0]:g}"
        raise refuse(path, found, "a covariance, which has none below 0", FETCH_AGAIN)
    return Gaussian(mean, cov)
