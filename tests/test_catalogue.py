"""Published students: every row can be sampled, and as diffusers' own pipeline samples it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ddmd_bench.backends import BACKENDS
from ddmd_bench.backends.schedulers import SCHEDULERS, make_scheduler
from ddmd_bench.backends.stable_diffusion.formats import guidance_embedding
from ddmd_bench.commands.cli import app
from ddmd_bench.errors import BenchError
from ddmd_bench.hub import Remote
from ddmd_bench.hub.layout import chosen
from ddmd_bench.objective.process import ddpm_index, ddpm_level, guided, x0_from_eps
from ddmd_bench.objective.sampler import few_step_sample, scheduler_sample
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.part import Downloads
from ddmd_bench.students.catalogue import SDXL_BASE, Sampling, StudentWeights
from ddmd_bench.students.checkpoints import base_remote, inputs_of, load_whole_pipeline, remote_of
from ddmd_bench.students.listing import page, settings_of
from ddmd_bench.students.published import PUBLISHED
from ddmd_bench.suite.settings import Model
from tests.tiny_sdxl import SCHEDULER, make_pipeline
from tests.tiny_students import lcm_unet

# scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0.
SDXL_SCHEDULER = SCHEDULER | {
    "_class_name": "EulerDiscreteScheduler",
    "clip_sample": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "trained_betas": None,
}
# Z-Image-Turbo: static shift 3 (its scheduler is the pipeline's own).
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_row_is_whole(name: str) -> None:
    row = PUBLISHED[name]
    sampling = row.sampling
    formats = BACKENDS["sdxl"](Model()).formats
    assert row.format in (formats if row.backend == "sdxl" else {"pipeline"})
    for commit in (row.revision, row.base_revision, *(one.revision for one in row.adapters)):
        assert commit is None or len(commit) == 40
    assert all(one.file is not None and one.revision is not None for one in row.adapters)
    assert row.repository.count("/") == 1
    assert (row.file is not None) == (row.backend == "sdxl" or row.component is not None)
    assert sampling.guidance_scale >= 1  # ours: 1 is none
    config = SDXL_SCHEDULER if row.backend == "sdxl" else FLOW
    scheduler = make_scheduler(
        sampling.scheduler,
        config,
        sampling.num_inference_steps,
        sampling.timesteps,
        sampling.sigmas,
    )
    assert len(scheduler.timesteps) == sampling.num_inference_steps
    if sampling.timesteps is not None:
        assert scheduler.timesteps.tolist() == list(sampling.timesteps)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_of_a_row_was_seen_somewhere(name: str) -> None:
    row = PUBLISHED[name]
    assert set(settings_of(row)) <= row.seen_in.keys()
    assert row.seen_in.keys() <= {*settings_of(row), "lora_scale"}
    assert all(place.count(" ") >= 2 for place in row.seen_in.values())  # words, not a mark
    assert (row.revision is None) == row.seen_in["revision"].startswith("none: ")
    # A base of another repository is pinned as the student is.
    other = row.base not in (None, row.repository, SDXL_BASE)
    assert (row.base_revision is not None) == other


def test_the_page_of_published_students_is_the_catalogue() -> None:
    """python -m ddmd_bench published > docs/published_students.md"""
    written = Path(__file__).parents[1] / "docs" / "published_students.md"
    assert written.read_text() == page() == CliRunner().invoke(app, ["published"]).output
    assert len([line for line in page().splitlines() if line.startswith("| `")]) == len(PUBLISHED)


def test_a_base_of_its_own_is_taken_at_its_commit() -> None:
    base = base_remote(PUBLISHED["senseflow_flux"])
    assert base is not None
    assert base.place == "black-forest-labs/FLUX.1-dev@3de623fc3c33"


def test_senseflow_is_sampled_at_the_levels_that_it_was_trained_at() -> None:
    """FLUX.1 dev's scheduler at 1024 pixels against the steps of SenseFlow's own trainer."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    row = PUBLISHED["senseflow_flux"]
    assert row.resolution == 1024
    steps, tokens = row.sampling.num_inference_steps, (1024 // 16) ** 2
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.set_timesteps(
        sigmas=np.linspace(1, 1 / steps, steps), mu=calculate_shift(tokens, max_shift=1.15)
    )
    assert [int(t) for t in scheduler.timesteps] == [1000, 904, 759, 512]


def test_a_part_takes_its_place_in_a_base(tmp_path: Path) -> None:
    """A student that is published as one part of a pipeline, the rest of which is the base's."""
    base, other = make_pipeline(), make_pipeline(seed=1)
    base.save_pretrained(tmp_path / "base")
    other.unet.save_pretrained(tmp_path / "student" / "network")
    shutil.rmtree(tmp_path / "base" / "unet")  # the base's own is not needed
    row = replace(
        PUBLISHED["senseflow_flux"],
        repository=str(tmp_path / "student"),
        file="network",
        base=str(tmp_path / "base"),
        component="unet",
    )
    for remote in (remote_of(row), base_remote(row)):
        assert remote is not None
        require_here(Downloads((remote,)))
    loaded = load_whole_pipeline(row, torch.float32)
    expected, found = other.unet.state_dict(), loaded.unet.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert torch.equal(loaded.vae.quant_conv.weight, base.vae.quant_conv.weight)
    assert {"student", "base"} <= inputs_of(row).keys()
    base.unet.save_pretrained(tmp_path / "base" / "unet")
    with pytest.raises(BenchError, match="names no class of diffusers for transformer, found None"):
        load_whole_pipeline(replace(row, component="transformer"), torch.float32)


def test_titles_and_files_differ() -> None:
    rows = PUBLISHED.values()
    assert len({row.title for row in rows}) == len(PUBLISHED)
    places = {(row.repository, row.file, row.adapters, row.sampling) for row in rows}
    assert len(places) == len(PUBLISHED)
    for name in ("dmd2", "dmd2_lora", "lcm", "lcm_lora", "sdxl_turbo", "lightning", "pcm"):
        assert PUBLISHED[name].sampling.num_inference_steps == 4


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_can_be_made(name: str) -> None:
    config, key = (FLOW, "shift") if name.startswith("flow") else (SDXL_SCHEDULER, "beta_end")
    scheduler = make_scheduler(name, config, 4)
    assert len(scheduler.timesteps) == 4
    options = SCHEDULERS[name].options
    for option, value in options.items():
        assert scheduler.config[option] == value
    assert scheduler.config[key] == {**config, **options}[key]  # the repository's where not ours


def test_trailing_starts_at_pure_noise() -> None:
    trailing = make_scheduler("euler_trailing", SDXL_SCHEDULER, 4)
    assert trailing.timesteps.tolist() == [999, 749, 499, 249]
    assert make_scheduler("euler", SDXL_SCHEDULER, 4).timesteps[0] < 999


def test_options_hold_where_a_scheduler_of_another_class_is_given() -> None:
    from diffusers import EulerDiscreteScheduler

    config = EulerDiscreteScheduler().config  # lists every value as its class's default
    assert make_scheduler("ddim_trailing", config, 4).timesteps.tolist() == [999, 749, 499, 249]


def test_timesteps_that_are_not_followed_are_an_error() -> None:
    with pytest.raises(BenchError, match="follows no explicit timesteps"):
        make_scheduler("ddim_trailing", SDXL_SCHEDULER, 4, (999, 749, 499, 249))
    with pytest.raises(BenchError, match="4 steps, but 1 timesteps"):
        make_scheduler("lcm", SDXL_SCHEDULER, 4, (999,))
    with pytest.raises(BenchError, match="descending"):
        make_scheduler("lcm", SDXL_SCHEDULER, 2, (499, 999))
    with pytest.raises(BenchError, match="smaller than"):
        make_scheduler("lcm", SDXL_SCHEDULER, 60)
    with pytest.raises(BenchError, match="Did you mean 'lcm'"):
        make_scheduler("lmc", SDXL_SCHEDULER, 4)
    with pytest.raises(BenchError, match="names the class 'NoScheduler'"):
        make_scheduler("own", {"_class_name": "NoScheduler"}, 4)


def test_explicit_timesteps_print_nothing(capsys: Any) -> None:
    make_scheduler("lcm", SDXL_SCHEDULER, 4, (999, 749, 499, 249))
    assert capsys.readouterr() == ("", "")


def test_a_row_of_ones_own_may_be_a_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"")
    row = StudentWeights("mine", "sdxl", "lora", str(file), Sampling("lcm", 4))
    here = Remote(str(tmp_path), None, ("mine.safetensors",), "model", "mine")
    in_folder = replace(row, repository=str(tmp_path), file="mine.safetensors")
    for given in (row, in_folder, replace(in_folder, file=None), replace(row, format="unet")):
        assert remote_of(given) == here
    with pytest.raises(BenchError, match=r"no 'other.bin'.*mine.safetensors"):
        remote_of(replace(in_folder, file="other.bin"))


