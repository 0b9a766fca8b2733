"""What the vendors' packages said, at seeded weights, without the vendors: tests/golden/.

`nox -s parity` writes the files and compares every pair; here full-size networks score a few.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from parity.golden import Golden, Pair, read
from parity.images import write_images
from parity.ours import TOLERANCE, load, scores

# Of the full-size networks: enlarged, reduced, padded, cropped; modes; every kind of prompt.
FEW = {
    "hps_v21": ("tall.png", "sliver.png", "alpha.png", "palette.png", "rotated.jpg"),
    "image_reward": ("wide.png", "tiny.png", "alpha.png", "palette.png", "grey16.png"),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("images"))


def few(golden: Golden) -> list[Pair]:
    wanted = FEW.get(golden.scorer)
    return [pair for pair in golden.pairs if wanted is None or pair.image in wanted]


@pytest.mark.parametrize("scorer", ["hps_v21", "image_reward", "hps_v3"])
def test_scores_are_the_vendors(scorer: str, images: dict[str, Path], tmp_path: Path) -> None:
    golden = read(scorer)
    pairs = few(golden)
    assert len(pairs) >= 5
    ours = scores(golden, load(golden, tmp_path), pairs, images)
    spread = max(pair.score for pair in pairs) - min(pair.score for pair in pairs)
    assert spread > 100 * TOLERANCE[scorer], "so that agreement says something"
    for pair, value in zip(pairs, ours, strict=True):
        assert value == pytest.approx(pair.score, rel=0, abs=TOLERANCE[scorer]), pair
    for path in tmp_path.iterdir():
        path.unlink()  # gigabytes, of which pytest would keep three
