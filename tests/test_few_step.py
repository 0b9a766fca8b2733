"""Published few-step pipelines since FLUX.1: each drawn as its authors' own lines draw it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_flux
import torch
from safetensors.torch import save_file
from tiny_few_step import make_pipeline, write_repository
from torch import Tensor

from ddmd_bench.backends import BACKENDS
from ddmd_bench.backends.schedulers import SCHEDULERS, new_scheduler
from ddmd_bench.data.images import ImageId, image_generator
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.errors import BenchError
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.part import Asked, Downloads
from ddmd_bench.planning.plan import suite_downloads
from ddmd_bench.students.catalogue import PIPELINE, StackedLora, StudentWeights
from ddmd_bench.students.checkpoints import (
    base_remote,
    inputs_of,
    load_whole_pipeline,
    lora_remotes,
    remote_of,
    row_of,
)
from ddmd_bench.students.loaded import loaded_students
from ddmd_bench.students.pipeline_calls import PipelineFiles, call_options
from ddmd_bench.students.pipelines import pipeline_draw
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.students.verdicts import weights_problem
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import Model
from ddmd_bench.suite.students import Student

TEXTS = ["a red cat", "two dogs in the park"]
IMAGES = [ImageId(Prompt(f"some/{k}", "some", text), 0) for k, text in enumerate(TEXTS)]
LIGHTNING_FILE = "lightning.safetensors"
# As generate_with_diffusers.py of ModelTC/Qwen-Image-Lightning sets it.
LIGHTNING_SCHEDULER = {
    "base_image_seq_len": 256,
    "base_shift": math.log(3),
    "invert_sigmas": False,
    "max_image_seq_len": 8192,
    "max_shift": math.log(3),
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "time_shift_type": "exponential",
    "use_beta_sigmas": False,
    "use_dynamic_shifting": True,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}


# ---- The levels of shift 3.


@pytest.mark.parametrize("num_steps", [4, 8])
@pytest.mark.parametrize("tokens", [64, 4096, 6889])
def test_shift_3_is_what_lightning_s_authors_set(num_steps: int, tokens: int) -> None:
    """Their dynamic shift has the same mu for every size; Qwen-Image's own settings are left."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift

    theirs = FlowMatchEulerDiscreteScheduler.from_config(LIGHTNING_SCHEDULER)
    levels = np.linspace(1, 1 / num_steps, num_steps)
    mu = calculate_shift(tokens, 256, 8192, math.log(3), math.log(3))
    theirs.set_timesteps(sigmas=levels, mu=mu)
    own = make_pipeline("qwen_image").scheduler.config
    ours = new_scheduler("flow_euler_shift_3", {**own, "_class_name": type(theirs).__name__})
    ours.set_timesteps(sigmas=levels, mu=mu)
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, atol=1e-3, rtol=0)
    if num_steps == 4:
        assert ours.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])  # 3 s / (1 + 2 s)
    assert SCHEDULERS["flow_euler_shift_3"].options["shift"] == 3


# ---- Each row against its authors' lines.


def of_sd3(folder: Path) -> Any:
    write_repository("sd3", folder)
    return folder, {}


def of_sd3_with_another_transformer(folder: Path) -> Any:
    """DP-DMD: a state dict that is loaded into SD 3.5's transformer."""
    write_repository("sd3", folder / "base")
    (weights,) = (folder / "base" / "transformer").glob("*.safetensors")
    weights.unlink()  # of the base's own nothing but the configuration is needed
    student = make_pipeline("sd3", seed=1).transformer
    (folder / "student").mkdir()
    torch.save(dict(student.state_dict()), folder / "student" / "student.pt")
    changed = {"base": str(folder / "base"), "file": "student.pt"}
    return folder / "student", changed


def of_qwen_with_a_lora(folder: Path) -> Any:
    """Lightning: the keys of its file as its authors' script reads them, without a prefix."""
    write_repository("qwen_image", folder / "base")
    transformer = make_pipeline("qwen_image").transformer
    draw = torch.Generator().manual_seed(3)
    state = {}
    for key, weight in transformer.named_parameters():
        if key.endswith(("attn.to_q.weight", "attn.to_out.0.weight", "img_mod.1.weight")):
            layer, (out, wide) = key.removesuffix(".weight"), weight.shape
            state[f"{layer}.lora_down.weight"] = torch.randn(4, wide, generator=draw) * 0.2
            state[f"{layer}.lora_up.weight"] = torch.randn(out, 4, generator=draw) * 0.2
            state[f"{layer}.alpha"] = torch.tensor(2.0)
    save_file(state, folder / LIGHTNING_FILE)
    return folder / "base", {"adapters": (StackedLora(str(folder / LIGHTNING_FILE)),)}


