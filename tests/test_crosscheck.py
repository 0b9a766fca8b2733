"""`crosscheck` beside packages that are not the authors': the environment, what is asked, what is
said. With the authors' own it was run by hand, as `nox -s parity` is.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.measuring.reference_build import build
from ddmd_bench.measuring.reference_import import import_statistics
from ddmd_bench.scorers.weights import OWN_FOLDER
from ddmd_bench.stats.frechet import frechet_distance, gaussian_of
from ddmd_bench.suite.settings import DataSource
from ddmd_bench.vendors import asking, authors, environment
from ddmd_bench.vendors.catalogue import VENDORS, Vendor, vendor_problems
from ddmd_bench.vendors.qwen2_vl import write_base
from parity.images import write_images
from parity.qwen2_vl import architecture, write_tokenizer

PINNED = asking.pins()
# Stands where uv would: says what it did, and installs nothing.
UV = """#!{python}
import os, sys, time
from pathlib import Path

with Path(os.environ["UV_CALLS"]).open("a") as calls:
    calls.write(sys.argv[1] + "\\n")
if sys.argv[1] == "venv":
    python = Path(sys.argv[-1], "bin", "python")
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\\nexec {python} "$@"\\n')
    python.chmod(0o755)
elif os.environ.get("UV_DOES") == "fails":
    sys.exit("resolving\\nerror: Failed to fetch torch: no route to host")
elif os.environ.get("UV_DOES") == "hangs":
    time.sleep(60)
"""
# Stands where `authors.py` would, with what it is to say in a file beside it.
AUTHORS = """
import json, os, sys
from pathlib import Path
import numpy as np

here = Path(__file__).parent
told = json.loads((here / "told.json").read_text())
order, *jobs = sys.argv[1:]
if order == "check":
    for job in jobs:
        print(json.dumps({"job": job, **({"broken": told["broken"]} if "broken" in told else {})}))
    print(json.dumps({"versions": told["versions"]}))
    sys.exit()
request = json.load(sys.stdin)
(here / "request.json").write_text(json.dumps(request))
if told.get("dies") == "killed":
    os.kill(os.getpid(), 9)
if "dies" in told:
    sys.exit(told["dies"])
if "features" in told:
    np.save(request["settings"]["features"], np.array(told["features"], np.float32))
    print(json.dumps({"done": len(request["images"])}))
    for package, value in told["values"].items():
        answer = {"metric": request["metrics"][0], "package": package, "value": value}
        print(json.dumps(answer))
else:
    for k, (path, prompt) in enumerate(request["images"]):
        print(json.dumps({"image": k, "value": told["values"][k], **told.get("notes", {})}))
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of calls of an installer that is no installer; a cache of its own."""
    place = tmp_path / "bin" / "uv"
    place.parent.mkdir()
    place.write_text(UV.format(python=sys.executable))
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UV_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "calls"


@pytest.fixture
def tell(uv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what the packages will say."""
    script = tmp_path / "fake" / "authors.py"
    script.parent.mkdir()
    script.write_text(AUTHORS)
    monkeypatch.setattr(asking, "AUTHORS", script)

    def told(**what: Any) -> None:
        (script.parent / "told.json").write_text(json.dumps({"versions": PINNED, **what}))

    told()
    return told


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every mode, none of them large."""
    folder = tmp_path_factory.mktemp("drawn")
    paths = write_images(folder)
    for name in ("large.png", "exact.png", "wide.png", "tall.png", "grey.png", "square.png"):
        paths[name].unlink()
    return folder


@pytest.fixture
def images(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, and metrics of ours that packages could compute."""
    folder = shutil.copytree(drawn, tmp_path / "images")
    monkeypatch.setitem(VENDORS, "high_frequency", Vendor(("one",), "hps_v2", 1e-6))
    monkeypatch.setitem(VENDORS, "prompt_accuracy", Vendor(("one",), "hps_v2", 1e-6))
    monkeypatch.setitem(
        VENDORS, "frechet_efficientnet", Vendor(("one", "two"), "distances", 1e-4, relative=True)
    )
    monkeypatch.chdir(tmp_path)
    return folder


def run(*arguments: Any) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["crosscheck", *map(str, arguments)])


