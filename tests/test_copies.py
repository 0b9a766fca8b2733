"""Near-duplicates: images that another prompt's image is a copy of, and SSCD's descriptor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Undecodable
from ddmd_bench.measuring.measure import Images, measure
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.scorers import METRICS, SCORERS, needed_scorers, sscd
from ddmd_bench.scorers.weight_files import SSCD
from ddmd_bench.scorers.weights import OWN_FOLDER
from ddmd_bench.stats import copies
from ddmd_bench.stats.copies import has_copy
from ddmd_bench.suite.files import load_suite

# copies by features


def test_a_copy_is_another_prompts_image_above_the_cosine() -> None:
    features = np.array([[1, 0], [3, 0.1], [0, 1], [0.1, 2], [-1, 0], [0, 0]])
    assert has_copy(features, list("abcdef"), 0.9).tolist() == [1, 1, 1, 1, 0, 0]
    assert has_copy(features, list("aacdef"), 0.9).tolist() == [0, 0, 1, 1, 0, 0]
    assert has_copy(features[:2], list("ab"), 1.0).tolist() == [0, 0]  # above, and not at


def test_what_is_not_known_is_nobodys_copy() -> None:
    features = np.array([[1.0, 0], [math.nan, 0], [1, 0]])
    found = has_copy(features, list("abc"), 0.5)
    assert found[[0, 2]].tolist() == [1, 1]
    assert math.isnan(found[1])
    # Of one prompt alone nobody asks: that is no 0.
    assert np.isnan(has_copy(features, list("aba"), 0.5)).all()
    assert np.isnan(has_copy(features[1:2], ["b"], 0.5)).all()
    assert has_copy(features[:0], [], 0.5).shape == (0,)


def test_each_image_is_held_against_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    features, prompts = draws.normal(size=(50, 4)), [str(k) for k in draws.integers(0, 20, 50)]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = [
        any(prompts[i] != prompts[j] and unit[i] @ unit[j] > 0.9 for j in range(50))
        for i in range(50)
    ]
    assert 0 < sum(expected) < 50
    for at_once in (1, 7, 50):
        monkeypatch.setattr(copies, "AT_ONCE", at_once)
        assert has_copy(features, prompts, 0.9).tolist() == expected


def test_a_student_that_draws_one_image_for_many_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """By EfficientNet's features, whose weights are here.

    Images of one prompt, under whatever number it is listed, are nobody's copies, nor are those
    that cannot be scored.
    """
    row = replace(METRICS["near_duplicates"], across=("efficientnet", 0.9999))
    monkeypatch.setitem(METRICS, "near_duplicates", row)
    assert needed_scorers(["near_duplicates"]) == ["efficientnet"]
    draws = np.random.default_rng(0)
    small = draws.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    pictures = [Image.fromarray(one).resize((64, 64), Image.Resampling.BICUBIC) for one in small]
    shown = [("a", 0), ("b", 0), ("c", 1), ("c", 1), ("d", 2), ("d", 3), ("e", 4), ("f", 0)]
    texts = {"d": "twice", "e": "twice"}
    rows: list[dict[str, Any]] = [
        {"prompt_id": p, "prompt_set": "s", "prompt": texts.get(p, p), "image_index": 0,
         "out_of_range": 0.0}
        for p, _ in shown
    ]  # fmt: skip

    def opened(k: int) -> Image.Image:
        if shown[k][0] == "f":
            raise Undecodable("cut")
        return pictures[shown[k][1]]

    names = [str(k) for k in range(len(shown))]
    found = measure(Images(rows, names, opened), ["near_duplicates"], "x").table["near_duplicates"]
    assert found[:7].tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert math.isnan(found[7])
    shown[6] = ("e", 2)  # as an image of d, whose text it has
    found = measure(Images(rows, names, opened), ["near_duplicates"], "x").table["near_duplicates"]
    assert found[:7].tolist() == [1, 1, 0, 0, 0, 0, 0]


# SSCD


def smaller(num_classes: int) -> ResNet:
    """Of the class of ResNet-50: a block where that has three to six, inside an eighth as wide."""
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes=num_classes, width_per_group=8)


def weights() -> dict[str, Tensor]:
    """Seeded, as the authors' file names them."""
    draws = torch.Generator().manual_seed(0)
    found = {}
    for name, value in smaller(512).state_dict().items():
        fan_in = value.shape[1:].numel()
        own = torch.randn(value.shape, generator=draws) / fan_in**0.5
        if name.endswith("running_var"):
            own = own.square() + 0.5
        if name.endswith("num_batches_tracked"):
            own = torch.tensor(7)
        found[f"backbone.{name}"] = own
    return found


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sscd.SscdFeatures:
    monkeypatch.setattr(sscd, "resnet50", smaller)
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    torch.save(weights(), tmp_path / SSCD.files[0])
    found = SCORERS["sscd"].load("sscd", "cpu", torch.float32)
    assert isinstance(found, sscd.SscdFeatures)
    return found


def restated(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The descriptor of normalised images [B, 3, H, W], by the formulas."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"{norm}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = F.max_pool2d(conv(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for k in range(1, 5):
        name, stride = f"layer{k}.0", 1 if k == 1 else 2
        y = conv(x, f"{name}.conv1", f"{name}.bn1").relu()
        y = conv(y, f"{name}.conv2", f"{name}.bn2", stride).relu()
        y = conv(y, f"{name}.conv3", f"{name}.bn3")
        x = (y + conv(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)).relu()
    pooled = x.clamp(min=1e-6).pow(3).mean((2, 3)) ** (1 / 3)
    found = pooled @ state["fc.weight"].T + state["fc.bias"]
    return found / found.norm(dim=1, keepdim=True)


def test_it_is_the_restated_network(model: sscd.SscdFeatures) -> None:
    draws = np.random.default_rng(0)
    image = Image.fromarray(draws.integers(0, 256, (48, 64, 4)).astype(np.uint8))
    read = image.convert("RGB").resize((320, 320), Image.Resampling.BILINEAR)
    inputs = model.preprocess(image)
    assert np.array_equal(inputs.numpy(), np.asarray(read))
    pixels = torch.from_numpy(np.asarray(read, np.float64) / 255)
    means, deviations = (torch.tensor(v).double() for v in (sscd.IMAGENET_MEAN, sscd.IMAGENET_STD))
    x = ((pixels - means) / deviations).permute(2, 0, 1)[None]
    state = {name.removeprefix("backbone."): v.double() for name, v in weights().items()}
    expected = restated(state, x)
    found = model.score_batch(torch.stack([inputs, inputs]), [{}, {}]).features
    assert found is not None
    assert found.shape == (2, 512)
    assert (found.double() - expected).abs().max() < 1e-4 * expected.abs().max()


def test_another_file_is_refused(model: sscd.SscdFeatures, tmp_path: Path) -> None:
    state = weights()
    del state["backbone.fc.bias"]
    torch.save(state, tmp_path / SSCD.files[0])
    with pytest.raises(BenchError, match=r"1 missing: fc\.bias"):
        SCORERS["sscd"].load("sscd", "cpu", torch.float32)


def test_values_that_change_with_others_settle_nothing(
    tiny: dict[str, Any], write_suite: Callable[[Any], str], tmp_path: Path
) -> None:
    settled = "until_settled={block: 2, metrics: [std], margins: {std: 0.1}}"
    suite = load_suite(write_suite(tiny), ("metrics=[std, near_duplicates]", settled))
    with pytest.raises(BenchError, match="until_settled: near_duplicates holds each image against"):
        make_plan(suite, tmp_path / "runs", tmp_path / "reports")
