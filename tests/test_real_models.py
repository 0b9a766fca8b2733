"""Whole runs of real model families at tiny size, through the command as a user gives it.

Every method is trained, every format of a student trained elsewhere is loaded, images are drawn,
scored, reported and checked. The weights are random: no value here says anything of quality.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lumina2
import tiny_sdxl
import torch
import yaml
from lora_styles import pairs_of, peft_keys
from on_ranks import on_ranks
from PIL import Image
from safetensors.torch import save_file
from tiny_students import ATTENTION, kohya, make_pairs
from typer.testing import CliRunner

from ddmd_bench.commands.cli import app
from ddmd_bench.data import latents
from ddmd_bench.files import embeddings
from ddmd_bench.files.records import read_json, read_jsonl, write_jsonl
from ddmd_bench.files.shards import write_shard
from ddmd_bench.hub.hashes import remember_sha256
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.reporting.expected import write_expected
from ddmd_bench.scorers import loaded
from ddmd_bench.scorers.weight_files import INCEPTION
from ddmd_bench.stages import encode as stages_encode
from ddmd_bench.stages.encode import encode
from ddmd_bench.suite.schema import Suite
from parity.inception_files import NVIDIA, write_nvidia

PROMPTS = ["a red cat", "a small star on the left", "two dogs in the park"]


def photos(folder: Path, captions: list[str], key: str, num_each: int = 1) -> Path:
    """An imagefolder of noise pictures that are not square."""
    folder.mkdir()
    draws = np.random.default_rng(0)
    rows = []
    for k, caption in enumerate(c for c in captions for _ in range(num_each)):
        pixels = draws.integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
        rows.append({"file_name": f"{k}.png", key: caption})
    write_jsonl(folder / "metadata.jsonl", rows)
    return folder


def sdxl_students(folder: Path, repository: Path) -> dict[str, Any]:
    """A whole UNet as DMD2 publishes it; a LoRA, run as LCM's, Lightning's and Hyper-SD's.

    The LoRA also joins the UNet, which is then a folder.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(repository, subfolder="unet")
    state = {key: value.half() for key, value in unet.state_dict().items()}
    torch.save(state, folder / "dmd2_unet_fp16.bin")
    save_file(kohya(make_pairs(unet)), folder / "lora.safetensors")
    lora = {"repository": str(folder / "lora.safetensors"), "format": "lora"}
    unet.save_pretrained(folder / "unet")
    stacked = [{"repository": str(folder / "lora.safetensors"), "scale": 0.5}]
    whole = {"repository": str(folder / "unet"), "format": "unet", "num_inference_steps": 1}
    return {
        "styled": ({**whole, "scheduler": "lcm"}, stacked),
        "dmd2_unet": {
            "repository": str(folder / "dmd2_unet_fp16.bin"),
            "format": "unet",
            "scheduler": "lcm",
            "num_inference_steps": 4,
            "timesteps": [999, 749, 499, 249],
        },
        "lcm_lora": {**lora, "scheduler": "lcm", "num_inference_steps": 4},
        "lightning": {**lora, "scheduler": "euler_trailing", "num_inference_steps": 2},
        "hyper_sd": {**lora, "scheduler": "ddim_trailing", "num_inference_steps": 2},
    }


def lumina2_students(folder: Path, repository: Path) -> dict[str, Any]:
    """A pipeline of any architecture, at levels and a size of its own; a LoRA, a transformer."""
    from diffusers import Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel.from_pretrained(repository, subfolder="transformer")
    transformer.save_pretrained(folder / "transformer")
    pairs = pairs_of(transformer, ATTENTION)
    save_file(peft_keys(transformer, "transformer", pairs), folder / "lora.safetensors")
    lora = {"repository": str(folder / "lora.safetensors"), "format": "lora"}
    network = {"repository": str(folder / "transformer"), "format": "transformer"}
    whole = {"repository": str(repository), "format": "pipeline"}
    stacked = [{"repository": str(folder / "lora.safetensors"), "scale": 0.5}]
    return {
        "whole_pipeline": {**whole, "sigmas": [1.0, 0.5], "resolution": 32},
        "styled_pipeline": ({**whole, "num_inference_steps": 2}, stacked),
        "lora": {**lora, "num_inference_steps": 2},
        "transformer": ({**network, "num_inference_steps": 2}, stacked),
    }


FAMILIES: dict[str, tuple[Callable[..., Path], Callable[[Path, Path], dict[str, Any]]]] = {
    "sdxl": (tiny_sdxl.write_repository, sdxl_students),
    "lumina2": (tiny_lumina2.write_repository, lumina2_students),
}


def of_checkpoint(given: Any) -> dict[str, Any]:
    """A row of a suite, with LoRAs on top where they are given."""
    own, adapters = given if isinstance(given, tuple) else (given, [])
    return {"source": "checkpoint", "checkpoint": own, "adapters": adapters}