def ours(folder: Path, tmp_path: Path) -> pd.DataFrame:
    """What our scorer says."""
    output = tmp_path / "ours"
    arguments = ["score", str(folder), "--metrics", "high_frequency", "--output", str(output)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return pd.read_parquet(output / "per_image.parquet")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def made(remake: bool = False) -> Path:
    """The environment's folder."""
    return environment.interpreter(lambda line: None, remake).parents[2]


def test_an_environment_is_made_once(uv: Path) -> None:
    lines: list[str] = []
    python = environment.interpreter(lines.append)
    assert python.is_file()
    assert "by uv, once, in" in lines[1]
    assert len(lines) == 3
    # Created, then what is installed with its dependencies, then what is without.
    assert uv.read_text().split() == ["venv", "pip", "pip"]
    assert environment.interpreter(lines.append) == python
    assert (len(lines), len(uv.read_text().split())) == (3, 3)
    record = json.loads((python.parents[2] / environment.MADE).read_text())
    assert record["installed_by"] == "uv"
    assert record["bytes"] > 0


PROCESS = """
from ddmd_bench.vendors.environment import interpreter
print(interpreter(lambda line: None))
"""


def start() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_of_two_processes_one_makes_it(uv: Path) -> None:
    said = [process.communicate(timeout=60)[0] for process in (start(), start())]
    assert said[0] == said[1] != ""
    assert uv.read_text().split() == ["venv", "pip", "pip"]


def test_one_that_was_killed_half_way_is_made_again(
    uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("UV_DOES", "hangs")
        process = start()
    folder, deadline = environment.environment_folder(), time.monotonic() + 60
    while not (uv.is_file() and "pip" in uv.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert (folder / "env-1").is_dir()
    assert not (folder / environment.MADE).exists()
    (folder / "env-1" / "half").touch()
    assert made() == folder
    assert not (folder / "env-1" / "half").exists()


def test_without_a_network_it_says_what_the_installer_said(
    tell: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DOES", "fails")
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 2
    assert "error: Failed to fetch torch: no route to host. It needs a network" in result.stderr
    folder = environment.environment_folder()
    assert not (folder / "env-1").exists()
    assert "resolving" in (folder / "install.log").read_text()
    monkeypatch.delenv("UV_DOES")
    assert made() == folder


def test_one_that_cannot_be_made_anew_leaves_the_one_before(
    uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment.interpreter(lambda line: None)
    with monkeypatch.context() as patched:
        patched.setenv("UV_DOES", "fails")
        with pytest.raises(BenchError, match="no route to host"):
            made(remake=True)
    assert environment.interpreter(lambda line: None) == python
    assert python.is_file()
    (environment.environment_folder() / environment.MADE).write_text("{")
    assert made(remake=True).joinpath("env-1").is_dir()


@pytest.mark.long
def test_pip_without_an_index_says_so(uv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name, value in {"NO_INDEX": "1", "CONFIG_FILE": os.devnull, "FIND_LINKS": ""}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(BenchError, match=r"pip could not make .*No matching distribution found"):
        made()
    assert not uv.exists()
    assert not (environment.environment_folder() / "env-1").exists()


def test_room_is_looked_at_before_anything_is_installed(
    uv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    told = r"no room on the disk: 1\.0 GB are free in .* takes up to \d+\.\d GB there\. Make room"
    with pytest.raises(BenchError, match=told):
        made()
    assert not uv.exists()


def test_a_broken_environment_is_named_with_what_to_do(tell: Any, images: Path) -> None:
    folder = made()
    again = f"Make it again: --remake, or delete {folder}"
    tell(broken="ImportError: libfoo.so")
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 2
    assert "is broken: for hps_v2: ImportError: libfoo.so. " + again in result.stderr
    tell(versions={**PINNED, "hpsv2": "1.1.0"})
    result = run(images, "--metrics", "high_frequency")
    assert f"hpsv2 {PINNED['hpsv2']} is pinned, found 1.1.0. {again}" in result.stderr
    (folder / "env-1" / "bin" / "python").unlink()
    result = run(images, "--metrics", "high_frequency")
    assert "it has no interpreter" in result.stderr
    assert again in result.stderr
    made(remake=True)
    assert not (folder / "env-1").exists()
    tell(dies="out of luck")
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 2
    told = "the authors' packages for high_frequency gave no answer: out of luck (exit code 1)"
    assert told in result.stderr
    tell(dies="killed")
    result = run(images, "--metrics", "high_frequency")
    assert "no word (exit code -9, killed, as where memory runs out)" in result.stderr


def test_what_cannot_be_done_is_said_before_anything_is_made(
    uv: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path / "none"))
    for arguments, told in {
        ("--metrics", "kid"): f"kid: none of the authors' packages computes it. Known: "
        f"{', '.join(VENDORS)}",
        ("--metrics", "hps_v22"): "Did you mean 'hps_v21'?",
        ("--metrics", "hps_v21"): "fetch --metrics NAMES",
        ("--metrics", "fid"): "give --reference",
        ("--metrics", "prompt_accuracy"): "attributes need each image's prompt. Give --prompts",
    }.items():
        result = run(images, *arguments)
        assert result.exit_code == 2, arguments
        assert told in result.stderr
    assert run(tmp_path / "no", "--metrics", "fid").exit_code == 2
    assert not uv.exists()


def test_weights_in_a_file_that_the_package_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights-inception-2015-12-05-6726825d.pth").touch()
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    (told,) = vendor_problems(["fid"], None)
    assert "reads inception-2015-12-05.pt alone" in told


def test_statistics_without_features_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VENDORS, "frechet_efficientnet", VENDORS["fid"])
    numbers = np.random.default_rng(0).standard_normal((300, 112)).astype(np.float32)
    np.savez(tmp_path / "gaussian.npz", mu=numbers.mean(0), sigma=np.cov(numbers.T))
    np.save(tmp_path / "features.npy", numbers)
    for file, told in ("features.npy", []), ("gaussian.npz", ["has the mean and covariance"]):
        folder = tmp_path / file.replace(".", "_")
        import_statistics(tmp_path / file, folder, "efficientnet", None, "")
        problems = vendor_problems(["frechet_efficientnet"], str(folder))
        assert len(problems) == len(told)
        assert all(part in problem for part, problem in zip(told, problems, strict=True))


def test_the_largest_difference_comes_first_and_decides(
    tell: Any, images: Path, tmp_path: Path
) -> None:
    values = ours(images, tmp_path).set_index("file_name")["high_frequency"].sort_index()
    moved = [*(values + np.arange(len(values)) * 1e-7)]
    tell(values=moved, notes={"note": "read twice"})
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 0, result.output
    rows = rows_of(Path("crosschecks/images/crosscheck.csv"))
    # The name that comes last was moved most.
    assert [row["file_name"] for row in rows] == [*values.index[::-1]]
    assert float(rows[0]["difference"]) == pytest.approx(-1e-7 * (len(values) - 1), rel=1e-6)
    assert float(rows[0]["theirs"]) == moved[-1]
    assert rows[-1]["note"] == "read twice"
    assert "7 of 7" in result.stdout
    tell(values=[*moved[:2], moved[2] + 2e-6, *moved[3:]])
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 1
    assert "too large" in result.stdout
    assert rows_of(Path("crosschecks/images/crosscheck.csv"))[0]["file_name"] == values.index[2]


def test_they_are_given_what_an_image_shows(tell: Any, images: Path, tmp_path: Path) -> None:
    (images / "black.png").write_bytes(b"")
    Image.new("RGB", (32, 32)).save(images / "black.png")
    tell(values=[0.0] * 7)
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 1
    request = json.loads((tmp_path / "fake" / "request.json").read_text())
    given = [Path(path) for path, _ in request["images"]]
    # What is the same everywhere has no value of ours: they are not asked.
    plain = {"alpha.png", "grey_alpha.png", "palette.png", "sliver.png", "tiny.png"}
    assert {path.name for path in given if path.parent == images} == plain
    assert len(given) == 7
    rows = {row["file_name"]: row for row in rows_of(Path("crosschecks/images/crosscheck.csv"))}
    for name in ("grey16.png", "rotated.jpg"):
        assert rows[name]["note"] == "upright copy with 8 bits a channel"
    assert rows["black.png"]["note"].startswith("constant image")
    assert (rows["black.png"]["ours"], rows["black.png"]["difference"]) == ("", "")
    assert "7 of 8" in result.stdout


def test_a_metric_without_any_difference_is_no_agreement(tell: Any, images: Path) -> None:
    tell(values=[None] * 7, notes={"note": "OSError: it cannot be read"})
    result = run(images, "--metrics", "high_frequency")
    assert result.exit_code == 2
    assert "high_frequency: nothing was compared: " in result.stderr


@pytest.mark.long
def test_distances_have_a_row_for_each_package_and_features_for_each_image(
    tell: Any, images: Path, tmp_path: Path
) -> None:
    folders = [noise(tmp_path / name, seed) for seed, name in enumerate(("own", "real"))]
    for folder in folders:
        source, place = DataSource(source=str(folder)), tmp_path / f"{folder.name}_statistics"
        build(source, place, ["efficientnet"], None, lambda done: None)
    statistics, own = tmp_path / "real_statistics", folders[0]
    features = np.load(tmp_path / "own_statistics" / "efficientnet.npy")
    real = gaussian_of(np.load(statistics / "efficientnet.npy"))
    value = frechet_distance(real, gaussian_of(features))
    arguments = ("--metrics", "frechet_efficientnet", "--reference", str(statistics))
    features[3, 5] += 0.5 * np.abs(features).max()
    tell(features=features.tolist(), values={"one": value * (1 + 1e-6), "two": value * 1.25})
    result = run(own, *arguments)
    assert result.exit_code == 1, result.output
    first, second, third, *rest = rows_of(Path("crosschecks/own/crosscheck.csv"))
    assert (first["metric"], first["file_name"]) == ("features of efficientnet", "003.png")
    assert (second["package"], second["file_name"]) == ("two", "all images")
    assert float(second["difference"]) == pytest.approx(-0.2)
    assert (third["package"], float(third["ours"])) == ("one", pytest.approx(value))
    assert len(rest) == NUM_NOISE - 1
    request = json.loads((tmp_path / "fake" / "request.json").read_text())
    assert request["settings"]["real"] == str(statistics / "efficientnet.npy")
    # Of too few images neither side has a distance.
    (few := tmp_path / "few").mkdir()
    for name in ("000.png", "001.png"):
        shutil.copy(own / name, few)
    tell(features=features[:2].tolist(), values={"one": 0.0, "two": 0.0})
    result = run(few, *arguments)
    assert result.exit_code == 2
    assert "frechet_efficientnet: nothing was compared: needs " in result.stderr


NUM_NOISE = 114  # more than EfficientNet has features


def noise(folder: Path, seed: int) -> Path:
    """Images that differ, of few pixels."""
    folder.mkdir()
    draws = np.random.default_rng(seed)
    for k in range(NUM_NOISE):
        levels = draws.integers(0, 100 + 50 * seed, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{k:03}.png")
    return folder


def test_what_a_package_throws_on_is_asked_again_in_rgb(images: Path, tmp_path: Path) -> None:
    def load(files: Any, settings: Any) -> Callable[[str, str], float]:
        def score(path: str, prompt: str) -> float:
            with Image.open(path) as image:
                if image.mode != "RGB":
                    raise ValueError("expected 3 channels")
            return 0.25

        return score

    said: list[Any] = []
    request = {"files": {}, "settings": {}, "scratch": str(tmp_path), "images": [
        [str(images / "tiny.png"), ""], [str(images / "alpha.png"), ""], [str(images / "no"), ""],
    ]}  # fmt: skip
    authors.say_scores(load, request, said.append)
    assert said[0] == {"image": 0, "value": 0.25}
    assert said[1]["value"] == 0.25
    assert said[1]["note"] == "in RGB: ValueError: expected 3 channels"
    assert said[2]["value"] is None
    assert said[2]["note"].startswith("FileNotFoundError")


def test_packages_that_are_not_there_are_told() -> None:
    said: list[Any] = []
    authors.check(["hps_v2"], said.append)
    assert said[0] == {"job": "hps_v2", "broken": "ModuleNotFoundError: No module named 'hpsv2'"}
    assert said[1]["versions"]["torch"] == version("torch")


def test_torchmetrics_is_handed_statistics_in_its_order() -> None:
    draws = np.random.default_rng(0)
    own, real = draws.normal(size=(40, 3)), 2 * draws.normal(size=(50, 3)) + 1
    theirs = authors.DISTANCES["fid"]["torchmetrics"](own, real)
    ours = frechet_distance(gaussian_of(real), gaussian_of(own))
    assert theirs == pytest.approx(ours, rel=1e-9)


def test_hpsv3_starts_from_our_architecture_and_its_own_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    write_base(tmp_path, architecture())
    config = json.loads((tmp_path / "config.json").read_text())
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    numbers = {token["content"]: token["id"] for token in tokens}
    assert config["image_token_id"] == numbers["<|image_pad|>"]
    assert config["rope_scaling"]["mrope_section"] == [2, 3, 3]
    assert config["vocab_size"] > architecture()["text_config"]["vocab_size"]
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["additional_special_tokens"][0] == "<|im_start|>"
