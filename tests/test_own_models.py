"""Whole runs of repositories that differ from the published ones, against diffusers' pipelines."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from changed_repositories import SCHEDULER, changed, with_vae
from diffusers import DiffusionPipeline
from PIL import Image
from test_export import exported, quiet, run_card
from test_real_models import make_suite

from ddmd_bench.data.images import image_generator, image_ids
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.encode import encode
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.train import train
from ddmd_bench.suite.files import load_suite

V = {"prediction_type": "v_prediction"}
MODELS: dict[str, Callable[[Path, Path], Path]] = {
    "v": lambda plain, to: changed(plain, to, {SCHEDULER: V}),
    "v, zero terminal SNR": lambda plain, to: changed(
        plain, to, {SCHEDULER: {**V, "rescale_betas_zero_snr": True}}
    ),
    "a fourfold VAE": lambda plain, to: with_vae(plain, to, 3),
    "a sixteenfold VAE": lambda plain, to: with_vae(plain, to, 5),
}
STEPS, SCALE = 3, 4.0


@pytest.fixture(scope="module", params=MODELS)
def plan(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A suite's teacher and its student, trained, exported as a whole and drawn."""
    folder = tmp_path_factory.mktemp("own")
    suite = make_suite("sdxl", folder)
    plain = folder / "repository"
    shutil.move(plain, folder / "plain")
    MODELS[request.param](folder / "plain", plain)
    suite["students"] = {
        "teacher": {"source": "teacher", "num_inference_steps": STEPS, "guidance_scale": SCALE},
        "student": {"method": "decoupled_hybrid_gan"},
    }
    suite["baseline"] = "student"
    suite["train"] |= {"num_iterations": 3, "t_list": [1.0, 0.6], "batch_size": 2}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    made = make_plan(load_suite(str(folder / "suite.yaml")), folder / "runs", folder / "reports")
    shared = made.shared("encode")
    assert shared is not None
    encode(made, shared, quiet)
    train(made, made.task("train", "student", 0), quiet)
    for name in suite["students"]:
        generate(made, made.task("generate", name, 0), quiet)
    return made


def images_of(plan: Plan, student: str) -> np.ndarray[Any, Any]:
    """Levels [n, H, W, 3], in the suite's order."""
    folder = plan.task("generate", student, 0).folder / "images"
    return np.stack([np.asarray(Image.open(f)).astype(int) for f in sorted(folder.glob("*.png"))])


def test_the_teacher_s_images_are_diffusers_own(plan: Plan) -> None:
    assert plan.suite.model.repository is not None
    pipeline = DiffusionPipeline.from_pretrained(plan.suite.model.repository)
    pipeline.set_progress_bar_config(disable=True)
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    drawn = pipeline(
        [image.prompt.text for image in images],
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        height=64,
        width=64,
        generator=[image_generator(0, image) for image in images],
        output_type="np",
    ).images
    found = images_of(plan, "teacher")
    assert found.shape == drawn.shape
    # Of 8 bits: a level, where rounding falls either way.
    assert np.abs(found - drawn * 255).max() <= 0.5 + 255e-5


def test_the_exported_student_draws_the_harness_s_image(plan: Plan, tmp_path: Path) -> None:
    """LCMScheduler keeps the repository's prediction type and its schedule."""
    drawn = np.asarray(run_card(exported(plan, "student", tmp_path / "exported"))).astype(int)
    found = images_of(plan, "student")[0]
    assert found.shape == drawn.shape == (64, 64, 3)
    assert np.abs(found - drawn).max() <= 1
    assert np.abs(images_of(plan, "teacher")[0] - drawn).max() > 1


def test_the_student_has_learned_finite_weights(plan: Plan) -> None:
    from safetensors.torch import load_file

    trained = load_file(plan.task("train", "student", 0).folder / "student.safetensors")
    start = plan.prepared().backend().load_teacher().state_dict()
    assert all(torch.isfinite(value).all() for value in trained.values())
    assert any(not torch.equal(trained[name], start[name]) for name in trained)
