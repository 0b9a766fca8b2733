"""Hold the FID family against clean-fid, torch-fidelity and torchmetrics: one table, exit code 1
beyond a tolerance.

PYTHONPATH=. python parity/distances.py     # where clean-fid, torch-fidelity, torchmetrics import

Every package gets the same random weights in the file that it reads, the same images and the same
features. The published weights are not needed: what is compared is the arithmetic.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ddmd_bench.scorers.inception import Inception, clean_resize
from ddmd_bench.scorers.inception_network import load_network
from ddmd_bench.stats.frechet import frechet_distance, gaussian_of
from ddmd_bench.stats.frechet_wide import wide_distance
from ddmd_bench.stats.kernel import kernel_estimate
from ddmd_bench.stats.manifold import precision_values, recall_estimate
from ddmd_bench.stats.moments import factored
from ddmd_bench.vendors.authors import DISTANCES, clean_features, manifold
from ddmd_bench.vendors.catalogue import SAME_FILES
from parity.inception_files import FIDELITY, NVIDIA, fidelity_state, write_nvidia

SAME_FEATURES = 1e-6  # relative
NUM_IMAGES = 24


class Row(NamedTuple):
    """One comparison."""

    what: str
    package: str
    ours: float
    theirs: float
    tolerance: float

    @property
    def error(self) -> float:
        return abs(self.ours - self.theirs) / max(abs(self.theirs), 1e-12)


def features_of(n: int, d: int, seed: int) -> NDArray[np.float64]:
    """Non-negative and correlated, as pooled activations are."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(d, d)) / d**0.5
    shifted = generator.normal(size=(n, d)) @ mixing + 0.3 + 0.05 * seed
    return np.maximum(shifted, 0)


def frechet_rows() -> Iterator[Row]:
    """The same 2,000 features of 64 numbers."""
    real, own = features_of(2_000, 64, 1), features_of(2_000, 64, 2)
    a, b = gaussian_of(real), gaussian_of(own)
    theirs = {package: distance(own, real) for package, distance in DISTANCES["fid"].items()}
    for package, value in theirs.items():
        yield Row("FID, plain", package, frechet_distance(a, b), value, SAME_FEATURES)
        yield Row("FID, wide", package, wide_distance(factored(a), own), value, SAME_FEATURES)


def kernel_rows() -> Iterator[Row]:
    """One subset that holds all: then nothing is drawn."""
    from cleanfid.fid import kernel_distance
    from torch_fidelity.metric_kid import kernel_poly, mmd2
    from torchmetrics.image.kid import poly_mmd

    real, own = features_of(500, 64, 1), features_of(500, 64, 2)
    ours = kernel_estimate(real, own).value
    options = {
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1.0,
    }
    pairs = ((own, own), (own, real), (real, real))
    theirs = {
        "clean-fid": kernel_distance(real, own, num_subsets=1, max_subset_size=500),
        "torch-fidelity": mmd2(*(kernel_poly(x, y, **options) for x, y in pairs)),
        "torchmetrics": float(poly_mmd(torch.from_numpy(real), torch.from_numpy(own))),
    }
    for package, value in theirs.items():
        yield Row("KID", package, ours, float(value), SAME_FEATURES)


def manifold_rows() -> Iterator[Row]:
    real, own = features_of(700, 16, 1), 0.8 * features_of(600, 16, 2)
    precision, recall = manifold(own, real)
    found = float(precision_values(real, own).mean())
    yield Row("precision", "torch-fidelity", found, precision, SAME_FEATURES)
    found = recall_estimate(real, own, np.arange(600)).value
    yield Row("recall", "torch-fidelity", found, recall, SAME_FEATURES)


def write_images(folder: Path, seed: int) -> list[Path]:
    """PNGs of several sizes and modes, larger and smaller than the network's input."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    paths = []
    for k in range(NUM_IMAGES):
        width, height = int(generator.integers(120, 700)), int(generator.integers(120, 700))
        levels = generator.integers(0, 256, (5 + seed, 7, 3)).astype(np.uint8)
        image = Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)
        paths.append(folder / f"{k:03}.png")
        image.convert(("RGB", "RGBA", "L", "P")[k % 4]).save(paths[-1])
    return paths


def relative_error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def file_rows(work: Path) -> Iterator[Row]:
    """From files to features and to the distance, each package with its own file of weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = write_nvidia(work / NVIDIA)
    torch.save(fidelity_state(network), work / FIDELITY)
    paths = [write_images(work / name, seed) for seed, name in enumerate(("own", "real"))]
    model = Inception(load_network(work / NVIDIA), clean_resize, "cpu")
    ours, theirs = [], []
    for side in paths:
        inputs = torch.stack([clean_resize(Image.open(path)) for path in side])
        features = model.score_batch(inputs, [{}] * len(side)).features
        assert features is not None
        ours.append(features.numpy())
        theirs.append(clean_features(work, [str(path) for path in side]))
    for name, a, b in zip(("own", "real"), ours, theirs, strict=True):
        yield Row(f"features of {name}", "clean-fid", relative_error(a, b), 0, SAME_FILES)
    value = wide_distance(factored(gaussian_of(ours[1])), ours[0])
    yield Row(
        "FID of files", "clean-fid", value, DISTANCES["fid"]["clean-fid"](*theirs), SAME_FILES
    )
    fidelity = FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(work / FIDELITY)
    )
    levels = torch.stack([clean_resize(Image.open(path)).round() for path in paths[0]])
    inception = Inception(load_network(work / FIDELITY), clean_resize, "cpu")
    own = inception.score_batch(levels, [{}] * NUM_IMAGES).features
    assert own is not None
    with torch.inference_mode():
        b = fidelity(levels.to(torch.uint8))[0]
    error = relative_error(own.numpy(), b.numpy())
    yield Row("features at 299 px", "torch-fidelity", error, 0, SAME_FILES)


def compared(rows: Callable[[], Iterator[Row]]) -> list[Row]:
    """Without what the packages print."""
    with contextlib.redirect_stdout(io.StringIO()):
        return list(rows())


def main() -> int:
    """Print the table; 1 where a row lies beyond its tolerance."""
    with tempfile.TemporaryDirectory() as work:
        rows = [
            *compared(frechet_rows),
            *compared(kernel_rows),
            *compared(manifold_rows),
            *compared(lambda: file_rows(Path(work))),
        ]
    bad = 0
    for row in rows:
        # Of features `ours` is the error itself.
        error = row.ours if row.theirs == 0 else row.error
        bad += not error <= row.tolerance
        values = "" if row.theirs == 0 else f"{row.ours:.9g} {row.theirs:.9g}"
        print(f"{row.what:<20} {row.package:<15} {error:9.1e} of {row.tolerance:.0e}  {values}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