def of_flash(folder: Path) -> Any:
    """Qwen-Image-Flash: a packaged scheduler of shift 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipeline = make_pipeline("qwen_image")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline.save_pretrained(folder)
    return folder, {}


def tiny(name: str) -> Callable[[Path], Any]:
    return lambda folder: (write_repository(name, folder), {})


def schnell(folder: Path) -> Any:
    return tiny_flux.write_repository(folder, told_guidance=False), {}


# What is written for a row, and the arguments of its authors' call.
ROWS: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "flux_schnell": (
        schnell, {"num_inference_steps": 4, "guidance_scale": 0.0, "max_sequence_length": 256},
    ),
    "flux2_klein": (tiny("flux2_klein"), {"num_inference_steps": 4, "guidance_scale": 1.0}),
    "sd35_large_turbo": (of_sd3, {"num_inference_steps": 4, "guidance_scale": 0.0}),
    "sana_sprint": (tiny("sana_sprint"), {"num_inference_steps": 2, "guidance_scale": 4.5}),
    "qwen_image_lightning": (
        of_qwen_with_a_lora,
        {"num_inference_steps": 4, "true_cfg_scale": 1.0, "negative_prompt": [" ", " "]},
    ),
    "qwen_image_flash": (of_flash, {"num_inference_steps": 4, "true_cfg_scale": 1.0}),
    "dp_dmd": (
        of_sd3_with_another_transformer, {"num_inference_steps": 4, "guidance_scale": 1.0},
    ),
    "cdm": (
        of_sd3,
        {"num_inference_steps": 4, "sigmas": [1.0, 0.75, 0.5, 0.25], "guidance_scale": 1.0},
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=ROWS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A row whose weights are tiny ones here, and its name."""
    write, _ = ROWS[request.param]
    place, changed = write(tmp_path_factory.mktemp(request.param) / "repository")
    row = replace(PUBLISHED[request.param], repository=str(place), resolution=64, **changed)
    return request.param, row


def by_its_authors(name: str, row: StudentWeights) -> Tensor:
    """The same images by a plain call of diffusers, in [0, 1]."""
    from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

    if name == "dp_dmd":
        whole = make_pipeline("sd3")
        pipeline = DiffusionPipeline.from_pretrained(str(row.base), transformer=whole.transformer)
        state = torch.load(Path(row.repository) / str(row.file), map_location="cpu")
        pipeline.transformer.load_state_dict(state, strict=True)
    else:
        pipeline = DiffusionPipeline.from_pretrained(row.repository)
    if row.adapters:
        pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(LIGHTNING_SCHEDULER)
        pipeline.load_lora_weights(row.adapters[0].repository)
    pipeline.set_progress_bar_config(disable=True)
    generators = [image_generator(0, image) for image in IMAGES]
    drawn: Tensor = pipeline(
        prompt=TEXTS, height=64, width=64, generator=generators, output_type="pt", **ROWS[name][1]
    ).images
    return drawn


def drawn(row: StudentWeights, images: list[ImageId] = IMAGES) -> Tensor:
    with torch.no_grad():
        return pipeline_draw(row, 0, torch.float32, "cpu").draw(images)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_row_draws_what_its_authors_lines_draw(written: Any) -> None:
    name, row = written
    for remote in (remote_of(row), base_remote(row), *lora_remotes(row)):
        if remote is not None:
            require_here(Downloads((remote,)))
    found = drawn(row)
    assert found.shape == (2, 3, 64, 64)
    expected = by_its_authors(name, row)
    assert float(((found / 2 + 0.5).clamp(0, 1) - expected).abs().max()) < 1e-5
    # An image's noise is its own, whatever is drawn beside it.
    alone = drawn(row, IMAGES[1:])
    assert float((alone[0] - found[1]).abs().max()) < 1e-3
    assert float((found[0] - found[1]).abs().max()) > 1e-2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_what_a_row_adds_to_a_base_acts(tmp_path: Path) -> None:
    place, changed = of_qwen_with_a_lora(tmp_path)
    row = replace(
        PUBLISHED["qwen_image_lightning"], repository=str(place), resolution=64, **changed
    )
    others = {
        "without its LoRA": replace(row, adapters=()),
        "by the base's scheduler": replace(row, sampling=replace(row.sampling, scheduler="own")),
    }
    assert weights_problem(row, BACKENDS["sdxl"](Model())) is None  # as the plan looks at it
    found = drawn(row)
    for what, other in others.items():
        assert float((drawn(other) - found).abs().max()) > 1e-3, what
        assert inputs_of(other) != inputs_of(row), what


# ---- One file in place of a part.


def test_a_file_that_is_another_network_is_named(tmp_path: Path) -> None:
    place, changed = of_sd3_with_another_transformer(tmp_path)
    row = replace(PUBLISHED["dp_dmd"], repository=str(place), resolution=64, **changed)
    state = torch.load(place / "student.pt")
    state["other"] = state.pop("proj_out.bias")
    torch.save(state, place / "student.pt")
    with pytest.raises(BenchError) as refusal:
        load_whole_pipeline(row, torch.float32)
    for part in ("student.pt", "SD3Transformer2DModel", "1 missing, 1 not known", "other"):
        assert part in str(refusal.value)
    shutil.rmtree(tmp_path / "base" / "transformer")
    remote = base_remote(row)
    assert remote is not None
    with pytest.raises(BenchError, match=r"transformer/config\.json"):
        require_here(Downloads((remote,)))


