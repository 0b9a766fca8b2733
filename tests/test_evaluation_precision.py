"""In half precision an evaluation draws the very images that generate draws of the same weights."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_sdxl
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from ddmd_bench.measuring.measure import Images, Measured, measure
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.encode import encode
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.suite.files import load_suite
from ddmd_bench.training import evaluation

PROMPTS = ["a red cat", "a small star on the left of a tree", "five letters"]
NUM_UPDATES, IMAGES_AT_ONCE = 2, 4
STUDENTS = {
    "full": {"method": "ca_only", "train": {"learning_rate": 0.01, "ema": 0}},
    "average": {"method": "ca_only", "train": {"learning_rate": 0.01}},
    "lora": {
        "method": "dmd",
        "train": {"lora_rank": 2, "learning_rate": 0.01, "fake_score_sees": "step"},
    },
}


def quiet(done: int, total: int) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, prompts and captions."""
    folder = tmp_path_factory.mktemp("sdxl")
    tiny_sdxl.write_repository(folder / "repository")
    for name, texts in {"prompts": PROMPTS, "captions": ["a cat", "two dogs"]}.items():
        (folder / f"{name}.txt").write_text("\n".join(texts))
    return folder


def planned(world: Path, dtype: str, *overrides: str) -> Plan:
    suite = {
        "name": f"evaluated_{dtype}",
        "title": "Tiny",
        "backend": "sdxl",
        "model": {
            "repository": str(world / "repository"),
            "resolution": 64,
            "images_at_once": IMAGES_AT_ONCE,
            "dtype": dtype,
        },
        "prompts": {
            "some": {
                "source": str(world / "prompts.txt"),
                "num_prompts": len(PROMPTS),
                "images_per_prompt": 2,
            }
        },
        "train_data": {"prompts": {"source": str(world / "captions.txt"), "num_prompts": 2}},
        "train": {
            "num_iterations": NUM_UPDATES,
            "t_list": [1.0, 0.6, 0.35],
            "batch_size": 3,
            "fake_score_updates": 1,
        },
        "evaluation": {
            "at": [NUM_UPDATES],
            "num_prompts": len(PROMPTS),
            "images_per_prompt": 2,
            "metrics": ["std"],
        },
        "students": STUDENTS,
        "baseline": "full",
        "metrics": ["mean", "std"],
    }
    path = world / f"{dtype}.yaml"
    path.write_text(yaml.safe_dump(suite))
    plan = make_plan(load_suite(str(path), overrides), world / "runs", world / "reports")
    for task in plan.of_stage("encode"):
        if not task.complete():
            encode(plan, task, quiet)
    return plan


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The pixels of the images that evaluations are given, while no other copy of them is kept."""
    found: list[np.ndarray] = []

    def seen(images: Images, *arguments: Any, **options: Any) -> Measured:
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
        unrounded = [t for t in tensors if t.shape[-3:] == (3, 64, 64) and t.is_floating_point()]
        assert not unrounded, "images are kept in 8 bits alone"
        found.extend(np.asarray(images.open(k)) for k in range(len(images.rows)))
        return measure(images, *arguments, **options)

    monkeypatch.setattr(evaluation, "measure", seen)
    return found


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("student", STUDENTS)
def test_it_draws_what_generate_draws(
    world: Path, drawn: list[np.ndarray], dtype: str, student: str
) -> None:
    plan = planned(world, dtype)
    task = plan.task("train", student, 0)
    assert task.inputs["evaluation"].get("dtype", "float32") == dtype
    train(plan, task, quiet)
    images = plan.task("generate", student, 0)
    generate(plan, images, quiet)
    files = sorted((images.folder / "images").glob("*.png"))
    expected = [np.asarray(Image.open(file)) for file in files]
    assert len(drawn) == len(expected) == 2 * len(PROMPTS)
    # In float32 a LoRA is not fused, and rounds otherwise.
    bound = 1 if (dtype, student) == ("float32", "lora") else 0
    for found, other in zip(drawn, expected, strict=True):
        assert np.abs(found.astype(int) - other.astype(int)).max() <= bound


@pytest.mark.long
@pytest.mark.parametrize("student", ["full", "lora"])
def test_the_weights_in_training_stay_what_they_are(world: Path, student: str) -> None:
    """An evaluation before the first update and after each: float32, and the same to the bit."""
    often = planned(world, "float16", "evaluation.at=[0, 1, 2]")
    never = planned(world, "float16", "evaluation=null")
    states = []
    for plan in (often, never):
        task = plan.task("train", student, 0)
        train(plan, task, quiet)
        states.append(load_file(task.folder / "student.safetensors"))
    for name, value in states[0].items():
        assert value.dtype == torch.float32
        assert torch.equal(value, states[1][name])