PEFT = ("adapter_model.safetensors", "adapter_config.json")
FULL = "diffusion_pytorch_model[.-][s0]*"  # no variant; the index and its shards


@pytest.mark.parametrize(
    ("format", "file", "expected"),
    [
        ("lora", None, ("pytorch_lora_weights.safetensors",)),
        ("lora", "a/b.safetensors", ("a/b.safetensors",)),
        ("lora", "a", ("a/pytorch_lora_weights.safetensors",)),
        ("lora", "a/adapter_model.safetensors", tuple(f"a/{name}" for name in PEFT)),
        ("unet", None, ("config.json", FULL)),
        ("transformer", "transformer", ("transformer/config.json", f"transformer/{FULL}")),
        ("unet", "x.bin", ("x.bin",)),
    ],
)
def test_what_is_fetched_of_the_hub_is_what_is_read(
    format: str, file: str | None, expected: tuple[str, ...]
) -> None:
    row = StudentWeights("", "", format, "owner/name", Sampling("lcm", 4), file=file)
    assert remote_of(row).files == expected


def test_the_pattern_of_a_network_leaves_variants_out() -> None:
    name = "diffusion_pytorch_model"
    kept = [f"{name}.safetensors", f"{name}-00001-of-00002.safetensors"]
    kept.append(f"{name}.safetensors.index.json")
    others = [f"{name}.fp16.safetensors", f"{name}.bin", f"{name}.non_ema.safetensors"]
    others += [f"{name}.fp16-00001-of-00002.safetensors", f"{name}.msgpack"]
    assert chosen((FULL,), None, kept + others, None).files == kept


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"max_shard_size": "100KB"}])
def test_a_folder_of_a_network_is_all_that_its_loader_reads(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    make_pipeline().unet.save_pretrained(tmp_path, **options)
    (tmp_path / "optimizer.bin").write_bytes(b"")
    row = StudentWeights("", "", "unet", str(tmp_path), Sampling("lcm", 4))
    names = {path.name for path in tmp_path.iterdir()} - {"optimizer.bin"}
    assert set(remote_of(row).files) == names
    require_here(Downloads((remote_of(row),)))


# ---- Sampling, against diffusers' pipeline.

NUM = 2


@pytest.fixture(scope="module")
def pipeline() -> Any:
    pipeline = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditioning() -> dict[str, Tensor]:
    """Prompt embeddings as the pipeline takes them; the negative ones are zeros, as SDXL's are."""
    generator = torch.Generator().manual_seed(2)
    embeds = torch.randn(NUM, 77, 64, generator=generator)
    pooled = torch.randn(NUM, 32, generator=generator)
    return {
        "prompt_embeds": embeds,
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": torch.zeros_like(embeds),
        "negative_pooled_prompt_embeds": torch.zeros_like(pooled),
    }


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(40 + k) for k in range(NUM)]


