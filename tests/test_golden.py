"""What the vendors' packages said, at seeded weights, without the vendors: tests/golden/.

`nox -s parity` writes the files and compares every pair; here full-size networks score a few.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ddmd_bench.files.decoding import decoded
from parity.cases import PAIRS
from parity.golden import Golden, Pair, read
from parity.images import NOT_AS_SHOWN, as_shown, pixels_sha256, write_images
from parity.ours import TOLERANCE, load, scores
from parity.weights import SEED, fold, seeded, shapes_sha256, unfold

# Of the full-size networks a few: extreme shapes, modes that a vendor reads in its own way, and the
# prompts that are long, in several scripts and with entities.
FEW = {
    "hps_v21": ("sliver.png", "alpha.png", "palette.png"),
    "image_reward": ("sliver.png", "tiny.png", "alpha.png", "palette.png"),
}
FIRST = [-1.0081995725631714, -1.0156545639038086]  # of the tensor layer.weight [2, 1]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_images(tmp_path_factory.mktemp("images"))


def few(golden: Golden) -> list[Pair]:
    wanted = FEW.get(golden.scorer)
    return [pair for pair in golden.pairs if wanted is None or pair.image in wanted]


@pytest.mark.long
@pytest.mark.parametrize("scorer", ["hps_v21", "image_reward", "hps_v3"])
def test_scores_are_the_vendors(scorer: str, images: dict[str, Path], tmp_path: Path) -> None:
    golden = read(scorer)
    pairs = few(golden)
    assert len(pairs) >= 3
    ours = scores(golden, load(golden, tmp_path), pairs, images)
    spread = max(pair.score for pair in pairs) - min(pair.score for pair in pairs)
    assert spread > 100 * TOLERANCE[scorer], "so that agreement says something"
    for pair, value in zip(pairs, ours, strict=True):
        assert value == pytest.approx(pair.score, rel=0, abs=TOLERANCE[scorer]), pair
    for path in tmp_path.iterdir():
        path.unlink()  # gigabytes, of which pytest would keep three


@pytest.mark.parametrize("scorer", list(TOLERANCE))
def test_a_golden_file_is_of_these_recipes(scorer: str, images: dict[str, Path]) -> None:
    golden = read(scorer)
    assert golden.weights_seed == SEED
    assert fold(unfold(golden.shapes)) == [tuple(row) for row in golden.shapes]
    assert shapes_sha256(unfold(golden.shapes)) == golden.shapes_sha256
    assert golden.images == {name: pixels_sha256(path) for name, path in images.items()}
    assert {(pair.image, pair.prompt) for pair in golden.pairs} <= set(PAIRS)


def test_an_image_is_decoded_as_it_is_shown(images: dict[str, Path]) -> None:
    for name, path in images.items():
        image, shown = decoded(path), as_shown(path)
        assert (image.mode, image.size) == (shown.mode, shown.size), name
        assert image.tobytes() == shown.tobytes(), name


@pytest.mark.parametrize("scorer", ["hps_v21", "image_reward", "hps_v3"])
def test_a_vendor_reads_other_pixels_than_are_shown(scorer: str) -> None:
    """Why the vendors are given a copy of these two, and ours the file."""
    for pair in read(scorer).pairs:
        if pair.image in NOT_AS_SHOWN:
            assert isinstance(pair.of_file, float)
            assert abs(pair.of_file - pair.score) > 100 * TOLERANCE[scorer]
        elif pair.given == "file":
            assert pair.of_file is None


def test_seeded_weights_have_the_scale_that_they_claim() -> None:
    weight, scale = seeded("layer.weight", (256, 64, 2)), seeded("norm.weight", (4096,))
    assert weight.std().item() * 128**0.5 == pytest.approx(1, rel=0.02)
    assert (scale.mean().item(), scale.std().item()) == pytest.approx((1, 0.1), rel=0.05)
    assert seeded("norm.bias", (4096,)).mean().item() == pytest.approx(0, abs=0.01)
    assert seeded("a.position_ids", (1, 5)).tolist() == [[0, 1, 2, 3, 4]]
    # Written down once, so that another machine's or torch's numbers would be told.
    assert seeded("layer.weight", (2, 1)).flatten().tolist() == pytest.approx(FIRST, rel=0, abs=0)


def test_a_tensor_depends_on_its_key_and_shape_alone() -> None:
    assert seeded("a", (8, 8)).equal(seeded("a", (8, 8)))
    assert not seeded("a", (8, 8)).equal(seeded("b", (8, 8)))
