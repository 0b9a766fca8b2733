"""Statistics that others publish: taken over as they are, told as unknown, misfits refused."""

from __future__ import annotations

import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_run import DIM, make_run, make_suite
from PIL import Image
from test_reference_statistics import Corner, built, use_corner
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256, read_json, write_json
from ddmd_bench.measuring.aggregates import aggregate
from ddmd_bench.measuring.few_images import told_of_few
from ddmd_bench.measuring.folder import folder_problems
from ddmd_bench.measuring.reference import CARD, load_reference, read_card, statistics_problems
from ddmd_bench.measuring.reference_import import import_statistics
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.reporting.packs import opened_pack
from ddmd_bench.scorers import METRICS, SCORERS
from ddmd_bench.stages.pack import pack
from ddmd_bench.stages.report import report
from ddmd_bench.stages.verify import verify
from ddmd_bench.stats.distances import DISTANCES
from ddmd_bench.stats.frechet import RealFeatures
from ddmd_bench.suite.files import load_suite

GAUSSIAN_ALONE = ("fid", "fid_infinity")
OF_FEATURES = ("kid", "mifid", "precision", "recall", "density", "coverage")
NUM_FEATURES = 6  # of Corner, which stands for Inception here
MEAN, COV = np.arange(6.0), np.diag(np.arange(1.0, 7.0)) + 0.5