def noise() -> Tensor:
    return torch.randn(NUM, 4, 8, 8, generator=torch.Generator().manual_seed(9))


def make_predict(unet: Any, guidance_scale: float, embedded: float | None = None) -> Any:
    """The UNet's eps with guidance, as `scheduler_sample` asks for it."""
    cond = conditioning()
    ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]] * NUM)

    def eps(x: Tensor, timestep: Any, prefix: str) -> Tensor:
        added = {"text_embeds": cond[f"{prefix}pooled_prompt_embeds"], "time_ids": ids}
        found: Tensor = unet(
            x, timestep, cond[f"{prefix}prompt_embeds"], added_cond_kwargs=added,
            timestep_cond=guidance_embedding(unet, embedded, NUM), return_dict=False,
        )[0]  # fmt: skip
        return found

    def predict(x: Tensor, timestep: Tensor, k: int) -> Tensor:
        found = eps(x, timestep, "")
        if guidance_scale == 1:
            return found
        return guided(eps(x, timestep, "negative_"), found, guidance_scale)

    return predict


def pipeline_latents(
    pipeline: Any, class_name: str, options: dict[str, Any], **call: Any
) -> Tensor:
    """As a model card says it: `Class.from_config(scheduler.config, **options)`, `pipe(...)`."""
    import diffusers

    pipeline.scheduler = getattr(diffusers, class_name).from_config(SDXL_SCHEDULER, **options)
    latents: Tensor = pipeline(
        **conditioning(), latents=noise(), generator=generators(), height=64, width=64,
        output_type="latent", **call,
    ).images  # fmt: skip
    return latents


