"""Every option of a checkpoint acts on every format, or is an error found in the plan."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_flux
import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import torch
from pydantic import ValidationError
from tiny_students import lcm_unet
from torch import Tensor

from ddmd_bench.backends.schedulers import new_scheduler
from ddmd_bench.data.images import ImageId, image_generator, image_noises
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.students.catalogue import PIPELINE, Sampling, StudentWeights
from ddmd_bench.students.loaded import loaded_students
from ddmd_bench.students.pipeline_calls import PipelineFiles, call_options
from ddmd_bench.students.pipelines import pipeline_draw
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.students.sources import own_noise
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.students import Checkpoint

WRITERS = {
    "sdxl": tiny_sdxl.write_repository,
    "sd15": tiny_sd15.write_repository,
    "lumina2": tiny_lumina2.write_repository,
    "flux": tiny_flux.write_repository,
}
IMAGES = [
    ImageId(Prompt(f"some/{k}", "some", text), 0)
    for k, text in enumerate(["a red cat", "two dogs"])
]
TEXTS = [image.prompt.text for image in IMAGES]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("repositories")
    return {name: write(root / name) for name, write in WRITERS.items()}


# ---- What a suite may say.

FILE = {"repository": "a.safetensors", "format": "unet"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "num_inference_steps is missing, or timesteps, or sigmas"),
        ({"timesteps": [999], "sigmas": [1.0]}, "give one of them"),
        ({"timesteps": [999, 499], "num_inference_steps": 4}, "4 num_inference_steps, but 2 times"),
        ({"timesteps": [499, 999]}, "timesteps must fall"),
        ({"sigmas": [1.0, 1.0]}, "sigmas must fall"),
        ({"sigmas": []}, "sigmas must fall"),
        ({"sigmas": [14.6, 1.0]}, "less than or equal to 1"),
        ({"num_inference_steps": 4, "lora_scale": 0.5}, "lora_scale: 0.5 with format unet, which"),
        ({"num_inference_steps": 4, "resolution": 0}, "greater than 0"),
    ],
)
def test_a_checkpoint_says_each_thing_once(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Checkpoint.model_validate({**FILE, **given})


def test_levels_count_the_steps() -> None:
    assert Checkpoint(**FILE, timesteps=[999, 499]).num_steps == 2
    assert Checkpoint(**FILE, sigmas=[1.0, 0.6, 0.3], num_inference_steps=3).num_steps == 3


# ---- What the plan refuses.


def refusals(repository: Path, backend: str, checkpoint: dict[str, Any]) -> list[str]:
    """What is wrong with a suite of one student."""
    suite = {
        "name": "one",
        "title": "One",
        "backend": backend,
        "model": {"repository": str(repository), "resolution": 64},
        "prompts": {"some": {"source": "drawbench", "num_prompts": 1}},
        "students": {"s": {"source": "checkpoint", "checkpoint": checkpoint}},
        "baseline": "s",
        "metrics": ["mean"],
    }
    return loaded_students(Suite.model_validate(suite))[1]


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no timesteps": (
        "lumina2", {"timesteps": [999, 500]}, r"Lumina2Pipeline takes no timesteps; give sigmas",
    ),
    "another kind": (
        "lumina2", {"scheduler": "lcm", "num_inference_steps": 2},
        "does not fit.*own, flow_euler, flow_euler_shift_3, flow_lcm",
    ),
    "a flow": (
        "sd15", {"scheduler": "flow_lcm", "num_inference_steps": 2}, "does not fit.*PNDMScheduler",
    ),
    "sigmas of noise": ("sdxl", {"sigmas": [1.0, 0.5]}, "sigmas are levels of flow matching"),
    "timesteps not followed": (
        "sdxl", {"scheduler": "ddim", "timesteps": [999, 499]}, "follows no explicit timesteps",
    ),
    "no such scheduler": (
        "sdxl", {"scheduler": "lmc", "num_inference_steps": 2}, "Did you mean 'lcm'",
    ),
    "no guidance input": (
        "sdxl", {"embedded_guidance_scale": 3.5, "num_inference_steps": 2}, "told no guidance",
    ),
    "half latents": ("sdxl", {"resolution": 60, "num_inference_steps": 2}, "no multiple of the 8 "),
    "half patches": (
        "lumina2", {"resolution": 72, "num_inference_steps": 2}, "no multiple of the 16 .*Take 64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_plan_refuses_what_a_pipeline_cannot_follow(
    case: str, repositories: dict[str, Path]
) -> None:
    backend, given, message = REFUSED[case]
    place = repositories[backend]
    (found,) = refusals(place, backend, {"repository": str(place), "format": "pipeline", **given})
    assert found.startswith("students.s: ")
    with pytest.raises(BenchError, match=message):
        raise BenchError(found)


OF_WEIGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"scheduler": "flow_euler", "num_inference_steps": 2}, "does not fit"),
    "sigmas of noise": ({"sigmas": [1.0, 0.5]}, "sigmas are levels of flow matching"),
    "timesteps": ({"scheduler": "ddim", "timesteps": [999, 1]}, "follows no explicit timesteps"),
    "half latents": ({"resolution": 60, "num_inference_steps": 2}, "no multiple"),
    "no guidance input": (
        {"embedded_guidance_scale": 3.5, "num_inference_steps": 2}, "no guidance input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OF_WEIGHTS)
@pytest.mark.parametrize("format", ["unet", "lora"])
def test_the_plan_refuses_the_same_of_weights(
    format: str, case: str, repositories: dict[str, Path]
) -> None:
    given, message = OF_WEIGHTS[case]
    place = repositories["sdxl"]
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    found = refusals(place, "sdxl", {"repository": str(file), "format": format, **given})
    assert len(found) == 1, found
    with pytest.raises(BenchError, match=message):
        raise BenchError(found[0])


def test_a_unet_that_is_told_its_guidance_asks_for_it(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    student = lcm_unet(tiny_sdxl.make_pipeline().unet)
    student.save_pretrained(tmp_path)
    given = {
        "repository": str(tmp_path / "diffusion_pytorch_model.safetensors"),
        "format": "unet",
        "scheduler": "lcm",
        "num_inference_steps": 2,
    }
    (found,) = refusals(repositories["sdxl"], "sdxl", given)
    assert "set embedded_guidance_scale" in found
    assert not refusals(repositories["sdxl"], "sdxl", {**given, "embedded_guidance_scale": 8.0})


def test_a_folder_that_is_no_pipeline_says_so(repositories: dict[str, Path]) -> None:
    unet = repositories["sdxl"] / "unet"
    given = {"repository": str(unet), "format": "pipeline", "num_inference_steps": 2}
    (found,) = refusals(repositories["sdxl"], "sdxl", given)
    assert "has no model_index.json" in found


# ---- Guidance, by what the network and the call know.

TOLD, UNTOLD = {"guidance_embeds": True}, {"guidance_embeds": False}
LCM = {"time_cond_proj_dim": 8}
GUIDED: dict[str, tuple[str, dict[str, Any], Sampling, dict[str, Any]]] = {
    "none": ("StableDiffusionXLPipeline", {}, Sampling("own", 4), {"guidance_scale": 0.0}),
    "real": (
        "StableDiffusionXLPipeline", {}, Sampling("own", 4, None, 5.0), {"guidance_scale": 5.0},
    ),
    "lcm": (
        "StableDiffusionXLPipeline", LCM, Sampling("own", 4, embedded_guidance_scale=8.0),
        {"guidance_scale": 8.0},
    ),
    "flux": (
        "FluxPipeline", TOLD, Sampling("own", 4, None, 2.0, 3.5),
        {"guidance_scale": 3.5, "true_cfg_scale": 2.0},
    ),
    "schnell": ("FluxPipeline", UNTOLD, Sampling("own", 4), {"true_cfg_scale": 1.0}),
    "qwen": ("QwenImagePipeline", UNTOLD, Sampling("own", 4), {"true_cfg_scale": 1.0}),
}  # fmt: skip


def files_of(class_name: str, network: dict[str, Any]) -> PipelineFiles:
    return PipelineFiles(class_name, "transformer", {"patch_size": 2, **network}, {}, {})


def row_of_pipeline(sampling: Sampling, repository: str = "", size: int = 64) -> StudentWeights:
    return StudentWeights(
        "mine", "pipeline", "pipeline", repository, sampling, base=repository, resolution=size
    )


@pytest.mark.parametrize("case", GUIDED)
def test_guidance_is_told_in_the_pipeline_s_words(case: str) -> None:
    class_name, network, sampling, expected = GUIDED[case]
    options = call_options(row_of_pipeline(sampling), files_of(class_name, network))
    assert {k: v for k, v in options.items() if "guidance" in k or "cfg" in k} == expected


@pytest.mark.parametrize(
    ("class_name", "network", "sampling", "message"),
    [
        ("FluxPipeline", TOLD, Sampling("own", 4), "set embedded_guidance_scale"),
        ("FluxPipeline", {}, Sampling("own", 4, None, 1.0, 3.5), "is told no guidance"),
        ("StableDiffusionPipeline", LCM, Sampling("own", 4, None, 2.0, 8.0), "no guidance beside"),
        ("NoPipeline", {}, Sampling("own", 4), "names the class 'NoPipeline'"),
        ("StableDiffusionUpscalePipeline", {}, Sampling("own", 4), "takes no height, width"),
    ],
)
def test_guidance_that_a_pipeline_has_not_is_refused(
    class_name: str, network: dict[str, Any], sampling: Sampling, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        call_options(row_of_pipeline(sampling), files_of(class_name, network))


def test_a_published_pipeline_keeps_its_own_size() -> None:
    sizes = {name: row.resolution for name, row in PUBLISHED.items() if row.resolution}
    pipelines = {name: 1024 for name, row in PUBLISHED.items() if row.format == PIPELINE}
    assert sizes == {"sdxl_turbo": 512, "sdxl_turbo_1step": 512} | pipelines


# ---- Each option acts, and as diffusers says.

FLOW_LCM = Sampling("flow_lcm", 3, sigmas=(1.0, 0.6, 0.35))
ACTS: dict[str, tuple[str, Sampling, int, dict[str, Any]]] = {
    "as it is": ("sdxl", Sampling("own", 3), 64, {"num_inference_steps": 3}),
    "size": ("sdxl", Sampling("own", 3), 32, {"num_inference_steps": 3}),
    "guidance": (
        "sd15", Sampling("own", 3, None, 4.0), 64,
        {"num_inference_steps": 3, "guidance_scale": 4.0},
    ),
    "scheduler": ("sdxl", Sampling("ddim_trailing", 3), 64, {"num_inference_steps": 3}),
    "timesteps": (
        "sd15", Sampling("lcm", 2, (999, 399)), 64, {"timesteps": [999, 399]},
    ),
    "sigmas": ("lumina2", Sampling("own", 2, sigmas=(1.0, 0.4)), 64, {"sigmas": [1.0, 0.4]}),
    "told and real": (
        "flux", Sampling("own", 2, None, 2.0, 3.5), 64,
        {
            "num_inference_steps": 2, "guidance_scale": 3.5, "true_cfg_scale": 2.0,
            "negative_prompt": ["", ""],
        },
    ),
    "noise of its own": ("lumina2", FLOW_LCM, 64, {"sigmas": list(FLOW_LCM.sigmas or ())}),
}  # fmt: skip


def by_diffusers(folder: Path, sampling: Sampling, size: int, call: dict[str, Any]) -> Tensor:
    """The same images by a plain call, in [0, 1]; noise of FlowMatchLCM by image."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    generators = [image_generator(0, image) for image in IMAGES]
    if sampling.scheduler != "own":
        scheduler = new_scheduler(sampling.scheduler, pipeline.scheduler.config)
        if "sigmas" in call:
            scheduler.step = functools.partial(scheduler.step, generator=generators)
        pipeline.scheduler = scheduler
    steps = {"num_inference_steps": len(call["sigmas"])} if "sigmas" in call else {}
    images: Tensor = pipeline(
        TEXTS, height=size, width=size, generator=generators, output_type="pt",
        **{"guidance_scale": 0.0, **steps, **call},
    ).images  # fmt: skip
    return images


