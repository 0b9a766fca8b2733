"""FID's Inception-v3: either file, the same features; the resize restated; modes and sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ddmd_bench.errors import BenchError
from ddmd_bench.hub.hashes import remember_sha256
from ddmd_bench.scorers import SCORERS
from ddmd_bench.scorers.inception import (
    PREPROCESS,
    centre_patch,
    clean_resize,
    dmd2_resize,
    load,
)
from ddmd_bench.scorers.inception_network import load_network
from ddmd_bench.scorers.weight_files import INCEPTION
from ddmd_bench.scorers.weights import OWN_FOLDER, files_sha256, located, require
from parity.inception_files import FIDELITY, NVIDIA, NvidiaInception, fidelity_state, write_nvidia


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NvidiaInception]:
    folder = tmp_path_factory.mktemp("inception")
    network = write_nvidia(folder / NVIDIA)
    torch.save(fidelity_state(network), folder / FIDELITY)
    return folder, network


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    small = Image.fromarray(levels.astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def test_both_files_give_the_features_of_nvidias_network(
    files: tuple[Path, NvidiaInception], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = files
    monkeypatch.setenv(OWN_FOLDER, str(folder))
    inputs = torch.stack([clean_resize(picture(320, 240, k)) for k in range(2)])
    with torch.inference_mode():
        expected = network((inputs - 128) / 128)
        fidelity = load_network(folder / FIDELITY)((inputs - 128) / 128)
    # In the place of NVIDIA's own, the only ones that are loaded.
    remember_sha256(folder / NVIDIA, INCEPTION.sha256 or "")
    model = SCORERS["inception"].load("inception", "cpu", torch.float32)
    scored = model.score_batch(inputs, [{}, {}])
    assert not scored.columns
    assert scored.features is not None
    assert scored.features.shape == (2, 2048)
    scale = float(expected.abs().max())
    assert (scored.features - expected).abs().max() < 1e-5 * scale
    assert (fidelity - expected).abs().max() < 1e-5 * scale
    assert (expected[0] - expected[1]).abs().max() > 0.01 * scale  # it looks at the image
    alone = model.score_batch(inputs[1:], [{}])
    assert alone.features is not None
    assert (alone.features - expected[1]).abs().max() < 1e-5 * scale


def test_loading_is_strict(files: tuple[Path, NvidiaInception], tmp_path: Path) -> None:
    state = fidelity_state(files[1])
    path = tmp_path / "inception.pth"
    one = "Mixed_5b.branch1x1.conv.weight"
    for wrong, said in (
        ({k: v for k, v in state.items() if k != one}, f"1 missing: {one}"),
        ({**state, "fc2.bias": torch.zeros(3)}, "1 unexpected: fc2.bias"),
        ({**state, one: torch.zeros(64, 192, 3, 3)}, f"1 of another shape: {one}"),
        # torchvision's own weights have other names for the second head, and 1,000 classes.
        ({**state, "fc.bias": torch.zeros(1000)}, "1 of another shape: fc.bias"),
    ):
        torch.save(wrong, path)
        with pytest.raises(BenchError, match="not the Inception-v3") as caught:
            load_network(path)
        assert said in str(caught.value)


def test_either_file_will_do_and_its_hash_is_told(
    files: tuple[Path, NvidiaInception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "empty"))
    monkeypatch.setenv("HOME", str(tmp_path / "empty"))
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    assert not located(INCEPTION)
    with pytest.raises(BenchError, match=r"inception-2015-12-05\.pt \(or weights-.*fetch"):
        require(INCEPTION)
    (tmp_path / FIDELITY).write_bytes(b"other weights")
    assert set(located(INCEPTION)) == set(files_sha256(INCEPTION)) == {FIDELITY}
    with pytest.raises(BenchError, match="expected 6726825d"):
        require(INCEPTION)
    (tmp_path / NVIDIA).symlink_to(files[0] / NVIDIA)
    # TorchScript of anyone but NVIDIA is not loaded.
    with pytest.raises(BenchError, match="expected f58cb9b6"):
        load("inception", "cpu", torch.float32)
    remember_sha256((files[0] / NVIDIA).resolve(), INCEPTION.sha256 or "")
    assert set(require(INCEPTION)) == {NVIDIA}


# Resizes


def cubic(x: NDArray[Any]) -> NDArray[Any]:
    """Keys' kernel with a = -1/2, as Pillow's bicubic filter has it."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resize_matrix(before: int, after: int) -> NDArray[Any]:
    """Weights [after, before] of a resize whose support grows with the factor, written anew."""
    scale = before / after
    width = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    weights = cubic((np.arange(before) + 0.5 - centres[:, None]) / width)
    low = np.floor(centres - 2 * width + 0.5)[:, None]
    high = np.floor(centres + 2 * width + 0.5)[:, None]
    weights *= (np.arange(before) >= low) & (np.arange(before) < high)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(640, 427), (299, 512), (64, 100), (1024, 1024)])
def test_the_clean_resize_is_a_filter_that_grows(size: tuple[int, int]) -> None:
    image = picture(*size)
    levels = np.asarray(image, np.float64)
    rows, columns = resize_matrix(size[1], 299), resize_matrix(size[0], 299)
    expected = np.einsum("yh,hwc,xw->cyx", rows, levels, columns, optimize=True).clip(0, 255)
    found = clean_resize(image)
    assert found.shape == (3, 299, 299)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)
    assert float((found - found.round()).abs().max()) > 0.3  # no rounding to levels


def test_dmd2_takes_the_centre_and_rounds_once() -> None:
    image = picture(801, 600)
    square = image.crop((100, 0, 700, 600))  # a margin of 100.5 rounds to the even 100
    small = square.resize((512, 512), Image.Resampling.LANCZOS)
    assert torch.equal(dmd2_resize(image), clean_resize(small))
    at_size = picture(512, 512)
    assert torch.equal(dmd2_resize(at_size), clean_resize(at_size))


def test_a_patch_is_the_centres_own_pixels() -> None:
    image = picture(1024, 768)
    found = centre_patch(image).permute(1, 2, 0).numpy()
    # Margins 362.5 and 234.5, rounded to even.
    np.testing.assert_array_equal(found, np.asarray(image)[234 : 234 + 299, 362 : 362 + 299])
    small = picture(640, 213)  # as some photographs of COCO
    assert torch.equal(centre_patch(small), clean_resize(small))


@pytest.mark.parametrize("name", PREPROCESS)
@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_is_read_as_rgb(name: str, mode: str) -> None:
    image = picture(320, 310).convert(mode)
    if mode == "RGBA":
        image.putalpha(0)  # the colour under what is transparent counts, as in clean-fid
    found = PREPROCESS[name](image)
    assert torch.equal(found, PREPROCESS[name](image.convert("RGB")))
    assert math.isfinite(float(found.sum()))
    assert 0 <= float(found.min()) < float(found.max()) <= 255
