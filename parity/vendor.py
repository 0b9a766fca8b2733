"""What the vendors' scripts share: the record of scores."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ddmd_bench.vendors.authors import Score
from parity import golden
from parity.cases import PAIRS
from parity.images import NOT_AS_SHOWN, as_shown, pixels_sha256, write_images
from parity.weights import SEED, Shapes, fold, shapes_sha256

SHARED = ("torch", "torchvision", "transformers", "pillow")


def record(
    scorer: str,
    packages: tuple[str, ...],
    shapes: Shapes,
    score: Score,
    vocabulary: Mapping[str, int] | None = None,
    pairs: Sequence[tuple[str, str]] = PAIRS,
) -> None:
    """Scores every pair of image file and prompt and writes the golden file.

    Where a file's pixels are not what it shows, the vendor is given a copy that is upright and has
    8 bits a channel; where it cannot read the file's mode, a copy in RGB. What it says of the file
    itself is recorded beside it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_images(Path(scratch))
        scored = []
        for name, prompt in pairs:
            pair = _scored(name, prompt, paths[name], score)
            print(f"{scorer:14} {name:16} {pair.score:12.8f}  {pair.of_file or ''}", flush=True)
            scored.append(pair)
        images = {name: pixels_sha256(path) for name, path in paths.items()}
    found = golden.Golden(
        scorer=scorer,
        versions={p: importlib.metadata.version(p) for p in (*packages, *SHARED)},
        weights_seed=SEED,
        shapes_sha256=shapes_sha256(shapes),
        shapes=fold(shapes),
        images=images,
        pairs=scored,
        vocabulary=dict(vocabulary or {}),
    )
    print(golden.write(found))


def _scored(name: str, prompt: str, path: Path, score: Score) -> golden.Pair:
    with torch.no_grad():
        try:
            of_file: float | str = score(str(path), prompt)
        except Exception as error:  # noqa: BLE001 - whatever the vendor throws is what is to be known
            of_file = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if isinstance(of_file, float) and name not in NOT_AS_SHOWN:
            return golden.Pair(name, prompt, "file", of_file)
        image = as_shown(path)
        copy = path.with_name(f"{path.stem}_copy.png")
        given = "as shown"
        if name not in NOT_AS_SHOWN:
            image, given = image.convert("RGB"), "in RGB"
        image.save(copy)
        return golden.Pair(name, prompt, given, score(str(copy), prompt), of_file)