def make_suite(backend: str, folder: Path) -> dict[str, Any]:
    write_repository, students_of = FAMILIES[backend]
    repository = write_repository(folder / "repository")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    captions = [f"a cat number {k}" for k in range(8)]
    (folder / "captions.txt").write_text("\n".join(captions))
    given = students_of(folder, repository)
    return {
        "name": f"tiny_{backend}",
        "title": "Tiny",
        "backend": backend,
        "model": {"repository": str(repository), "resolution": 64, "images_at_once": 4},
        "prompts": {
            "some": {"source": str(folder / "prompts.txt"), "num_prompts": 3},
        },
        "train_data": {
            "prompts": {"source": str(folder / "captions.txt"), "num_prompts": 8},
            "images": {
                "source": str(photos(folder / "photos", captions, "caption")),
                "num_images": 6,
            },
        },
        "train": {"num_iterations": 1, "batch_size": 4, "fake_score_updates": 1},
        "students": {
            "teacher": {"source": "teacher", "num_inference_steps": 2, "guidance_scale": 4},
            **{name: {"method": name} for name in METHODS},
            "hybrid_lora": {"method": "decoupled_hybrid", "train": {"lora_rank": 2}},
            **{name: of_checkpoint(one) for name, one in given.items()},
            "elsewhere": {
                "source": "images",
                "images": str(photos(folder / "made", PROMPTS, "prompt", num_each=2)),
            },
        },
        "baseline": "dmd",
        "metrics": ["saturation", "mean", "std", "diversity", "high_frequency"],
    }


