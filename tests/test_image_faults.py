"""Detectors of broken images: closed forms, and images that have a fault or nearly have it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_run import make_run, make_suite
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.files.decoding import Blank, decoded
from ddmd_bench.measuring.measure import Images, measure
from ddmd_bench.measuring.one_pass import OnePass
from ddmd_bench.measuring.sheets import Item
from ddmd_bench.reporting import gate
from ddmd_bench.reporting.baselines import Baseline
from ddmd_bench.reporting.notes import gating, small_numbers
from ddmd_bench.reporting.record import build_record
from ddmd_bench.reporting.runfiles import load_run
from ddmd_bench.scorers import METRICS, SCORERS
from ddmd_bench.scorers import images as image_scorer
from ddmd_bench.scorers.blank import NEARLY, is_black, is_one_colour
from ddmd_bench.scorers.faults import (
    Faults,
    checkerboard,
    clipped_highlights,
    colour_cast,
    hsv_saturation,
    sharpness,
)
from ddmd_bench.scorers.pixels import signed

Detector = Callable[[Tensor], Tensor]
COLUMNS = SCORERS["faults"].columns
# CIELAB of sRGB's primaries under D65, as colour tables print them.
PRIMARIES = {
    (255, 0, 0): (80.09, 67.20),
    (0, 255, 0): (-86.18, 83.18),
    (0, 0, 255): (79.20, -107.86),
}


def of_colour(*colour: int, size: int = 16) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).expand(1, size, size, 3).contiguous()


def grey(levels: NDArray[np.float64]) -> Tensor:
    """[H, W] levels as an image [1, H, W, 3]."""
    rounded = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return torch.from_numpy(rounded)[None, ..., None].expand(-1, -1, -1, 3).contiguous()


def grid(size: int, cell: int = 1) -> NDArray[np.float64]:
    """-1 and 1 in cells of so many pixels."""
    y, x = np.indices((size, size)) // cell
    return 1.0 - 2 * ((x + y) % 2)


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def photograph() -> Tensor:
    """Matplotlib's sample photograph, 512 px of it: [1, 512, 512, 3]."""
    cbook = pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        pixels = np.array(Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels[None, :512, :512].copy())


def shifted(images: Tensor, by: NDArray[np.float64] | Sequence[float]) -> Tensor:
    """With so many levels added, clipped."""
    moved = images.double() + torch.as_tensor(np.asarray(by, float))
    return moved.round().clamp(0, 255).to(torch.uint8)


# closed forms


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_grey_image_has_no_colour_and_no_detail(level: int) -> None:
    found = Faults().score_batch(of_colour(level, level, level), [{}]).columns
    assert tuple(found) == COLUMNS
    values = {name: float(value) for name, value in found.items()}
    blank = {"black": float(level <= NEARLY), "one_colour": float(level > NEARLY)}
    expected = dict.fromkeys(COLUMNS, 0.0) | {"clipped_highlights": float(level == 255)} | blank
    assert values == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("colour", "expected"), PRIMARIES.items())