def drawn(folder: Path, sampling: Sampling, size: int) -> Tensor:
    row = row_of_pipeline(sampling, str(folder), size)
    with torch.no_grad():
        return pipeline_draw(row, 0, torch.float32, "cpu").draw(IMAGES)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("case", ACTS)
def test_an_option_acts_as_diffusers_says(case: str, repositories: dict[str, Path]) -> None:
    name, sampling, size, call = ACTS[case]
    found = drawn(repositories[name], sampling, size)
    expected = by_diffusers(repositories[name], sampling, size, call)
    assert found.shape == (2, 3, size, size)
    assert float(((found / 2 + 0.5).clamp(0, 1) - expected).abs().max()) < 1e-5
    plainly = Sampling("own", sampling.num_inference_steps)
    if sampling.embedded_guidance_scale is not None:
        plainly = replace(plainly, embedded_guidance_scale=0.0)
    plain = drawn(repositories[name], plainly, size)
    other = float((plain - found).abs().max())
    assert (other > 1e-3) == (
        sampling.scheduler != "own" or sampling.guidance_scale != 1 or "sigmas" in call
    )


def test_an_image_of_a_pipeline_owns_its_noise(repositories: dict[str, Path]) -> None:
    """Also where diffusers takes a scheduler's noise from torch's global generator."""
    together = drawn(repositories["lumina2"], FLOW_LCM, 64)
    row = row_of_pipeline(FLOW_LCM, str(repositories["lumina2"]))
    with torch.no_grad():
        torch.manual_seed(5)
        alone = pipeline_draw(row, 0, torch.float32, "cpu").draw(IMAGES[1:])
    assert float((alone[0] - together[1]).abs().max()) < 1e-4
    assert float((together[0] - together[1]).abs().max()) > 1e-2