def add_fid(suite: dict[str, Any], folder: Path) -> None:
    """Metrics that compare with real photographs, by statistics built of them before the run."""
    write_nvidia(folder / "weights" / NVIDIA)
    # In the place of NVIDIA's own, the only ones that are loaded.
    remember_sha256(folder / "weights" / NVIDIA, INCEPTION.sha256 or "")
    real = photos(folder / "real", [f"number {k}" for k in range(12)], "caption")
    invoked("stats", "build", str(real), "reference_stats/tiny", "--scorers", "inception")
    suite["metrics"] += ["fid", "kid"]
    suite["reference"] = {"statistics": "tiny"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where commands run, in this process or another, with the weights in a folder of its own."""
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDMD_BENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded.cache_clear()
    yield tmp_path
    loaded.cache_clear()


def invoked(*arguments: str) -> str:
    """What a command prints, in this process: its imports are the greater part of a short one."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def run_as_a_user(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "ddmd_bench", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.long
@pytest.mark.parametrize("backend", ["sdxl", "lumina2"])
def test_a_whole_run(backend: str, folder: Path) -> None:
    suite = make_suite(backend, folder)
    if backend == "sdxl":
        add_fid(suite, folder)
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    said = run_as_a_user("run", str(path), "--workers", "1")
    examined = backend == "sdxl"  # the doctor has a task where a network scores
    num_tasks = examined + 1 + len(METHODS) + 1 + 2 * len(suite["students"])
    assert f"{num_tasks} tasks done, 0 were complete" in said

    record = read_json(folder / "reports" / suite["name"] / "report.json")
    for name, row in record["table"].items():
        for metric, cells in row.items():
            lost = metric == "saturation" and name == "elsewhere"
            assert (cells["all"]["value"] is None) == lost, (name, metric)
            assert cells["all"]["n_expected"] == (3 if metric == "diversity" else 6)
    facts = record["prompt_lists"]["some"]
    assert (facts["n"], facts["n_duplicates"], len(facts["sha256"])) == (3, 0, 64)
    page = (folder / "reports" / suite["name"] / "index.html").read_text()
    stacked = sum(bool(row.get("adapters")) for row in suite["students"].values())
    assert page.count("is drawn with LoRAs on top of its weights") == stacked > 0
    assert "real scenes share" not in page  # the suite has none
    assert "real scenes are the ceiling" not in page
    assert "Green frame" not in page  # no metric judges an image right or wrong
    evaluations = record["students"]["teacher"]["facts"]["network_evaluations"]
    assert evaluations == (4 if backend == "sdxl" else 2)  # of 2 steps Lumina's guides 0.25: none

    facts = record["students"]["elsewhere"]["facts"]
    assert (facts["sampled"], facts["resolution"]) == ("", [70, 90])
    assert "elsewhere: its images have 90 x 70 pixels, the suite&#39;s 64 x 64" in page
    if backend == "lumina2":
        facts = record["students"]["whole_pipeline"]["facts"]
        steps = "2 steps, sigmas 1.0, 0.5, no guidance"
        assert facts["sampled"] == f"scheduler own (FlowMatchEulerDiscreteScheduler), {steps}"
        assert facts["sampled"] in page
        assert "whole_pipeline: its images have 32 x 32 pixels" in page
        planned = invoked("plan", str(path))
        assert f"sampling of whole_pipeline: scheduler own, {steps}, 32 x 32 pixels" in planned

    # All students that are drawn here start from one noise: a folder's images are its own.
    (images,) = (folder / "runs" / suite["name"] / "generate").glob("elsewhere-*/images")
    rows = read_jsonl(images / "metadata.jsonl")
    assert [row["prompt"] for row in rows[::2]] == [r["prompt"] for r in rows[1::2]]
    again = invoked("run", str(path))
    assert "0 tasks done" in again
    assert "(unchanged)" in again

    expected = write_expected([record] * 3, folder)
    said = invoked("check", str(path), "--expected", str(expected))
    assert f"{suite['name']}: ok" in said


def encoded(suite: dict[str, Any], folder: Path) -> Any:
    """What the stage says of itself."""
    plan = make_plan(Suite.model_validate(suite), folder / "runs", folder / "reports")
    (task,) = plan.of_stage("encode")
    encode(plan, task, lambda done, total: None)
    return read_json(task.folder / "done.json")


def test_a_prompt_is_encoded_once_for_every_suite(tmp_path: Path) -> None:
    suite = make_suite("sdxl", tmp_path)
    suite["students"] = {"teacher": suite["students"]["teacher"]}
    suite |= {"baseline": "teacher", "train_data": None}
    first = encoded(suite, tmp_path)
    assert (first["n"], first["encoded"]) == (4, 4)  # '' is one
    other = {"source": str(tmp_path / "captions.txt"), "num_prompts": 2}
    more = {**suite, "name": "more", "prompts": {**suite["prompts"], "other": other}}
    second = encoded(more, tmp_path)
    assert (second["n"], second["encoded"]) == (6, 2)


def test_prompts_and_real_images_are_encoded_apart(tmp_path: Path) -> None:
    """One more prompt encodes no image, more images encode what is new, and no training moves."""
    suite = make_suite("sdxl", tmp_path)
    suite["students"] = {name: {"method": name} for name in ("dmd", "dmd2")}
    first = encoded(suite, tmp_path)
    assert (first["encoded"], first["encoded_images"]) == (first["n"], 6)
    again = encoded({**suite, "title": "Another"}, tmp_path)
    assert (again["encoded"], again["encoded_images"]) == (0, 0)

    (tmp_path / "prompts.txt").write_text("\n".join([*PROMPTS, "one more"]))
    some = {**suite["prompts"]["some"], "num_prompts": 4}
    more = {**suite, "prompts": {"some": some}}
    second = encoded(more, tmp_path)
    assert (second["n"], second["encoded"]) == (first["n"] + 1, 1)
    assert second["encoded_images"] == 0
    assert keys(more, tmp_path) == keys(suite, tmp_path)

    images = {**suite["train_data"]["images"], "num_images": 8}
    larger = {**suite, "train_data": {**suite["train_data"], "images": images}}
    third = encoded(larger, tmp_path)
    assert (third["encoded"], third["encoded_images"]) == (0, 2)  # the captions were there
    before, after = keys(suite, tmp_path), keys(larger, tmp_path)
    assert before["dmd"] == after["dmd"]  # no method without a GAN reads an image
    assert before["dmd2"] != after["dmd2"]


def encoded_in_small_shards(suite: dict[str, Any], folder: Path) -> tuple[Any, int]:
    """What the stage says of itself, and how many shards this rank has made."""
    num_shards = 0

    def counted(*of_shard: Any) -> Path:
        nonlocal num_shards
        num_shards += 1
        return write_shard(*of_shard)

    for module in (embeddings, latents):
        module.write_shard = counted  # type: ignore[attr-defined]
    stages_encode.SHARD_SIZE = latents.SHARD_SIZE = 2  # type: ignore[attr-defined, misc]
    return encoded(suite, folder), num_shards


@pytest.mark.long
def test_the_shards_of_an_encoding_are_dealt(tmp_path: Path) -> None:
    """Two ranks leave what one does: the same prompts and images with the same tensors."""
    suite = make_suite("sdxl", tmp_path)
    suite |= {"students": {"dmd2": {"method": "dmd2"}}, "baseline": "dmd2"}
    found = on_ranks(2, encoded_in_small_shards, suite, tmp_path / "two")
    one, _ = on_ranks(1, encoded_in_small_shards, suite, tmp_path / "one")[0]
    for name in ("n", "encoded", "encoded_images"):
        assert found[0][0][name] == one[name]
    shards = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert shards[0] == shards[1]
    nums = [num for _, num in found]
    assert sum(nums) == len(shards[0]) > max(nums)


def keys(suite: dict[str, Any], folder: Path) -> dict[str, str]:
    """Of the trainings, by student."""
    plan = make_plan(Suite.model_validate(suite), folder / "runs", folder / "reports")
    return {task.student: task.key for task in plan.of_stage("train")}