def test_pure_hues(colour: tuple[int, int, int], expected: tuple[float, float]) -> None:
    image = of_colour(*colour)
    assert hsv_saturation(image).item() == 1
    assert hsv_saturation(image // 5).item() == 1  # however dark
    cast = [value.item() for value in colour_cast(image)]
    assert cast == pytest.approx(expected, abs=0.03)  # of a matrix of four digits
    # Pixels count alike: with as many grey ones it is half of each.
    half = torch.cat([image, of_colour(90, 90, 90)], 1)
    assert hsv_saturation(half).item() == 0.5
    assert [2 * value.item() for value in colour_cast(half)] == pytest.approx(cast)
    assert clipped_highlights(image).item() == 0  # one channel alone is full


def test_a_linear_ramp_is_neither_sharp_nor_a_checkerboard() -> None:
    ramp = np.tile(np.arange(0, 160, 5.0), (20, 1))
    for image in (grey(ramp), grey(ramp.T)):
        assert sharpness(image).item() == pytest.approx(0, abs=1e-18)
        assert checkerboard(image).item() == 0


@pytest.mark.parametrize("size", [2, 16, 17])
@pytest.mark.parametrize("amplitude", [1, 100])
def test_a_checkerboard_is_all_checkerboard(size: int, amplitude: int) -> None:
    image = grey(128 + amplitude * grid(size))
    # Of odd sides the mean is not quite that of the two colours.
    assert checkerboard(image).item() == pytest.approx(1, abs=size % 2 / size**2)
    tinted = image.clone()
    tinted[..., 1] = 255 - tinted[..., 1]  # channels against each other
    assert checkerboard(tinted).item() == pytest.approx(1, abs=size % 2 / size**2)


@pytest.mark.parametrize("cell", [2, 4, 8])
def test_larger_cells_are_less_of_a_checkerboard(cell: int) -> None:
    found = checkerboard(grey(128 + 100 * grid(64 * cell, cell))).item()
    assert found == pytest.approx(1 / cell**2, rel=0.05)


def test_white_noise_is_a_quarter_checkerboard() -> None:
    assert checkerboard(noise(1, 256, 256, 3)).item() == pytest.approx(0.25, abs=0.005)


def test_the_share_of_clipped_pixels_is_counted() -> None:
    image = of_colour(10, 20, 30, size=10)
    image[0, :3, :4] = 255
    image[0, 5, 5] = torch.tensor([255, 255, 254])
    assert clipped_highlights(image).item() == 12 / 100


def test_a_gaussian_blur_costs_a_wave_the_known_share_of_its_sharpness() -> None:
    """A blur of sigma scales a wave of frequency w by exp(-(sigma w)^2 / 2)."""
    w, sigma, amplitude = 2 * math.pi / 16, 2.0, 100.0
    wave = 128 + amplitude * np.tile(np.sin(w * np.arange(512)), (64, 1))
    sharp = sharpness(grey(wave)).item()
    blurred = sharpness(grey(ndimage.gaussian_filter(wave, sigma, mode="wrap"))).item()
    # The Laplacian of the wave is -(2 - 2 cos w) of it; rounding to levels adds 20 / 12 at most.
    assert sharp == pytest.approx(amplitude**2 / 2 * (2 - 2 * math.cos(w)) ** 2, abs=2)
    assert blurred == pytest.approx(math.exp(-((sigma * w) ** 2)) * sharp, abs=2)


def test_saturation_equals_matplotlibs_hsv() -> None:
    colors = pytest.importorskip("matplotlib.colors")
    images = noise(3, 20, 30, 3)
    expected = colors.rgb_to_hsv(images.double().numpy() / 255)[..., 1].mean((1, 2))
    assert hsv_saturation(images).numpy() == pytest.approx(expected, rel=1e-12)


def test_sharpness_equals_scipys_laplacian() -> None:
    images = noise(3, 20, 30, 3)
    luma = images.double().numpy() @ [0.299, 0.587, 0.114]
    expected = [ndimage.laplace(one)[1:-1, 1:-1].var() for one in luma]
    assert sharpness(images).numpy() == pytest.approx(expected, rel=1e-12)
    assert torch.isnan(sharpness(images[:, :2])).all()


def test_the_checkerboard_is_the_frequency_response_of_its_filter() -> None:
    """By Parseval, of a periodic image: |H|^2 = sin^2(u / 2) sin^2(v / 2)."""
    tile = noise(1, 24, 24, 3)
    power = np.abs(np.fft.fft2(tile[0].double().numpy(), axes=(0, 1))) ** 2
    power[0, 0] = 0  # the mean
    response = np.sin(np.pi * np.fft.fftfreq(24)) ** 2
    expected = (power.sum(2) * np.outer(response, response)).sum() / power.sum()
    # So often that the edges, which have no window across them, hardly count.
    assert checkerboard(tile.tile(1, 40, 40, 1)).item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("detector", [hsv_saturation, clipped_highlights, sharpness, checkerboard])
def test_ranges_flips_and_batches(detector: Detector) -> None:
    images = torch.cat([noise(4, 21, 34, 3, seed=k) // (k + 1) for k in range(4)])
    images[5:9, 3:8] = 255
    found = detector(images)
    assert found.dtype == torch.float64
    assert found.shape == (16,)
    assert (found >= 0).all()
    assert detector is sharpness or (found <= 1).all()
    for dims in ((1,), (2,), (1, 2)):
        assert torch.allclose(detector(images.flip(dims)), found, rtol=1e-10)
    assert torch.allclose(detector(images.transpose(1, 2).contiguous()), found, rtol=1e-10)
    alone = torch.cat([detector(image[None]) for image in images])
    assert torch.allclose(alone, found, rtol=1e-12)


# images that have a fault, and images that nearly have it


def test_more_colour_is_seen_and_more_light_is_not() -> None:
    photo = photograph()
    middle = photo.double().mean(-1, keepdim=True)
    livelier = (middle + 1.3 * (photo - middle)).round().clamp(0, 255).to(torch.uint8)
    was = hsv_saturation(photo).item()
    assert hsv_saturation(livelier).item() > was + 0.05
    darker = (photo * 0.8).round().to(torch.uint8)
    assert hsv_saturation(darker).item() == pytest.approx(was, abs=0.005)


def test_a_cast_has_its_direction_and_a_brighter_image_has_none() -> None:
    photo = photograph()
    a, b = (value.item() for value in colour_cast(photo))
    for by, sign in (((12, 0, -12), 1), ((-12, 0, 12), -1)):
        warmer = colour_cast(shifted(photo, by))[1].item()
        assert sign * (warmer - b) > 4
    greener = colour_cast(shifted(photo, (-6, 6, -6)))[0].item()
    assert greener < a - 4
    # Below what is just seen: a brighter or livelier image of the same colours.
    brighter = [value.item() for value in colour_cast(shifted(photo, (8, 8, 8)))]
    assert brighter == pytest.approx([a, b], abs=1)


def test_white_is_clipped_and_nearly_white_is_not() -> None:
    assert clipped_highlights(of_colour(255, 255, 255)).item() == 1
    assert clipped_highlights(of_colour(254, 254, 254)).item() == 0
    assert clipped_highlights(of_colour(255, 255, 0)).item() == 0
    photo = photograph()
    over = clipped_highlights(shifted(photo, (60, 60, 60))).item()
    assert over > clipped_highlights(photo).item() + 0.04


def test_blur_is_seen_and_an_even_shift_is_not() -> None:
    photo = photograph()
    was = sharpness(photo).item()
    blurred = ndimage.gaussian_filter(photo.double().numpy(), (0, 1, 1, 0))
    assert sharpness(torch.from_numpy(blurred.round().astype(np.uint8))).item() < was / 4
    assert sharpness(photo // 2 + 60).item() == pytest.approx(was / 4, rel=0.05)


def test_a_faint_checkerboard_is_told_from_detail() -> None:
    """What the response of a Laplacian takes for the same thing."""
    photo = photograph()
    was = checkerboard(photo).item()
    assert was < 0.004
    assert checkerboard(shifted(photo, 8 * grid(512)[..., None])).item() > 4 * was
    lines = 8 * (1 - 2 * (np.arange(512) % 2.0))[:, None] * np.ones((1, 512))
    lined = shifted(photo, lines[..., None])
    assert checkerboard(lined).item() == pytest.approx(was, rel=0.1)
    fine = image_scorer.high_frequency
    assert fine(signed(lined)).item() > 1.5 * fine(signed(photo)).item()


def test_black_and_one_colour_reach_as_far_as_is_said() -> None:
    dark = noise(1, 16, 16, 3).numpy() % (NEARLY + 1)
    assert is_black(dark).tolist() == [True]
    assert is_one_colour(dark).tolist() == [False]  # black is told as such
    light = dark + 100
    assert is_one_colour(light).tolist() == [True]
    assert is_one_colour(light * np.uint8([1, 1, 2])).tolist() == [False]
    for pixels, nearly in ((dark, is_black), (light, is_one_colour)):
        pixels[0, 3, 3, 1] = pixels.min() + NEARLY + 1
        assert nearly(pixels).tolist() == [False]
    assert is_black(np.stack([dark[0], dark[0] * 0])).tolist() == [False, True]
    # Two colours are no one colour, and a gradient is none.
    halves = of_colour(40, 90, 200).numpy().copy()
    halves[:, :8] = 20
    assert is_one_colour(halves).tolist() == [False]
    assert is_one_colour(grey(np.tile(np.arange(16.0), (16, 1)) + 90).numpy()).tolist() == [False]


# images that are the same everywhere, through a pass, a report and a check


def test_a_blank_image_has_its_faults_and_no_other_value(tmp_path: Path) -> None:
    pixels = [noise(8, 8, 3).numpy(), np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200)]
    for k, one in enumerate(pixels):
        Image.fromarray(one.astype(np.uint8)).save(tmp_path / f"{k}.png")
    items = [Item(str(k), "", lambda k=k: decoded(tmp_path / f"{k}.png")) for k in range(3)]
    (found,) = OnePass(["images", "faults"]).over([items])
    assert found["images"].missing == {
        1: "constant image: every pixel is (0, 0, 0)",
        2: "constant image: every pixel is (200, 200, 200)",
    }
    assert not found["faults"].missing
    assert found["faults"].columns["black"].tolist() == [0, 1, 0]
    assert found["faults"].columns["one_colour"].tolist() == [0, 0, 1]


def test_a_file_that_is_no_image_has_no_faults_either(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no image")
    (found,) = OnePass(["faults"]).over([[Item("0", "", lambda: decoded(tmp_path / "0.png"))]])
    assert "cannot be decoded" in found["faults"].missing[0]


def test_a_student_of_black_images_alone_is_told_from_one_that_was_not_scored() -> None:
    rows = [
        {"prompt_id": str(k), "prompt_set": "", "prompt": "", "image_index": 0,
         "out_of_range": None} for k in range(3)
    ]  # fmt: skip

    def black(row: int) -> Image.Image:
        raise Blank(Image.new("RGB", (8, 8)))

    images = Images(rows, ["a", "b", "c"], black)
    found = measure(images, ["black", "sharpness"], "dmd")
    assert found.table["black"].tolist() == [1, 1, 1]
    with pytest.raises(BenchError, match="none of 3 images has a value; the first: constant image"):
        measure(images, ["black", "std"], "dmd")


def test_a_report_says_how_many_images_are_blank(tmp_path: Path) -> None:
    metrics = ["prompt_accuracy", "black", "one_colour", "sharpness"]
    plan = make_run(tmp_path, make_suite([], seeds=(0, 1), metrics=metrics))
    for student, seed, black in (("dmd", 0, 2), ("dmd", 1, 3), ("ca_only", 1, 0)):
        rescored(plan.task("score", student, seed).folder, black=black, one_colour=seed)
    for student in ("real", "teacher", "decoupled_hybrid"):
        for seed in (0, 1):
            rescored(plan.task("score", student, seed).folder, black=0, one_colour=0)
    rescored(plan.task("score", "ca_only", 0).folder, black=0, one_colour=0, without=True)
    record = build_record(load_run(plan))
    students = record["students"]
    assert students["dmd"]["blank_images"] == {
        "black": {"n": 5, "of": 160},
        "one_colour": {"n": 1, "of": 160},
    }
    assert "blank_images" not in students["teacher"]
    said = small_numbers(record)
    title = students["dmd"]["title"]
    assert f"{title}: 5 of 160 images are black and 1 of 160 images are of one colour." in said
    # Images without a value are not among those that are counted.
    assert students["ca_only"]["blank_images"] == {"one_colour": {"n": 1, "of": 150}}


def rescored(folder: Path, *, black: int, one_colour: int, without: bool = False) -> None:
    """A student's files with so many images of each kind; of 10 no value is known."""
    import pandas as pd

    table = pd.read_parquet(folder / "per_image.parquet")
    order = np.arange(len(table))
    table["black"] = (order < black).astype(float)
    table["one_colour"] = (order >= len(table) - one_colour).astype(float)
    if without:
        table.loc[:9, ["black", "one_colour"]] = math.nan
    table.to_parquet(folder / "per_image.parquet")


def test_check_counts_blank_images_without_a_margin_unless_a_suite_has_one(tmp_path: Path) -> None:
    """Of images that are all whole no margin could be taken, and too few would be the verdict."""
    metrics = ["prompt_accuracy", "clipped_highlights", "black", "one_colour", "sharpness"]
    suite = make_suite([], metrics=metrics)
    assert [*gate.margins_of(suite)] == ["prompt_accuracy", "clipped_highlights"]
    assert "Black images" not in gating(suite.model_dump(mode="json"))
    held = suite.model_dump(mode="json") | {"gate": {"black": {"margin": 0.05}}}
    assert "Black images by 5 points" in gating(held)
    suite = make_suite([], metrics=metrics, gate={"black": {"margin": 0.1}})
    plan = make_run(tmp_path / "run", suite)
    baseline = Baseline.of(load_run(plan))
    for number, status in ((0, "ok"), (40, "worse")):
        rescored(plan.task("score", "dmd", 0).folder, black=number, one_colour=0)
        if not number:
            baseline = Baseline.of(load_run(plan))
        found = gate.against_baseline(load_run(plan), baseline, [("dmd", "dmd")])
        assert found.status == status
    assert [one.name for one in found.failed] == ["dmd, Black images"]


def test_a_suite_without_a_better_direction_is_still_looked_at(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path, make_suite([], metrics=["sharpness", "black"])))
    found = gate.against_baseline(run, Baseline.of(run), [("dmd", "dmd")])
    assert found.status == "ok"
    assert {one.part for one in found.held} == {"pictures"}


def test_every_column_is_a_metric_of_pixels_alone() -> None:
    assert {METRICS[name].kind for name in COLUMNS} == {"image"}
    assert [name for name in COLUMNS if METRICS[name].better == "lower"] == [
        "clipped_highlights", "black", "one_colour",
    ]  # fmt: skip
    assert not SCORERS["faults"].weights
    assert not SCORERS["faults"].reads_prompts
