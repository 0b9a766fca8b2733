"""DINOv2's features: a restated network, either file, the authors' positions; diversity in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import timm
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.measuring.measure import Images, measure
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.part import Downloads
from ddmd_bench.scorers import SCORERS, dinov2, needed_scorers, scorer_remotes
from ddmd_bench.scorers.dinov2 import positions
from ddmd_bench.scorers.weights import OWN_FOLDER
from ddmd_bench.stats.diversity import pairwise, vendi

TINY = "vit_small_patch14_dinov2"  # timm's, of 384 channels
GRID, SIDE, HEADS, BLOCKS = 37, 16, 6, 12  # patches a side in training and at 224 px


def weights() -> dict[str, Tensor]:
    """Seeded, as published: of 518 px, layer scales large enough that every block counts."""
    network = timm.create_model(TINY, pretrained=False, num_classes=0)
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.05 * torch.randn(value.shape, generator=generator)
        + (1.0 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")) else 0.0)
        for name, value in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with each of the two published files."""
    timms, authors = (tmp_path_factory.mktemp(name) for name in ("timm", "authors"))
    save_file(weights(), timms / "model.safetensors")
    torch.save(
        {**weights(), "mask_token": torch.zeros(1, 384)}, authors / "dinov2_vitl14_pretrain.pth"
    )
    return timms, authors


def loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(dinov2, "ARCHITECTURE", TINY)
    monkeypatch.setenv(OWN_FOLDER, str(folder))
    return SCORERS["dinov2"].load("dinov2", "cpu", torch.float32)