@pytest.fixture(autouse=True)
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "corner.pth"
    weights.write_bytes(b"weights")
    use_corner(weights, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load_reference.cache_clear()  # each test has a folder `kept` of its own


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for k in range(40):
        levels = generator.integers(0, 256, (5, 7, 3)).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{k:02}.png")
    return folder


def imported(
    path: Path, output: Path | str = "kept", scorer: str = "inception", **told: Any
) -> RealFeatures:
    folder = import_statistics(path, Path(output), scorer, told.get("num"), told.get("source", ""))
    return load_reference.__wrapped__(folder, scorer)


def saved(path: str, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return Path(path)


def run(*line: Any) -> Any:
    return CliRunner().invoke(app, [str(part) for part in line])


def value_of(features: Any, real: RealFeatures, metric: str = "fid") -> float:
    return DISTANCES[METRICS[metric].distance or ""].value(features, real)


def test_a_mean_and_a_covariance_give_the_distance_of_their_images(images: Path) -> None:
    """What is built here, written as others write it and taken over, is the same to the bit."""
    real = load_reference(built(images, Path("built")), "inception")
    assert real.fixed is not None
    path = saved("theirs.npz", mu=real.fixed.mean, sigma=real.fixed.cov)
    taken = imported(path, num=40)
    features = np.random.default_rng(1).normal(100, 30, (60, NUM_FEATURES))
    for metric in GAUSSIAN_ALONE:
        assert value_of(features, taken, metric) == value_of(features, real, metric)
        interval = DISTANCES[METRICS[metric].distance or ""].interval
        groups = np.arange(60) // 2
        assert interval(features, taken, groups, 0) == interval(features, real, groups, 0)
    assert taken.features.shape == (0, NUM_FEATURES)
    assert (taken.num_images, real.num_images) == (40, 40)
    assert imported(path, "unknown").num_images is None


def test_features_give_all_distances(images: Path) -> None:
    real = load_reference(built(images, Path("built")), "inception")
    np.savez_compressed("coco_clean_custom_na_kid.npz", feats=real.features)
    np.save("features.npy", real.features.astype(np.float64))
    hparams = {"nimages": 40}  # of dgm-eval, which pickles them
    np.savez("reps.npz", model="dinov2", reps=real.features.astype(float), hparams=hparams)  # type: ignore[arg-type]
    features = np.random.default_rng(1).normal(100, 30, (60, NUM_FEATURES))
    for k, name in enumerate(("coco_clean_custom_na_kid.npz", "features.npy", "reps.npz")):
        taken = imported(Path(name), f"kept{k}")
        np.testing.assert_array_equal(taken.features, real.features)
        assert taken.num_images == 40
        assert not statistics_problems(f"kept{k}", [*GAUSSIAN_ALONE, *OF_FEATURES])
        for metric in (*GAUSSIAN_ALONE, *OF_FEATURES):
            expected = value_of(features, real, metric)
            assert value_of(features, taken, metric) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(BenchError, match="features of 40 images, --num says 50"):
        imported(Path("features.npy"), "other", num=50)


LAYOUTS: dict[str, Callable[[str], None]] = {
    "pytorch-fid": lambda path: np.savez_compressed(path, mu=MEAN, sigma=COV),
    "pytorch-fid, before 0.3": lambda path: np.savez(path, mu=MEAN, sigma=COV),
    "clean-fid": lambda path: np.savez_compressed(
        path, mu=MEAN.astype(np.float32), sigma=COV.astype(np.float32)
    ),
    "EDM": lambda path: np.savez(path, mu=MEAN, sigma=COV),
    "ADM": lambda path: np.savez(
        path, mu=MEAN, sigma=COV, mu_s=np.zeros(9), sigma_s=np.full((9, 9), np.nan),
        arr_0=np.zeros((3, 8, 8, 3), np.uint8),
    ),
    "with what is no number beside": lambda path: np.savez(
        path, mu=MEAN, sigma=COV, labels=np.array([None])
    ),
    "big-endian, the other way round": lambda path: np.savez(
        path, sigma=np.asfortranarray(COV.astype(">f8")), mu=MEAN.astype(">f4")
    ),
}  # fmt: skip


@pytest.mark.parametrize("publisher", LAYOUTS)
def test_each_publishers_arrays_are_read(publisher: str) -> None:
    LAYOUTS[publisher]("theirs.npz")
    fixed = imported(Path("theirs.npz")).fixed
    assert fixed is not None
    np.testing.assert_array_equal(fixed.mean, MEAN)
    np.testing.assert_array_equal(fixed.cov, COV)
    np.testing.assert_allclose(fixed.factor @ fixed.factor.T, COV, rtol=1e-12)


def test_the_card_says_what_is_known_and_no_more() -> None:
    path = saved("theirs.npz", mu=MEAN, sigma=COV)
    imported(path)
    (row,) = read_card(Path("kept"))["scorers"].values()
    sha256 = file_sha256(path)
    assert row["imported"] == {"file": "theirs.npz", "sha256": sha256, "n": None, "source": ""}
    assert (row["weights"], row["protocol"]) == ({}, "")
    assert "versions" not in row
    assert [path.name for path in sorted(Path("kept").iterdir())] == [
        CARD,
        "inception.safetensors",
    ]


def test_a_folder_takes_those_of_other_scorers() -> None:
    imported(saved("a.npz", mu=MEAN, sigma=COV), num=30_000)
    card = read_card(Path("kept"))["scorers"]["inception"]
    imported(saved("b.npz", mu=MEAN + 1, sigma=COV), scorer="inception_patch")
    assert read_card(Path("kept"))["scorers"]["inception"] == card
    found = [load_reference(Path("kept"), name) for name in ("inception", "inception_patch")]
    assert [real.num_images for real in found] == [30_000, None]
    assert not statistics_problems("kept", ["fid", "patch_fid"])
    with pytest.raises(BenchError, match="has statistics of inception already"):
        imported(Path("a.npz"))


def test_what_is_built_and_what_is_imported_share_no_folder(images: Path) -> None:
    path = saved("a.npz", mu=MEAN, sigma=COV)
    with pytest.raises(BenchError, match="built from images that the imported ones need not be"):
        imported(path, built(images, Path("built")), "inception_patch")
    imported(path)
    with pytest.raises(BenchError, match="imported statistics of images that are not at hand"):
        built(images, Path("kept"), ["inception_patch"])


def written(**arrays: Any) -> Callable[[Path], Any]:
    return lambda path: saved(str(path), **arrays)


def cut(path: Path) -> None:
    saved(str(path), mu=MEAN, sigma=COV)
    path.write_bytes(path.read_bytes()[:-40])


def folded(path: Path) -> None:
    """Far more than it is: sparse zeros, and a header that says so."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feats.npy", bytes(2**26 + 1))


def holes(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array.flat[1] = value
    return array


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.write_text, (Path("traces"), "was here"))


MISFITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another width": (
        written(mu=np.zeros(112), sigma=np.eye(112)),
        r"mu is float64 \[112\]; .* \[6\], as inception has 6 .*those with 112 are efficientnet",
    ),
    "a width of nobody": (written(mu=np.zeros(5), sigma=np.eye(5)), "no other has as many"),
    "a covariance of another": (
        written(mu=MEAN, sigma=np.eye(5)), r"sigma is float64 \[5, 5\]; expected numbers \[6, 6\]"
    ),
    "variances alone": (written(mu=MEAN, sigma=np.ones(6)), r"sigma is float64 \[6\]"),
    "a number": (written(mu=np.float64(1), sigma=COV), r"mu is float64 \[\]"),
    "whole numbers": (written(mu=np.arange(6), sigma=COV), r"mu is int64 \[6\]"),
    "texts": (written(mu=np.array(list("abcdef")), sigma=COV), r"mu is <U1 \[6\]"),
    "NaN": (written(mu=holes(MEAN, np.nan), sigma=COV), "mu has values that are not finite"),
    "infinite": (written(mu=MEAN, sigma=holes(COV, np.inf)), "sigma has values that are not"),
    "asymmetric": (
        written(mu=MEAN, sigma=holes(COV, 0.6)), "sigma differs from its transpose by 0.1"
    ),
    "no covariance": (
        written(mu=MEAN, sigma=COV - 2 * np.eye(6)), "sigma has the eigenvalue -.*none below 0"
    ),
    "one image": (written(feats=np.ones((1, 6))), "features of 1 images; expected two or more"),
    "features of another": (
        written(feats=np.ones((9, 5))), r"feats is float64 \[9, 5\]; expected numbers \[n, 6\]"
    ),
    "images": (
        written(arr_0=np.zeros((3, 8, 8, 3), np.uint8)),
        "it holds arr_0; expected mu and sigma or feats or reps",
    ),
    "a mean alone": (written(mu=MEAN), "it holds mu; expected mu and sigma or feats"),
    "objects": (
        written(mu=np.array([Hostile()] * 6), sigma=COV), "object, neither numbers nor texts"
    ),
    "a pickle": (
        lambda path: path.write_bytes(pickle.dumps({"fid": {"mu": Hostile()}})),
        "a pickle; expected an npz or npy file. Pickles, as EDM2's .pkl, are programs",
    ),
    "an old pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 0)), "a pickle;"),
    "torch's": (
        lambda path: torch.save({"mu": torch.zeros(6)}, path), "it holds .*data.pkl.*; expected mu"
    ),
    "cut": (cut, "cut, or no npz file"),
    "empty": (lambda path: path.write_bytes(b""), "cut, or no npz file"),
    "no archive": (lambda path: path.write_text("mu sigma"), "cut, or no npz file"),
    "a bomb": (folded, "feats.npy would be 67108865 bytes, of [0-9]+ here"),
    "a folder": (Path.mkdir, "a folder"),
    "nothing": (lambda path: None, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_is_none_is_refused_and_nothing_is_written(misfit: str) -> None:
    write, said = MISFITS[misfit]
    path = Path("theirs.npz")
    write(path)
    with pytest.raises(BenchError, match=said) as raised:
        imported(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("kept").exists()
    assert not Path("traces").exists()


def test_rounding_is_no_misfit() -> None:
    """A covariance of fewer images than features, made in float32 from sums about 0."""
    x = np.random.default_rng(0).exponential(size=(4, 6)).astype(np.float32)
    mean = x.mean(0)
    cov = (x.T @ x - np.outer(mean, mean) * np.float32(4)) / np.float32(3)
    cov[0, 1] *= 1 + 1e-6
    fixed = imported(saved("theirs.npz", mu=mean, sigma=cov)).fixed
    assert fixed is not None
    np.testing.assert_array_equal(fixed.cov, fixed.cov.T)


def test_scorers_without_features_are_refused() -> None:
    path = saved("theirs.npz", mu=MEAN, sigma=COV)
    with pytest.raises(BenchError, match="unknown scorer 'inceptions'"):
        imported(path, scorer="inceptions")
    with pytest.raises(
        BenchError, match=r"scorer images has no features\. Those that have: attrib"
    ):
        imported(path, scorer="images")


def test_what_compares_single_features_is_refused_before_any_work(
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: dict[str, Any],
    write_suite: Callable[[Any], str],
) -> None:
    imported(saved("theirs.npz", mu=MEAN, sigma=COV))
    said = "kept has the mean and covariance of inception alone, as others publish them, and "
    assert not statistics_problems("kept", GAUSSIAN_ALONE)
    (problem,) = folder_problems([*GAUSSIAN_ALONE, *OF_FEATURES], "kept")
    assert f"{said}{', '.join(OF_FEATURES)} compare single features" in problem
    assert "Leave them out, or build statistics of the images: " in problem
    (problem,) = statistics_problems("kept", ["fid", "patch_fid"])
    assert "stats import FILE kept --scorer inception_patch" in problem
    monkeypatch.setattr(Corner, "preprocess", None)  # nothing may look at an image
    scored = run("score", images, "--metrics", "fid,kid", "--reference", "kept")
    assert scored.exit_code == 2
    assert f"{said}kid compare single features" in scored.stderr
    tiny["reference"]["statistics"] = "kept"
    tiny["metrics"] += ["fid", "recall"]
    with pytest.raises(BenchError, match=re.escape(f"{said}recall compare single features")):
        make_plan(load_suite(write_suite(tiny)), Path("runs"), Path("reports"))


def test_a_folder_is_scored_beside_them(images: Path) -> None:
    real = load_reference(built(images, Path("built"), num=20), "inception")
    assert real.fixed is not None
    imported(saved("theirs.npz", mu=real.fixed.mean, sigma=real.fixed.cov))
    imported(Path("theirs.npz"), "counted", num=5_000)
    found = {}
    for reference in ("built", "kept", "counted"):
        done = run("score", images, "--metrics", "fid", "--reference", reference)
        assert done.exit_code == 0, done.output
        record = read_json(Path("scores/images/aggregates.json"))
        found[reference] = record["metrics"]["fid"]["all"]
        told = "inception: the reference is 6 features of" in done.output
        assert told == ("imported_reference" in record) == (reference != "built")
    values = {name: (cell["value"], cell["low"], cell["high"]) for name, cell in found.items()}
    assert values["built"] == values["kept"] == values["counted"]
    assert "real images" not in found["kept"]["note"]
    assert "fewer than the 5,000 real images" in found["counted"]["note"]


def test_a_report_says_what_is_unknown_of_its_reference_and_is_packed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "attributes", replace(SCORERS["attributes"], num_features=DIM))
    imported(saved("theirs.npz", mu=np.zeros(DIM), sigma=np.eye(DIM)), scorer="attributes")
    students = {"dmd": {"method": "dmd"}, "ca_only": {"method": "ca_only"}}
    suite = make_suite([], students=students, reference={"statistics": str(tmp_path / "kept")})
    plan = make_run(tmp_path / "run", suite)
    record = report(plan)
    cell = record["table"]["dmd"]["frechet_attributes"]["all"]
    assert "real images" not in cell.get("note", "")
    (row,) = (d for d in record["differences"] if d["metric"] == "frechet_attributes")
    assert row["low"] < row["value"] < row["high"]
    said = f"Fréchet distance (attributes): the reference is {DIM} features of an unknown number of"
    for page in ("index.html", "report.md"):
        assert said in (plan.report_folder / page).read_text()
    pack(plan, tmp_path / "a.tar", [], lambda num_files, num_bytes: None)
    for folder in ("run", "kept"):
        shutil.rmtree(tmp_path / folder)
    load_reference.cache_clear()
    with opened_pack(tmp_path / "a.tar") as packed:
        assert verify(packed).wrong == []


def test_no_number_of_real_images_is_made_up() -> None:
    assert told_of_few("fid", 50_000, 2_048, None) == {}
    assert "fewer than the 2,048 features and" in told_of_few("fid", 9, 2_048, None)["note"]
    nobody = RealFeatures(np.empty((0, 3)), np.empty(0))  # real scenes of no prompt of a group
    assert nobody.num_images == 0


def test_no_distance_of_features_is_computed_of_none() -> None:
    real = imported(saved("theirs.npz", mu=MEAN, sigma=COV), num=100)
    features = np.random.default_rng(0).normal(size=(9, 6))
    groups = {"prompt_id": np.arange(9).astype(str)}
    measured: Any = SimpleNamespace(features={"inception": features}, table=pd.DataFrame(groups))
    inside = np.ones(9, bool)
    assert aggregate("fid", measured, inside, real, None).value > 0
    with pytest.raises(AssertionError, match="plan refuses kid of a Gaussian"):
        aggregate("kid", measured, inside, real, None)


def test_the_commands() -> None:
    path = saved("theirs.npz", mu=MEAN, sigma=COV)
    line = ["stats", "import", path, "reference_stats/coco", "--scorer"]
    done = run(*line, "inception", "--num", 30_000, "--source", "COCO 2014 val, from their page")
    assert done.exit_code == 0, done.output
    said = (
        "inception: 6 features of 30000 images, their mean and covariance alone; COCO 2014 val, "
        f"from their page; imported from theirs.npz {file_sha256(path)[:12]}. By which weights"
    )
    shown = run("stats", "show", "coco")
    assert shown.exit_code == 0
    assert said in done.output
    assert said in shown.output
    assert "comparable only where that was as here (clean-fid's resize to 299 px" in shown.output
    assert run(*line, "inception_patch").exit_code == 0
    shown = run("stats", "show", "coco").output
    assert "inception_patch: 6 features of an unknown number of images, their mean and" in shown
    assert "; source unknown; imported from" in shown
    again = run(*line, "inception")
    assert again.exit_code == 2
    assert "has statistics of inception already" in again.stderr
    (Path("reference_stats/coco") / "inception.safetensors").unlink()
    load_reference.cache_clear()  # as another process would find it
    lost = run("stats", "show", "coco")
    assert lost.exit_code == 2
    assert "stats import FILE reference_stats/coco --scorer inception" in lost.stderr


def test_an_imported_card_of_another_form_is_refused() -> None:
    imported(saved("theirs.npz", mu=MEAN, sigma=COV))
    card = read_card(Path("kept"))
    del card["scorers"]["inception"]["imported"]["n"]
    write_json(Path("kept") / CARD, card)
    with pytest.raises(BenchError, match=r"scorers\.inception\.imported has no 'n'"):
        read_card(Path("kept"))
