"""Likeness of a prompt's images: LPIPS is its authors', MS-SSIM torchmetrics'."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from ddmd_bench.errors import BenchError
from ddmd_bench.hub.hashes import remember_sha256
from ddmd_bench.measuring.doctor import examine
from ddmd_bench.measuring.measure import Images, measure
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.scorers import SCORERS
from ddmd_bench.scorers.likeness import FEWEST_PIXELS, load_lpips
from ddmd_bench.scorers.weight_files import ALEXNET
from ddmd_bench.scorers.weights import OWN_FOLDER, located, lpips_weights
from ddmd_bench.suite.files import load_suite

SIZE = 192


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's network with seeded weights, under its published name."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("alexnet") / ALEXNET.files[0]
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


@pytest.fixture
def published(alexnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded file in the place of the published one."""
    monkeypatch.setenv(OWN_FOLDER, str(alexnet.parent))
    remember_sha256(alexnet, f"{ALEXNET.sha256}{'0' * 56}")


def pictures(num: int, size: int = SIZE) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (num, 12, 12, 3)).astype(np.uint8)
    return [Image.fromarray(one).resize((size, size), Image.Resampling.BICUBIC) for one in small]


def stacked(model: Any, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([model.preprocess(image) for image in images])


def test_lpips_is_its_authors(alexnet: Path, published: None) -> None:
    """Over all pairs of five images: their network, its linear layers, our passes."""
    model = SCORERS["lpips_alex"].load("lpips_alex", "cpu", torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks torchvision in words of before
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(alexnet, weights_only=True)
    backbone = {
        name: state[f"features.{name.partition('.')[2]}"] for name in theirs.net.state_dict()
    }
    theirs.net.load_state_dict(backbone)
    inputs = stacked(model, pictures(5))
    images = inputs.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        expected = [
            theirs(images[i : i + 1], images[j : j + 1]).item()
            for i, j in combinations(range(5), 2)
        ]
    assert min(expected) > 0.001
    assert model.score_prompt(inputs) == {"lpips": pytest.approx(np.mean(expected), rel=1e-5)}
    assert model.score_prompt(inputs[[2, 2]])["lpips"] == pytest.approx(0, abs=1e-7)
    assert math.isnan(model.score_prompt(inputs[:1])["lpips"])


def test_ms_ssim_is_torchmetrics() -> None:
    model = SCORERS["ms_ssim"].load("ms_ssim", "cpu", torch.float32)
    inputs = stacked(model, pictures(4))
    images = inputs.permute(0, 3, 1, 2).float() / 255
    expected = [
        multiscale_structural_similarity_index_measure(
            images[i : i + 1], images[j : j + 1], data_range=1.0
        ).item()
        for i, j in combinations(range(4), 2)
    ]
    assert model.score_prompt(inputs) == {"ms_ssim": pytest.approx(np.mean(expected), rel=1e-5)}
    assert model.score_prompt(inputs[[1, 1, 1]])["ms_ssim"] == pytest.approx(1)
    model.preprocess(pictures(1, FEWEST_PIXELS)[0])
    with pytest.raises(BenchError, match="175 x 175 pixels: MS-SSIM compares at five scales"):
        model.preprocess(pictures(1, FEWEST_PIXELS - 1)[0])


def test_a_suite_of_smaller_images_is_refused_before_any_work(
    tiny: dict[str, Any], write_suite: Callable[[Any], str], tmp_path: Path
) -> None:
    suite = load_suite(write_suite(tiny), ("metrics=[prompt_accuracy, ms_ssim]",))
    told = "ms_ssim takes images of 176 pixels a side at least, the suite's have 32"
    with pytest.raises(BenchError, match=told):
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")


def test_a_prompt_has_one_value(published: None) -> None:
    """That of its images; a prompt of one image has none, and a run of such prompts goes on."""
    images = pictures(3)
    shown = [images[0], images[0], images[1], images[2], images[1]]
    prompts = ["alike", "alike", "unlike", "unlike", "single"]

    def table(rows: slice) -> Any:
        asked = [
            {"prompt_id": p, "prompt_set": "s", "prompt": p, "image_index": k, "out_of_range": 0.0}
            for k, p in enumerate(prompts[rows])
        ]
        names = [f"image {k}" for k in range(len(asked))]
        return measure(
            Images(asked, names, shown[rows].__getitem__), ["lpips", "ms_ssim"], "x"
        ).table

    found = table(slice(0, 5))
    assert found["lpips"][:2].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert found["ms_ssim"][:2].tolist() == pytest.approx([1, 1])
    assert found["lpips"][2] == found["lpips"][3] > 0
    assert found["ms_ssim"][2] == found["ms_ssim"][3] < 1
    assert found[["lpips", "ms_ssim"]].iloc[4].isna().all()
    assert table(slice(4, 5))["lpips"].isna().all()


def test_the_doctor_finds_it_healthy(published: None) -> None:
    findings = examine(["lpips_alex"])
    assert len(findings) == 2
    assert all(finding.passed for finding in findings), findings


def test_its_files_are_found_and_held(alexnet: Path, published: None, tmp_path: Path) -> None:
    assert lpips_weights().name == "alex.pth"
    assert located(ALEXNET)
    state = torch.load(alexnet, weights_only=True)
    del state["features.3.bias"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(BenchError, match=r"1 missing: features\.3\.bias"):
        load_lpips(tmp_path / "other.pth")
