"""`plan`, `fetch` and a run as a user types them: a Hub, then none.

All that a suite names lies on a Hub of this machine: an SDXL of tiny size, a LoRA for it, captions
and photographs as data sets, a published list of prompts at its own commit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_sdxl
import yaml
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tiny_students import kohya, make_pairs
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data.prompt_catalogue import PROMPT_SOURCES
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_json
from ddmd_bench.planning.plan import make_plan, suite_downloads
from ddmd_bench.suite.files import load_suite
from tests.hub_server import Hub, client_of, serving

COMMIT = "a" * 40
SUITE = {
    "name": "fetched",
    "title": "Fetched",
    "backend": "sdxl",
    "model": {"repository": "tiny/sdxl", "resolution": 64, "images_at_once": 4},
    "prompts": {"drawbench": {"source": "drawbench", "num_prompts": 3, "images_per_prompt": 1}},
    "train_data": {
        "prompts": {
            "source": "tiny/captions",
            "column": "text",
            "revision": COMMIT,
            "num_prompts": 5,
        },
        "images": {
            "source": "tiny/photographs",
            "column": "text",
            "revision": COMMIT,
            "num_images": 4,
        },
    },
    "train": {"num_iterations": 1, "batch_size": 4, "fake_score_updates": 1},
    "students": {
        "teacher": {"source": "teacher", "num_inference_steps": 2, "guidance_scale": 4},
        "dmd2": {"method": "dmd2"},
        "lora": {
            "source": "checkpoint",
            "checkpoint": {
                "repository": "tiny/lora",
                "file": "lora.safetensors",
                "format": "lora",
                "scheduler": "lcm",
                "num_inference_steps": 2,
            },
        },
    },
    "baseline": "teacher",
    "metrics": ["mean", "std"],
}


def photographs(folder: Path) -> Path:
    """An imagefolder, as data sets of images lie on the Hub."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    for k in range(6):
        pixels = draws.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    table = {"file_name": [f"{k}.png" for k in range(6)], "text": [f"cat {k}" for k in range(6)]}
    pd.DataFrame(table).to_csv(folder / "metadata.csv", index=False)
    return folder


def make_hub(folder: Path) -> Hub:
    hub = Hub()
    repository = tiny_sdxl.write_repository(folder / "sdxl")
    hub.add_folder("tiny/sdxl", repository)
    (folder / "lora").mkdir()
    unet = UNet2DConditionModel.from_pretrained(repository, subfolder="unet")
    save_file(kohya(make_pairs(unet)), folder / "lora" / "lora.safetensors")
    hub.add_folder("tiny/lora", folder / "lora")
    captions = {"train.csv": b"text\n" + b"a cat\na dog\n" * 5}
    hub.add("datasets/tiny/captions", captions, known_as=COMMIT)
    pictures = photographs(folder / "photographs")
    hub.add_folder("datasets/tiny/photographs", pictures, known_as=COMMIT)
    row = PROMPT_SOURCES["drawbench"]
    table = {"Prompts": [f"thing {k}" for k in range(200)], "Category": "Colors"}
    listed = pd.DataFrame(table).to_csv(index=False).encode()
    hub.add(f"datasets/{row.repository}", {row.files[0]: listed}, known_as=str(row.revision))
    return hub


def ddmd_bench(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    own = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "HF_HOME": str(folder / "hf"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "COLUMNS": "400",
    }
    result = subprocess.run(
        [sys.executable, "-m", "ddmd_bench", *arguments],
        env={**os.environ, **own, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


@pytest.mark.long
def test_what_was_fetched_runs_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    with client_of(make_hub(tmp_path), tmp_path, monkeypatch) as hub:
        planned = CliRunner().invoke(app, ["plan", "suite.yaml"])
        assert planned.exit_code == 2, planned.output  # the prompts are not here yet
        said = planned.output
        assert "DrawBench, list: sayakpaul/drawbench@ad794cba698c  to download" in said
        assert "unet: tiny/sdxl@main  to download" in said
        refused = CliRunner().invoke(app, ["run", "suite.yaml"])
        assert refused.exit_code == 2
        assert "python -m ddmd_bench fetch suite.yaml" in refused.output
        assert not hub.bytes_served(".safetensors")
        there = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": ""}
        code, said = ddmd_bench(tmp_path, "fetch", "suite.yaml", **there)
        assert code == 0, said
        assert said.count("complete") >= 4
    code, said = ddmd_bench(tmp_path, "run", "suite.yaml", "--workers", "1", HF_HUB_OFFLINE="1")
    assert code == 0, said
    record = read_json(tmp_path / "reports" / "fetched" / "report.json")
    for name in SUITE["students"]:  # type: ignore[attr-defined]
        assert record["table"][name]["mean"]["all"]["n"] == 3
    assert record["prompt_lists"]["drawbench"]["revision"] == PROMPT_SOURCES["drawbench"].revision


def test_the_scorers_of_metrics_are_fetched_without_a_suite(tmp_path: Path) -> None:
    hub, images = Hub(), str(photographs(tmp_path / "images"))
    hub.add("xswu/HPSv2", {"HPS_v2.1_compressed.pt": b"weights", "HPS_v2_compressed.pt": b"older"})
    score = ("score", images, "--prompts", "prompts.txt", "--metrics", "hps_v21")
    code, said = ddmd_bench(tmp_path, *score, HF_HUB_OFFLINE="1")
    assert code == 2
    assert "`fetch --metrics NAMES`" in said
    with serving(hub):
        there = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": ""}
        code, said = ddmd_bench(tmp_path, "fetch", "--metrics", "hps_v21,mean", **there)
    assert code == 0, said
    assert "HPS v2.1: xswu/HPSv2@main  complete" in said
    assert not hub.bytes_served("HPS_v2_compressed")
    for wrong in ([], ["shapes", "--metrics", "mean"]):
        assert ddmd_bench(tmp_path, "fetch", *wrong) == (2, "fetch: give a suite, or --metrics\n")


def test_training_data_that_may_change_is_refused_before_a_download(tmp_path: Path) -> None:
    unpinned = {"source": "tiny/captions", "column": "text", "num_prompts": 5}
    suite = {**SUITE, "train_data": {"prompts": unpinned}}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    with pytest.raises(BenchError, match=r"train_data.prompts: tiny/captions.* need a revision"):
        suite_downloads(load_suite(str(path)))
    with pytest.raises(BenchError, match=r"prompts\.drawbench[\s\S]*need a revision"):
        make_plan(load_suite(str(path)), tmp_path / "runs", tmp_path / "reports")