def restated(state: Mapping[str, Tensor], image: Tensor) -> Tensor:
    """The normalised class token of one image [3, 224, 224], by the formulas of a ViT."""

    def layer(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return unit * state[f"{name}.weight"] + state[f"{name}.bias"]

    patches = (
        image.unfold(1, 14, 14).unfold(2, 14, 14).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    )
    kernel = state["patch_embed.proj.weight"].flatten(1)
    tokens = patches @ kernel.T + state["patch_embed.proj.bias"]
    x = torch.cat([state["cls_token"][0], tokens]) + positions(state["pos_embed"], SIDE)[0]
    for k in range(BLOCKS):
        name = f"blocks.{k}"
        q, key, v = layer(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").chunk(3, 1)
        heads = []
        for part_q, part_k, part_v in zip(*(t.chunk(HEADS, 1) for t in (q, key, v)), strict=True):
            share = (part_q @ part_k.T / part_q.shape[1] ** 0.5).softmax(1)
            heads.append(share @ part_v)
        x = x + state[f"{name}.ls1.gamma"] * layer(torch.cat(heads, 1), f"{name}.attn.proj")
        hidden = layer(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + state[f"{name}.ls2.gamma"] * layer(hidden, f"{name}.mlp.fc2")
    return norm(x, "norm")[0]


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    return Image.fromarray(levels).convert(mode)


# The network


def test_it_is_the_restated_network_from_either_file(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(64, 48)
    pixels = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), np.float64) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    state = {name: value.double() for name, value in weights().items()}
    expected = restated(state, torch.from_numpy(normalised).permute(2, 0, 1))
    for folder in files:
        model = loaded(folder, monkeypatch)
        inputs = model.preprocess(image)
        found = model.score_batch(torch.stack([inputs, inputs]), [{}, {}]).features
        assert found.shape == (2, 384)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_an_image_of_any_mode_and_shape_is_read_whole(
    mode: str, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(300, 20, mode=mode)
    expected = image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    inputs = loaded(files[0], monkeypatch).preprocess(image)
    assert np.array_equal(inputs.numpy(), np.asarray(expected))


def test_positions_of_another_grid() -> None:
    """Those that are alike stay so, a ramp stays one, by the ratio that the authors take."""
    assert positions(torch.rand(1, 1 + SIDE**2, 5), SIDE).shape == (1, 1 + SIDE**2, 5)
    ramp = torch.arange(GRID, dtype=torch.float64).repeat_interleave(GRID)
    trained = torch.cat([torch.tensor([7.0]), ramp])[None, :, None].double()
    found = positions(trained, SIDE)[0, :, 0]
    assert found[0] == 7.0
    rows = found[1:].reshape(SIDE, SIDE)
    assert (rows - rows[:, :1]).abs().max() < 1e-4
    step = GRID / (SIDE + 0.1)  # not 37 / 16: the offset counts
    expected = (torch.arange(SIDE) + 0.5) * step - 0.5
    assert (rows[1:-1, 0] - expected[1:-1]).abs().max() < 0.1
    assert rows[8, 0] - rows[7, 0] == pytest.approx(step, abs=0.1)


def test_what_are_no_such_weights_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for state, said in (
        ({"pos_embed": torch.zeros(3)}, "no pos_embed of"),
        ({name: value for name, value in weights().items() if name != "norm.bias"}, "1 missing"),
    ):
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(BenchError, match=said):
            loaded(tmp_path, monkeypatch)


def test_either_file_alone_is_enough_without_network(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `score` takes of a folder, `run` does not ask for and `fetch` does not bring."""
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for folder in files:
        monkeypatch.setenv(OWN_FOLDER, str(folder))
        assert not scorer_remotes(["fd_dinov2"])
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    (remote,) = scorer_remotes(["fd_dinov2"])
    with pytest.raises(BenchError, match=r"model\.safetensors"):
        require_here(Downloads((remote,)))


# Diversity within a prompt


def test_images_alike_are_one_and_orthogonal_ones_as_many_as_they_are() -> None:
    alike = np.tile(np.random.default_rng(0).normal(size=7), (5, 1))
    assert (vendi(alike), pairwise(alike)) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert (vendi(3 * np.eye(6)), pairwise(np.eye(6))) == pytest.approx((6.0, 1.0))
    assert (vendi(np.eye(4)[[0, 0, 1, 1]]), pairwise(np.eye(2)[[0, 1]])) == pytest.approx(
        (2.0, 1.0)
    )
    assert math.isnan(vendi(alike[:1]))
    assert math.isnan(pairwise(alike[:1]))


@given(st.integers(2, 9), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_diversity_lies_between_one_and_all_whatever_their_lengths(
    k: int, d: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(k, d))
    assert 1 - 1e-9 <= vendi(features) <= min(k, d) + 1e-9
    assert -1e-9 <= pairwise(features) <= 2
    scaled = features * generator.uniform(0.1, 10, (k, 1))
    assert vendi(scaled[::-1]) == pytest.approx(vendi(features))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    shares = scipy.linalg.eigvalsh(unit @ unit.T / k)
    entropy = -sum(s * math.log(s) for s in shares if s > 0)  # as vendi_score.vendi has it
    assert vendi(features) == pytest.approx(math.exp(entropy))
    cosines = [unit[i] @ unit[j] for i in range(k) for j in range(i)]
    assert pairwise(features) == pytest.approx(1 - np.mean(cosines), abs=1e-12)


def test_a_prompt_has_one_value_that_stands_on_each_of_its_images(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that cannot be scored leaves the others' value, a single one leaves none."""
    loaded(files[0], monkeypatch)
    metrics = ["vendi_dinov2", "distance_dinov2"]
    assert needed_scorers(metrics) == ["dinov2"]
    prompts = ["alike", "alike", "unlike", "unlike", "unlike", "single"]
    pictures = [picture(32, 32, seed) for seed in (1, 1, 2, 3, 4, 5)]
    rows = [
        {"prompt_id": p, "prompt_set": "s", "prompt": p, "image_index": k, "out_of_range": 0.0}
        for k, p in enumerate(prompts)
    ]
    table = measure(
        Images(rows, [f"image {k}" for k in range(6)], pictures.__getitem__), metrics, "student"
    ).table
    assert table["vendi_dinov2"][:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    assert table["distance_dinov2"][:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    unlike = table["vendi_dinov2"][2:5].tolist()
    assert len(set(unlike)) == 1
    assert 1 < unlike[0] < 3
    assert math.isnan(table["vendi_dinov2"][5])