TRAILING = {"timestep_spacing": "trailing"}
DMD2 = (999, 749, 499, 249)
CASES: dict[str, tuple[Sampling, str, dict[str, Any], dict[str, Any]]] = {
    # our row, diffusers' class, options of its card, arguments of its card
    "base": (
        Sampling("euler", 8, None, 6.0), "EulerDiscreteScheduler", {}, {"guidance_scale": 6.0},
    ),
    "dmd2": (
        PUBLISHED["dmd2"].sampling, "LCMScheduler", {},
        {"guidance_scale": 0, "timesteps": list(DMD2)},
    ),
    "dmd2_1step": (
        PUBLISHED["dmd2_1step"].sampling, "LCMScheduler", {},
        {"guidance_scale": 0, "timesteps": [399]},
    ),
    "lcm_lora": (PUBLISHED["lcm_lora"].sampling, "LCMScheduler", {}, {"guidance_scale": 0}),
    "flash": (PUBLISHED["flash_sdxl"].sampling, "LCMScheduler", TRAILING, {"guidance_scale": 0}),
    "lightning": (
        PUBLISHED["lightning"].sampling, "EulerDiscreteScheduler", TRAILING, {"guidance_scale": 0},
    ),
    "hyper_sd": (
        PUBLISHED["hyper_sd_lora"].sampling, "DDIMScheduler", TRAILING, {"guidance_scale": 0},
    ),
    "hyper_sd_1step_lora": (  # eta as on its card, which acts on nothing in one step
        PUBLISHED["hyper_sd_1step_lora"].sampling, "TCDScheduler", {},
        {"guidance_scale": 0, "eta": 1.0},
    ),
    "pcm_normalcfg": (
        PUBLISHED["pcm_normalcfg"].sampling, "TCDScheduler", TRAILING, {"guidance_scale": 7.5},
    ),
    "pcm": (PUBLISHED["pcm"].sampling, "TCDScheduler", TRAILING, {"guidance_scale": 0}),
    "turbo": (
        PUBLISHED["sdxl_turbo"].sampling, "EulerAncestralDiscreteScheduler", TRAILING,
        {"guidance_scale": 0.0},
    ),
}  # fmt: skip


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", CASES)
def test_a_row_samples_as_diffusers_pipeline_does(pipeline: Any, case: str) -> None:
    sampling, class_name, options, call = CASES[case]
    steps = {} if "timesteps" in call else {"num_inference_steps": sampling.num_inference_steps}
    expected = pipeline_latents(pipeline, class_name, options, **steps, **call)
    scheduler = make_scheduler(
        sampling.scheduler, SDXL_SCHEDULER, sampling.num_inference_steps, sampling.timesteps
    )
    predict = make_predict(pipeline.unet, sampling.guidance_scale)
    found = scheduler_sample(predict, scheduler, noise(), generators())
    assert relative(found, expected) < 1e-5


def test_the_network_matters_to_the_latents(pipeline: Any) -> None:
    """So that the comparisons above compare something."""
    found = [
        scheduler_sample(
            make_predict(pipeline.unet, guidance_scale),
            make_scheduler("euler", SDXL_SCHEDULER, 8), noise(), generators(),
        )
        for guidance_scale in (1.0, 6.0)
    ]  # fmt: skip
    assert relative(found[0], found[1]) > 1e-3


def test_lcm_is_told_its_guidance_as_in_the_pipeline() -> None:
    """LCM-SDXL: guidance_scale 8 goes into the network, and there is no second pass."""
    pipeline = make_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.register_modules(unet=lcm_unet(pipeline.unet))
    expected = pipeline_latents(
        pipeline, "LCMScheduler", {}, num_inference_steps=4, guidance_scale=8.0
    )
    sampling = PUBLISHED["lcm"].sampling
    found = [
        scheduler_sample(
            make_predict(pipeline.unet, sampling.guidance_scale, embedded),
            make_scheduler(sampling.scheduler, SDXL_SCHEDULER, 4), noise(), generators(),
        )
        for embedded in (sampling.embedded_guidance_scale, 2.0)
    ]  # fmt: skip
    assert relative(found[0], expected) < 1e-5
    assert relative(found[1], expected) > 1e-4


# 3e-8 was measured: the boundary scalings of LCMScheduler differ from ours by as much.
@pytest.mark.parametrize(("name", "bound"), [("lcm", 1e-6), ("lcm_unscaled", 0.0)])
def test_our_few_steps_are_lcm_schedulers(pipeline: Any, name: str, bound: float) -> None:
    """Prediction and re-noising at DMD2's steps, given the noises that LCMScheduler draws."""
    scheduler = make_scheduler(name, SDXL_SCHEDULER, 4, DMD2)
    predict = make_predict(pipeline.unet, 1.0)
    expected = scheduler_sample(predict, scheduler, noise(), generators())

    fresh = generators()
    shape = noise().shape[1:]
    noises = [noise()]
    noises += [torch.stack([torch.randn(shape, generator=g) for g in fresh]) for _ in range(3)]
    level = ddpm_level(scheduler.alphas_cumprod)

    def denoise(x_t: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return x0_from_eps(predict(x_t, ddpm_index(t), 0), x_t, level(t))

    with torch.no_grad():
        found = few_step_sample(denoise, (1.0, 0.75, 0.5, 0.25), {}, noises, level)
    assert relative(found, expected) <= bound
