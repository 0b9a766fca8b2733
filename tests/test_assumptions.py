"""What a repository says of itself is obeyed as diffusers obeys it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import tiny_lumina2
import tiny_sd15
import tiny_sdxl
import torch
from changed_repositories import (
    PROMPTS,
    SCHEDULER,
    Changes,
    by_diffusers,
    by_the_harness,
    changed,
    generators,
    with_vae,
)
from tiny_sdxl import RESOLUTION
from torch import Tensor

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.schedulers import make_scheduler, new_scheduler
from ddmd_bench.backends.stable_diffusion.assumptions import PREDICTION_TYPES, SCHEDULERS
from ddmd_bench.objective.sampler import scheduler_sample
from ddmd_bench.suite.settings import Model

WRITERS: dict[str, Callable[[Path], Path]] = {
    "sdxl": tiny_sdxl.write_repository,
    "sd15": tiny_sd15.write_repository,
    "lumina2": tiny_lumina2.write_repository,
}
V: dict[str, Any] = {"prediction_type": "v_prediction"}
ZERO_SNR = {**V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("repositories")
    return {name: write(folder / name) for name, write in WRITERS.items()}


def backend_of(name: str, folder: Path, **model: Any) -> Backend:
    return BACKENDS[name](Model(repository=str(folder), **{"resolution": RESOLUTION, **model}))


def assert_same(backend: Backend, folder: Path, steps: int = 5, **call: Any) -> None:
    """Latents and images of the teacher are those of diffusers' pipeline."""
    expected, found = by_diffusers(folder, steps, 4.0, **call), by_the_harness(backend, steps, 4.0)
    for theirs, ours in zip(expected, found, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


OBEYED: dict[str, tuple[str, Changes]] = {
    "v": ("sdxl", {SCHEDULER: V}),
    "v, zero terminal SNR": ("sdxl", {SCHEDULER: ZERO_SNR}),
    "v of Stable Diffusion 2.1": ("sd15", {SCHEDULER: V}),
    "'' encoded": ("sdxl", {"model_index.json": {"force_zeros_for_empty_prompt": False}}),
    "fewer noise levels": ("sdxl", {SCHEDULER: {"num_train_timesteps": 500}}),
    "the index names the scheduler": (
        "sdxl",
        {"model_index.json": {"scheduler": ["diffusers", "DPMSolverMultistepScheduler"]}},
    ),
    "an offset that the pipeline corrects": ("sd15", {SCHEDULER: {"steps_offset": 0}}),
    "clipping that the pipeline turns off": (
        "sd15",
        {
            "model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]},
            SCHEDULER: {"clip_sample": True},
        },
    ),
    "clipping that the pipeline leaves": (
        "sdxl",
        {
            "model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]},
            SCHEDULER: {"clip_sample": True},
        },
    ),
    "spacing and sigmas": (
        "sdxl",
        {SCHEDULER: {"timestep_spacing": "trailing", "use_karras_sigmas": True}},
    ),
    "thresholds": (
        "sdxl",
        {
            "model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]},
            SCHEDULER: {"thresholding": True},
        },
    ),
    "shorter prompts": (
        "sdxl",
        {f"tokenizer{k}/tokenizer_config.json": {"model_max_length": 20} for k in ("", "_2")},
    ),
}


@pytest.mark.parametrize(("name", "changes"), OBEYED.values(), ids=OBEYED)
def test_a_setting_is_obeyed(
    name: str, changes: Changes, repositories: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed(repositories[name], tmp_path / "changed", changes)
    assert_same(backend_of(name, folder), folder)
    plain, _ = by_the_harness(backend_of(name, repositories[name]), 5, 4.0)
    other, _ = by_the_harness(backend_of(name, folder), 5, 4.0)
    corrected = "steps_offset" in changes.get(SCHEDULER, {})  # to what it was
    assert torch.equal(plain, other) == corrected


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_of_a_teacher(
    scheduler: str, prediction_type: str, repositories: dict[str, Path], tmp_path: Path
) -> None:
    """Those that add noise again draw it from each image's own generator."""
    changes = {
        "model_index.json": {"scheduler": ["diffusers", scheduler]},
        SCHEDULER: {"prediction_type": prediction_type},
    }
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    backend = backend_of("sdxl", folder)
    (expected,) = by_diffusers(folder, 5, 4.0, kinds=["latent"])
    found, _ = by_the_harness(backend, 5, 4.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    own = getattr(diffusers, scheduler).from_pretrained(folder, subfolder="scheduler")
    own.set_timesteps(5)
    assert backend.teacher_evaluations(5, 4.0) == 2 * len(own.timesteps)
    assert backend.teacher_evaluations(5, 1.0) == len(own.timesteps)


@pytest.mark.parametrize("zero_snr", [True, False])
def test_a_scheduler_reads_zero_terminal_snr_or_does_not(zero_snr: bool) -> None:
    named = {name for name, row in SCHEDULERS.items() if row.zero_snr == zero_snr}
    config = {"rescale_betas_zero_snr": True, "beta_schedule": "scaled_linear"}
    for name in named:
        plain, own = (getattr(diffusers, name).from_config(c) for c in ({}, config))
        known = inspect.signature(getattr(diffusers, name).__init__).parameters
        assert ("rescale_betas_zero_snr" in known) == zero_snr, name
        assert not zero_snr or own.alphas_cumprod[-1] < 1e-6 < plain.alphas_cumprod[-1]


@pytest.mark.parametrize("num_blocks", [3, 5])
@pytest.mark.parametrize("name", ["sdxl", "sd15"])
def test_a_vae_of_another_factor(
    name: str, num_blocks: int, repositories: dict[str, Path], tmp_path: Path
) -> None:
    folder = with_vae(repositories[name], tmp_path / "changed", num_blocks)
    backend, side = backend_of(name, folder), RESOLUTION // 2 ** (num_blocks - 1)
    assert backend.latent_shape == (4, side, side)
    assert_same(backend, folder)
    assert backend.encoders is not None
    images = torch.zeros(1, 3, RESOLUTION, RESOLUTION)
    assert backend.encoders.load_image_encoder("cpu")(images).shape[1:] == backend.latent_shape


def test_latents_of_more_channels(repositories: dict[str, Path], tmp_path: Path) -> None:
    folder = with_vae(repositories["sdxl"], tmp_path / "changed", 4, latent_channels=16)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        unet = diffusers.UNet2DConditionModel(
            **tiny_sdxl.UNET | {"in_channels": 16, "out_channels": 16}
        )
    unet.save_pretrained(folder / "unet")
    backend = backend_of("sdxl", folder)
    assert backend.latent_shape == (16, 8, 8)
    assert_same(backend, folder)


def test_latents_that_no_block_of_the_unet_halves(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    """9 x 9 latents: the UNet interpolates to the size that it came from, as in the pipeline."""
    folder = repositories["sdxl"]
    backend = backend_of("sdxl", folder, resolution=72)
    assert backend.latent_shape == (4, 9, 9)
    assert_same(backend, folder, height=72, width=72)


def test_lumina_with_a_vae_of_another_factor(repositories: dict[str, Path], tmp_path: Path) -> None:
    """Its pipeline takes every VAE for an eightfold one: a larger size is asked of it."""
    folder = with_vae(
        repositories["lumina2"], tmp_path / "changed", 3, latent_channels=16, shift_factor=0.1
    )
    backend = backend_of("lumina2", folder)
    assert backend.pipeline is not None
    assert backend.pipeline.resolution == 2 * RESOLUTION
    size = {"height": 2 * RESOLUTION, "width": 2 * RESOLUTION}
    expected = by_diffusers(folder, 5, 4.0, cfg_trunc_ratio=0.25, **size)
    for theirs, ours in zip(expected, by_the_harness(backend, 5, 4.0), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert ours.shape[-1] == RESOLUTION


MOVED: dict[str, dict[str, Any]] = {
    "dynamic": {"use_dynamic_shifting": True, "shift": 1.0},
    "to an end": {"shift_terminal": 0.1},
    "Karras": {"use_karras_sigmas": True},
}


@pytest.mark.parametrize("moved", MOVED.values(), ids=MOVED)
def test_lumina_s_levels_are_moved_as_it_says(
    moved: dict[str, Any], repositories: dict[str, Path], tmp_path: Path
) -> None:
    """The teacher's; an exported student is drawn at its own levels."""
    folder = changed(repositories["lumina2"], tmp_path / "changed", {SCHEDULER: moved})
    backend = backend_of("lumina2", folder)
    expected = by_diffusers(folder, 5, 4.0, cfg_trunc_ratio=0.25)
    for theirs, ours in zip(expected, by_the_harness(backend, 5, 4.0), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    form = backend.pipeline
    assert form is not None
    scheduler = new_scheduler(form.scheduler, form.scheduler_config())
    scheduler.set_timesteps(**form.schedule([1.0, 0.7, 0.2]), mu=1.0)
    assert scheduler.sigmas[:3].tolist() == pytest.approx([1.0, 0.7, 0.2])


def test_a_vae_with_statistics_of_its_latents(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    """As Playground v2.5's: a mean and a deviation for each channel."""
    statistics = {"latents_mean": [-1.6, 0.3, 0.1, 2.6], "latents_std": [8.4, 5.3, 5.9, 5.2]}
    changes = {"vae/config.json": statistics | {"scaling_factor": 0.5}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    backend = backend_of("sdxl", folder)
    assert_same(backend, folder)
    assert backend.encoders is not None
    images = torch.rand(2, 3, RESOLUTION, RESOLUTION) * 2 - 1
    latents = backend.encoders.load_image_encoder("cpu")(images)
    with torch.no_grad():
        vae = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae")
        again = vae.decode(vae.encode(images).latent_dist.mode()).sample
    torch.testing.assert_close(backend.decode(latents), again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("says", "expected"), [(True, torch.float32), (False, torch.float16)])
def test_a_vae_that_overflows_runs_in_float32(
    says: bool, expected: torch.dtype, repositories: dict[str, Path], tmp_path: Path
) -> None:
    changes = {"vae/config.json": {"force_upcast": says}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    backend = backend_of("sdxl", folder, dtype="float16")
    assert backend.pipeline is not None
    assert backend.pipeline.load({}, torch.float16).vae.dtype == expected


def test_a_repository_has_a_size_of_its_own(repositories: dict[str, Path], tmp_path: Path) -> None:
    """What diffusers' pipeline draws unasked; a suite's resolution goes before it."""
    sizes = {"unet/config.json": {"sample_size": 96}}
    folder = changed(repositories["sd15"], tmp_path / "changed", sizes)
    assert backend_of("sd15", folder, resolution=None).resolution == 768  # Stable Diffusion 2.1
    assert backend_of("sd15", folder).resolution == RESOLUTION
    assert BACKENDS["sd15"](Model()).resolution == 512


LOADED = {
    "lcm": "LCMScheduler",
    "euler": "EulerDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "tcd": "TCDScheduler",
}


@pytest.mark.parametrize("name", LOADED)
def test_a_checkpoint_is_sampled_as_the_repository_predicts(
    name: str, repositories: dict[str, Path], tmp_path: Path
) -> None:
    """A whole UNet beside a repository of v, under the schedulers of published students."""
    folder = changed(repositories["sdxl"], tmp_path / "changed", {SCHEDULER: ZERO_SNR})
    backend = backend_of("sdxl", folder)
    assert backend.encoders is not None
    assert backend.load_student is not None
    assert backend.scheduler_config is not None
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    kind = getattr(diffusers, LOADED[name])
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, clip_sample=False)
    expected = pipeline(
        PROMPTS, num_inference_steps=4, guidance_scale=0.0, height=RESOLUTION, width=RESOLUTION,
        generator=generators(), output_type="latent",
    ).images  # fmt: skip
    network: Any = backend.load_student(folder / "unet", [])
    cond = backend.encoders.collate(backend.encoders.load_prompt_encoder("cpu")(PROMPTS))
    draws = generators()
    found = scheduler_sample(
        lambda x, timestep, k: network.predict(x, timestep, cond),
        make_scheduler(name, backend.scheduler_config(), 4),
        torch.stack([torch.randn(backend.latent_shape, generator=g) for g in draws]),
        draws,
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# The objective's side.


@pytest.mark.parametrize("settings", [{}, V, ZERO_SNR], ids=["eps", "v", "v, zero SNR"])
def test_x0_is_the_scheduler_s(
    settings: dict[str, Any], repositories: dict[str, Path], tmp_path: Path
) -> None:
    """`pred_original_sample` of DDIMScheduler in the repository's own settings, from t = 1 on."""
    folder = changed(repositories["sdxl"], tmp_path / "changed", {SCHEDULER: settings})
    backend = backend_of("sdxl", folder)
    assert backend.encoders is not None
    rows = backend.encoders.load_prompt_encoder("cpu")(PROMPTS)
    cond, teacher = backend.encoders.collate(rows), backend.load_teacher()
    scheduler = diffusers.DDIMScheduler.from_pretrained(
        folder, subfolder="scheduler", clip_sample=False
    )
    scheduler.set_timesteps(1000)
    x_t = noise(0)
    for t, index in ((1.0, 999), (0.75, 749), (0.25, 249), (0.001, 0)):
        with torch.no_grad():
            x0 = teacher(x_t, torch.full((len(PROMPTS),), t), cond)
            predicted: Any = teacher
            output = predicted.predict(x_t, torch.tensor(index), cond)
        expected = scheduler.step(output, index, x_t).pred_original_sample
        torch.testing.assert_close(x0, expected, rtol=1e-5, atol=1e-5)
    level = backend.level(torch.ones(1))
    assert (float(level.alpha) == 0) == (settings is ZERO_SNR)


def noise(seed: int) -> Tensor:
    side = RESOLUTION // 8
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(len(PROMPTS), 4, side, side, generator=draws)


def test_the_fake_score_s_loss_is_the_error_of_v(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    """v = alpha eps - sigma x0, as `get_velocity` of diffusers has it for training."""
    folder = changed(repositories["sdxl"], tmp_path / "changed", {SCHEDULER: ZERO_SNR})
    backend, t = backend_of("sdxl", folder), torch.tensor([0.05, 0.5, 1.0])
    scheduler = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    x0, eps, guess = noise(1), noise(2), noise(3)
    index = (t * 1000).round().long() - 1
    v = scheduler.get_velocity(x0, eps, index)
    level = backend.level(t)
    x_t = scheduler.add_noise(x0, eps, index)
    guessed_v = (level.alpha * x_t - guess) / level.sigma
    weighted = backend.denoising_weight(level) * (guess - x0).square()
    torch.testing.assert_close(weighted, (guessed_v - v).square(), rtol=1e-3, atol=1e-4)


def test_embeddings_of_no_prompt_are_kept_apart(
    repositories: dict[str, Path], tmp_path: Path
) -> None:
    """Zeros that an earlier version kept for such a repository are not its '' of now."""
    changes = {"model_index.json": {"force_zeros_for_empty_prompt": False}}
    folder = changed(repositories["sdxl"], tmp_path / "changed", changes)
    encoders, plain = (backend_of("sdxl", f).encoders for f in (folder, repositories["sdxl"]))
    assert encoders is not None
    assert plain is not None
    assert set(encoders.identity()) - set(plain.identity()) == {"no_prompt"}