def test_what_is_fetched_for_a_part_in_one_file() -> None:
    row = PUBLISHED["dp_dmd"]
    base = base_remote(row)
    assert remote_of(row).files == ("DPDMD-SD35M-4NFE-natural.pt",)
    assert base is not None
    assert base.layout is not None
    assert base.files == ("transformer/config.json",)
    assert base.layout.without == ("transformer",)


# ---- Every published pipeline, without its weights.

CLASSES = {
    "flux_schnell": ("FluxPipeline", {"guidance_embeds": False}),
    "senseflow_flux": ("FluxPipeline", {"guidance_embeds": False}),
    "flux2_klein": ("Flux2KleinPipeline", {"guidance_embeds": False}),
    "sd35_large_turbo": ("StableDiffusion3Pipeline", {}),
    "dp_dmd": ("StableDiffusion3Pipeline", {}),
    "cdm": ("StableDiffusion3Pipeline", {}),
    "sana_sprint": ("SanaSprintPipeline", {"guidance_embeds": True}),
    "sana_sprint_600m": ("SanaSprintPipeline", {"guidance_embeds": True}),
    "qwen_image_lightning": ("QwenImagePipeline", {"guidance_embeds": False}),
    "qwen_image_lightning_8step": ("QwenImagePipeline", {"guidance_embeds": False}),
    "qwen_image_lightning_v1": ("QwenImagePipeline", {"guidance_embeds": False}),
    "qwen_image_lightning_v1_8step": ("QwenImagePipeline", {"guidance_embeds": False}),
    "qwen_image_flash": ("QwenImagePipeline", {"guidance_embeds": False}),
    "z_image_turbo": ("ZImagePipeline", {}),
}


def test_every_published_pipeline_is_called_with_what_its_class_takes() -> None:
    assert {n for n, row in PUBLISHED.items() if row.format == PIPELINE} == CLASSES.keys()
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    for name, (class_name, network) in CLASSES.items():
        row = PUBLISHED[name]
        files = PipelineFiles(class_name, "transformer", {"patch_size": 2, **network}, flow, {})
        options = call_options(row, files)
        assert options["num_inference_steps"] == row.sampling.num_inference_steps
        assert (options["height"], options["width"]) == (1024, 1024)
        assert options.get("guidance_scale", 0.0) == (row.sampling.embedded_guidance_scale or 0.0)
        assert options.get("true_cfg_scale", 1.0) == 1.0
        assert options.get("max_sequence_length") == row.max_sequence_length


def test_a_pipeline_that_takes_no_sigmas_says_so() -> None:
    sampling = replace(PUBLISHED["cdm"].sampling, embedded_guidance_scale=4.5)
    row = replace(PUBLISHED["sana_sprint"], sampling=sampling)
    files = PipelineFiles("SanaSprintPipeline", "transformer", {"guidance_embeds": True}, {}, {})
    with pytest.raises(BenchError, match="SanaSprintPipeline takes no sigmas; give timesteps"):
        call_options(row, files)


def test_loras_of_a_suite_come_after_those_of_a_row() -> None:
    own = {"source": "published", "published": "qwen_image_lightning"}
    row = row_of(Student.model_validate({**own, "adapters": [{"repository": "owner/style"}]}))
    assert row is not None
    (lightning,) = PUBLISHED["qwen_image_lightning"].adapters
    assert row.adapters == (lightning, StackedLora("owner/style"))
    plain = row_of(Student.model_validate(own))
    assert plain is not None
    assert len(inputs_of(plain)["row"]["adapters"]) == 1
    assert [remote.repository for remote in lora_remotes(row)] == [
        "lightx2v/Qwen-Image-Lightning", "owner/style",
    ]  # fmt: skip


def test_keys_of_other_rows_are_what_they_were() -> None:
    """An option that a row leaves alone is no part of its key."""
    assert "max_sequence_length" not in inputs_of(PUBLISHED["z_image_turbo"])["row"]
    assert inputs_of(PUBLISHED["flux_schnell"])["row"]["max_sequence_length"] == 256


# ---- The suite that compares them.


def test_the_suite_of_few_step_students_can_be_planned() -> None:
    suite = load_suite("few_step")
    loaded, problems = loaded_students(suite)
    assert not problems
    assert loaded.keys() == suite.students.keys()
    assert {one.row.resolution for one in loaded.values()} == {1024}
    assert {one.row.sampling.guidance_scale for one in loaded.values()} == {1.0}
    asked = Asked.of(suite)
    assert asked.num_images == 3200 + 4 * 1065  # the figure of its head
    assert asked.bases.keys() == {"dmd2", "lightning"}
    places = {remote.place for remote in suite_downloads(suite).remotes}
    for name in suite.students:
        row = PUBLISHED[name]
        assert any(place.startswith(f"{row.repository}@") for place in places), name
    (lora,) = PUBLISHED["qwen_image_lightning"].adapters
    assert f"{lora.repository}@{str(lora.revision)[:12]}" in places
