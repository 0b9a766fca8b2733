"""What a repository says and nothing here can obey is refused, in words, before any work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import yaml
from changed_repositories import SCHEDULER, Changes, changed, without
from typer.testing import CliRunner

from ddmd_bench.backends import BACKENDS
from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.students.loaded import loaded_students
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model

WRITERS: dict[str, Callable[[Path], Path]] = {
    "sdxl": tiny_sdxl.write_repository,
    "sd15": tiny_sd15.write_repository,
    "lumina2": tiny_lumina2.write_repository,
}
INDEX, VAE, UNET = "model_index.json", "vae/config.json", "unet/config.json"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Configurations alone: no weights are read."""
    folder = tmp_path_factory.mktemp("refused")
    for name, write in WRITERS.items():
        whole = write(folder / "whole" / name)
        shutil.copytree(whole, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    return {name: folder / name for name in WRITERS}


def scheduler(kind: str) -> dict[str, Any]:
    return {"scheduler": ["diffusers", kind]}


# Backend, whose repository, what it says, and what is said of it.
REFUSED: dict[str, tuple[str, str, Changes, str]] = {
    "x0 predicted": (
        "sdxl",
        "sdxl",
        {SCHEDULER: {"prediction_type": "sample"}},
        r'says prediction_type: "sample", expected "epsilon" or "v_prediction"',
    ),
    "eps with zero terminal SNR": (
        "sdxl",
        "sdxl",
        {SCHEDULER: {"rescale_betas_zero_snr": True}},
        r"alpha is 0 at t = 1 .* works with prediction_type: v_prediction",
    ),
    "eps with a cosine schedule": (
        "sd15",
        "sd15",
        {SCHEDULER: {"beta_schedule": "squaredcos_cap_v2"}},
        "alpha is 5e-05 at t = 1",
    ),
    "eps with betas that leave no signal": (
        "sdxl",
        "sdxl",
        {SCHEDULER: {"trained_betas": [0.5] * 1000}},
        "alpha is 3e-151 at t = 1",
    ),
    "zero terminal SNR that nobody reads": (
        "sd15",
        "sd15",
        {SCHEDULER: {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}},
        "which PNDMScheduler does not read. Name EulerDiscreteScheduler",
    ),
    "EDM": (
        "sdxl",
        "sdxl",
        {INDEX: scheduler("EDMDPMSolverMultistepScheduler")},
        r'_class_name: "EDMDPMSolverMultistepScheduler".* another frame than the DDPM schedule',
    ),
    "flow matching": (
        "sd15",
        "sd15",
        {INDEX: scheduler("FlowMatchEulerDiscreteScheduler")},
        "another frame than the DDPM schedule",
    ),
    "flow matching by an option": (
        "sdxl",
        "sdxl",
        {
            INDEX: scheduler("DPMSolverMultistepScheduler"),
            SCHEDULER: {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
        },
        r"prediction_type(.|\n)*use_flow_sigmas",
    ),
    "continuous times": (
        "sdxl",
        "sdxl",
        {SCHEDULER: {"timestep_type": "continuous"}},
        'expected "discrete"; the network would read other times',
    ),
    "inpainting": ("sdxl", "sdxl", {UNET: {"in_channels": 9}}, "reads 9 channels and predicts 4"),
    "editing": ("sd15", "sd15", {UNET: {"in_channels": 8}}, r"reads 8 channels .* editing"),
    "a learned variance": ("sdxl", "sdxl", {UNET: {"out_channels": 8}}, "predicts 8"),
    "another VAE's latents": (
        "sdxl",
        "sdxl",
        {VAE: {"latent_channels": 16}},
        "latents have 16 .* that the model was trained with",
    ),
    "another kind of VAE": (
        "sdxl",
        "sdxl",
        {VAE: {"_class_name": "AutoencoderTiny"}},
        'expected "AutoencoderKL"',
    ),
    "a shift that the pipeline does not read": (
        "sdxl",
        "sdxl",
        {VAE: {"shift_factor": 0.1}},
        r"shift_factor: 0.1, expected null or 0",
    ),
    "statistics that the pipeline does not read": (
        "sd15",
        "sd15",
        {VAE: {"latents_mean": [0.0] * 4}},
        "latents_mean",
    ),
    "guidance as an input": (
        "sdxl",
        "sdxl",
        {UNET: {"time_cond_proj_dim": 256}},
        "source: checkpoint, format: unet, embedded_guidance_scale",
    ),
    "classes": ("sdxl", "sdxl", {UNET: {"class_embed_type": "timestep"}}, "no prompt gives"),
    "a refiner's score": (
        "sdxl",
        "sdxl",
        {UNET: {"projection_class_embeddings_input_dim": 5 * 8 + 32}},
        r"reads 72 values beside the time, .* has 80. A refiner",
    ),
    "a refiner": (
        "sdxl",
        "sdxl",
        {INDEX: {"_class_name": "StableDiffusionXLImg2ImgPipeline"}},
        "names a StableDiffusionXLImg2ImgPipeline, and backend sdxl expects a Stable.* pipeline",
    ),
    "embeddings of another width": (
        "sd15",
        "sd15",
        {UNET: {"cross_attention_dim": 48}},
        "of width 48, the text encoders give 32",
    ),
    "no second encoder": (
        "sdxl",
        "sdxl",
        {INDEX: {"text_encoder_2": [None, None]}},
        "has no text_encoder_2",
    ),
    "tokenizers that differ": (
        "sdxl",
        "sdxl",
        {"tokenizer/tokenizer_config.json": {"model_max_length": 40}},
        "cut prompts at 40 and 77 tokens",
    ),
    "a tokenizer beyond its encoder": (
        "sd15",
        "sd15",
        {"tokenizer/tokenizer_config.json": {"model_max_length": 248}},
        "the text encoder reads 77 tokens at most",
    ),
    "SDXL as SD 1.5": ("sd15", "sdxl", {}, "Take backend: sdxl"),
    "SD 1.5 as SDXL": ("sdxl", "sd15", {}, "Take backend: sd15"),
    "Lumina's other schedulers": (
        "lumina2",
        "lumina2",
        {INDEX: scheduler("FlowMatchHeunDiscreteScheduler")},
        'expected "FlowMatchEulerDiscreteScheduler"',
    ),
    "Lumina's noise of no seed": (
        "lumina2",
        "lumina2",
        {SCHEDULER: {"stochastic_sampling": True}},
        "stochastic_sampling.* Set it to false",
    ),
    "Lumina's levels the other way": (
        "lumina2",
        "lumina2",
        {SCHEDULER: {"invert_sigmas": True}},
        "from image to noise",
    ),
    "Lumina without a shift": (
        "lumina2",
        "lumina2",
        {VAE: {"shift_factor": None}},
        "no shift_factor, which Lumina2Pipeline adds",
    ),
    "Lumina's width": (
        "lumina2",
        "lumina2",
        {"text_encoder/config.json": {"hidden_size": 24}},
        "of width 16, the text encoder gives 24",
    ),
}


@pytest.mark.parametrize(("backend", "base", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_a_model_is_refused(
    backend: str,
    base: str,
    changes: Changes,
    message: str,
    repositories: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = changed(repositories[base], tmp_path / "changed", changes)
    with pytest.raises(BenchError, match=message) as raised:
        BACKENDS[backend](Model(repository=str(folder), resolution=64))
    assert str(folder) in str(raised.value)
    BACKENDS[base](Model(repository=str(repositories[base]), resolution=64))  # as it was


def test_a_schedule_that_is_not_stated(repositories: dict[str, Path], tmp_path: Path) -> None:
    """diffusers' classes differ in what they take where a configuration is silent."""
    folder = changed(repositories["sdxl"], tmp_path / "changed", {})
    without(folder, SCHEDULER, "beta_start")
    with pytest.raises(BenchError, match="does not say beta_start"):
        BACKENDS["sdxl"](Model(repository=str(folder), resolution=64))


@pytest.mark.parametrize(("num_blocks", "size", "nearest"), [(3, 60, 64), (4, 60, 64), (5, 72, 64)])
def test_a_size_of_no_whole_latents(
    num_blocks: int, size: int, nearest: int, repositories: dict[str, Path], tmp_path: Path
) -> None:
    blocks = {VAE: {"block_out_channels": [8] * num_blocks}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", blocks)
    with pytest.raises(BenchError, match=f"resolution {size} is no multiple .* Take {nearest}"):
        BACKENDS["sdxl"](Model(repository=str(folder), resolution=size))


def test_all_that_is_wrong_is_said_at_once(repositories: dict[str, Path], tmp_path: Path) -> None:
    changes = {UNET: {"in_channels": 9, "time_cond_proj_dim": 8}, VAE: {"shift_factor": 1.0}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    with pytest.raises(BenchError) as raised:
        BACKENDS["sdxl"](Model(repository=str(folder), resolution=64))
    assert len(str(raised.value).splitlines()) == 3


def test_a_broken_configuration_is_named(repositories: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(repositories["sdxl"], tmp_path / "changed", {})
    (folder / SCHEDULER).write_text("{")
    with pytest.raises(BenchError, match=r"scheduler_config\.json: cut, or no JSON"):
        BACKENDS["sdxl"](Model(repository=str(folder), resolution=64))


def test_what_the_cache_of_the_hub_holds_is_read(
    repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a repository that is not here, only the published settings are known."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = Model(repository="owner/model", resolution=64)
    BACKENDS["sdxl"](model)
    place = tmp_path / "models--owner--model"
    wrong = {SCHEDULER: {"prediction_type": "sample"}}
    changed(repositories["sdxl"], place / "snapshots" / ("a" * 40), wrong)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    with pytest.raises(BenchError, match=r'owner/model: scheduler/.* "sample"'):
        BACKENDS["sdxl"](model)


def test_plan_says_it(
    repositories: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = changed(repositories["sdxl"], tmp_path / "changed", {UNET: {"in_channels": 9}})
    (tmp_path / "prompts.txt").write_text("a red cat\n")
    suite = {
        "name": "refused",
        "title": "Refused",
        "backend": "sdxl",
        "model": {"repository": str(folder), "resolution": 64},
        "prompts": {"some": {"source": "prompts.txt", "num_prompts": 1}},
        "students": {
            "teacher": {"source": "teacher", "num_inference_steps": 2, "guidance_scale": 4}
        },
        "baseline": "teacher",
        "metrics": ["saturation"],
    }
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    result = CliRunner().invoke(app, ["plan", "suite.yaml"])
    assert result.exit_code != 0
    assert "reads 9 channels and predicts 4" in " ".join(result.output.split())


def test_a_published_student_of_another_prediction_is_refused(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    """DMD2's UNet predicts eps; the suite's repository would have it sampled as v."""
    changes = {SCHEDULER: {"prediction_type": "v_prediction"}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    (tmp_path / "prompts.txt").write_text("a red cat\n")

    def refused(repository: Path) -> list[str]:
        suite = {
            "name": "published",
            "title": "Published",
            "backend": "sdxl",
            "model": {"repository": str(repository), "resolution": 64},
            "prompts": {"some": {"source": str(tmp_path / "prompts.txt"), "num_prompts": 1}},
            "students": {"dmd2": {"source": "published", "published": "dmd2"}},
            "baseline": "dmd2",
            "metrics": ["saturation"],
        }
        return loaded_students(Suite.model_validate(suite))[1]

    assert not refused(repositories["sdxl"])
    (problem,) = refused(folder)
    assert "students.dmd2: DMD2, 4 steps was trained to predict eps" in problem