def test_an_image_that_is_not_the_size_asked_for_is_an_error(
    repositories: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some pipelines draw another size than they are asked for, with a warning."""
    from ddmd_bench.students import pipelines

    row = row_of_pipeline(Sampling("own", 1), str(repositories["sdxl"]))
    smaller = {**call_options(row, pipelines.read_files(row)), "height": 32}
    monkeypatch.setattr(pipelines, "call_options", lambda row, files: smaller)
    with pytest.raises(BenchError, match="asked for 64 x 64 pixels, its pipeline draws 32 x 64"):
        pipeline_draw(row, 0, torch.float32, "cpu").draw(IMAGES)


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 9, 9), (16, 7, 7)])
def test_every_student_starts_from_the_same_noise(shape: tuple[int, int, int]) -> None:
    """Trained students and others, also where a latent's size is no multiple of 16."""
    generators, noise = own_noise(3, IMAGES, shape)
    noises = image_noises(3, IMAGES, 3, shape)
    assert torch.equal(noises[0], noise)
    again = torch.stack([torch.randn(shape, generator=g) for g in generators])
    assert torch.equal(noises[1], again)


# ---- A size of a student's own.


def test_a_size_of_its_own_is_the_student_s_alone(repositories: dict[str, Path]) -> None:
    place = repositories["sdxl"]
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    given = {"repository": str(file), "format": "unet", "num_inference_steps": 2}
    students = {
        "as_the_suite": {"source": "checkpoint", "checkpoint": given},
        "smaller": {"source": "checkpoint", "checkpoint": {**given, "resolution": 32}},
    }
    suite = Suite.model_validate(
        {
            "name": "two",
            "title": "Two",
            "backend": "sdxl",
            "model": {"repository": str(place), "resolution": 64},
            "prompts": {"some": {"source": "drawbench", "num_prompts": 1}},
            "students": students,
            "baseline": "smaller",
            "metrics": ["mean"],
        }
    )
    loaded, problems = loaded_students(suite)
    assert not problems
    assert loaded["as_the_suite"].model == suite.model
    assert loaded["smaller"].model == suite.model.model_copy(update={"resolution": 32})
    assert {name: one.row.resolution for name, one in loaded.items()} == {
        "as_the_suite": 64, "smaller": 32,
    }  # fmt: skip
    told = replace(FLOW_LCM, embedded_guidance_scale=3.5, guidance_scale=2.0).words("A")
    assert told == (
        "scheduler flow_lcm (A), 3 steps, sigmas 1.0, 0.6, 0.35, guidance 2, told guidance 3.5"
    )
