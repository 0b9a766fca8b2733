"""SDXL on diffusers' own classes at tiny size: what it computes is what diffusers computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from tiny_sd15 import write_repository as write_sd15
from tiny_sdxl import RESOLUTION, write_repository
from torch import Tensor

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.terms import Cond
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.update import Training

PROMPTS = ["a red cat", "a small star on the left, in blue", "dogs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def backend(folder: Path) -> Backend:
    """The backend with its prompts encoded as they are asked for."""
    made = BACKENDS["sdxl"](Model(repository=str(folder), resolution=RESOLUTION))
    assert made.encoders is not None
    encode, collate = made.encoders.load_prompt_encoder("cpu"), made.encoders.collate
    latents = torch.randn(16, *made.latent_shape, generator=torch.Generator().manual_seed(5))
    return dataclasses.replace(
        made,
        encode_prompts=lambda prompts: collate(encode(prompts)),
        draw_prompt=lambda generator: PROMPTS[
            int(torch.randint(len(PROMPTS), (), generator=generator))
        ],
        draw_real_latents=lambda generators: (
            PROMPTS[:1] * len(generators),
            latents[: len(generators)],
        ),
        real_moments=(0.0, 1.0),
    )


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(seed: int = 0) -> Tensor:
    size = RESOLUTION // 8
    return torch.randn(len(PROMPTS), 4, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
def test_the_teacher_samples_as_the_pipeline(
    backend: Backend, pipeline: Any, guidance_scale: float
) -> None:
    """diffusers' StableDiffusionXLPipeline on the same weights, prompts and noise."""
    expected = pipeline(
        PROMPTS,
        num_inference_steps=8,
        guidance_scale=guidance_scale,
        latents=noise(),
        output_type="latent",
    ).images
    cond, uncond = backend.encode_prompts(PROMPTS), backend.encode_prompts([""] * len(PROMPTS))
    teacher = backend.load_teacher()
    latents = backend.sample_teacher(teacher, 8, guidance_scale, cond, uncond, noise())
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


def test_prompts_are_encoded_as_the_pipeline_does(backend: Backend, pipeline: Any) -> None:
    embeds, _, pooled, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    cond = backend.encode_prompts(PROMPTS)
    torch.testing.assert_close(cond["prompt_embeds"], embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(cond["text_embeds"], pooled, rtol=0, atol=1e-6)
    assert cond["time_ids"].tolist() == [[RESOLUTION, RESOLUTION, 0, 0, RESOLUTION, RESOLUTION]] * 3


def test_no_prompt_is_zero_embeddings(backend: Backend) -> None:
    """As DMD2's teacher and the pipeline have it for SDXL; not an encoded ''."""
    uncond = backend.encode_prompts(["", "a red cat"])
    assert uncond["prompt_embeds"][0].abs().max() == uncond["text_embeds"][0].abs().max() == 0
    assert uncond["prompt_embeds"][1].abs().max() > 0


def test_images_are_decoded_and_encoded_as_by_the_pipeline_s_vae(
    backend: Backend, pipeline: Any
) -> None:
    images = backend.decode(noise())
    factor = pipeline.vae.config.scaling_factor
    with torch.no_grad():
        expected = pipeline.vae.decode(noise() / factor).sample
        latents = pipeline.vae.encode(expected).latent_dist.mode() * factor
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert backend.encoders is not None
    encoded = backend.encoders.load_image_encoder("cpu")(expected)
    torch.testing.assert_close(encoded, latents, rtol=0, atol=1e-6)


def test_x0_is_what_eps_leaves(backend: Backend, pipeline: Any) -> None:
    """x0 = (x_t - sqrt(1 - a) eps) / sqrt(a), a of the DDPM index; t = 1 is index 999."""
    cond = backend.encode_prompts(PROMPTS)
    t = torch.tensor([1.0, 0.75, 0.25])
    a = pipeline.scheduler.alphas_cumprod[[999, 749, 249]].view(-1, 1, 1, 1)
    x_t = noise()
    with torch.no_grad():
        eps = pipeline.unet(
            x_t,
            torch.tensor([999, 749, 249]),
            cond["prompt_embeds"],
            added_cond_kwargs={k: cond[k] for k in ("text_embeds", "time_ids")},
        ).sample
        x0 = backend.load_teacher()(x_t, t, cond)
    torch.testing.assert_close(x0, (x_t - (1 - a).sqrt() * eps) / a.sqrt(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lora_rank", [None, 2])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_updates_the_student(
    backend: Backend, method: str, lora_rank: int | None
) -> None:
    settings = TrainSettings(
        batch_size=4, fake_score_updates=1, lora_rank=lora_rank, fake_score_sees="step"
    )
    training = Training(backend, METHODS[method], settings, seed=0, device="cpu")
    before = {k: v.clone() for k, v in training.networks["student"].state().items()}
    for iteration in (1, 2, 3):  # DM alone has nothing to say in the first
        row = training.update(iteration)
    assert row["loss_student"] > 0
    after = training.networks["student"].state()
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert len(moved) == len(before)
    assert all(value.isfinite().all() for value in after.values())


def test_the_fake_score_s_loss_is_the_error_of_eps(backend: Backend) -> None:
    """DMD2 trains SDXL's fake score on eps-MSE; weighted x0 errors are the same number."""
    level = backend.level(torch.tensor([0.05, 0.5, 1.0]))
    x0, eps, guess = noise(1), noise(2), noise(3)
    x_t = level.alpha * x0 + level.sigma * eps
    error = ((x_t - level.alpha * guess) / level.sigma - eps).square()
    weighted = backend.denoising_weight(level) * (guess - x0).square()
    torch.testing.assert_close(weighted, error, rtol=1e-4, atol=1e-4)


def test_stable_diffusion_1_5_samples_as_its_pipeline(tmp_path: Path) -> None:
    """One text encoder, no size, an encoded '' for no prompt, another scheduler."""
    folder = write_sd15(tmp_path / "sd15")
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        PROMPTS, num_inference_steps=5, guidance_scale=6.0, latents=noise(), output_type="latent"
    ).images
    made = BACKENDS["sd15"](Model(repository=str(folder), resolution=RESOLUTION))
    assert made.encoders is not None
    encode, collate = made.encoders.load_prompt_encoder("cpu"), made.encoders.collate
    cond, uncond = collate(encode(PROMPTS)), collate(encode([""] * len(PROMPTS)))
    assert uncond["prompt_embeds"].abs().max() > 0
    latents = made.sample_teacher(made.load_teacher(), 5, 6.0, cond, uncond, noise())
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("backend_name", "network"), [("sdxl", "unet"), ("sd15", "unet"), ("lumina2", "transformer")]
)
def test_each_repository_has_its_own_commit(backend_name: str, network: str) -> None:
    """The model's and the VAE's, and of whole commits no file is needed to know the weights."""
    model = Model(
        repository="owner/model", revision="a" * 40, vae="other/vae", vae_revision="b" * 40
    )
    made = BACKENDS[backend_name](model)
    assert made.weights() == {network: f"owner/model@{'a' * 40}", "vae": f"other/vae@{'b' * 40}"}
    assert {(r.repository, r.commit) for r in made.remotes} == {
        ("owner/model", "a" * 40),
        ("other/vae", "b" * 40),
    }


def test_another_vae_is_not_sought_at_the_default_one_s_commit() -> None:
    made = BACKENDS["sdxl"](Model(vae="other/vae"))
    (vae,) = (remote for remote in made.remotes if remote.repository == "other/vae")
    assert vae.revision is None


def test_a_repository_of_one_variant_is_exported_whole(tmp_path: Path) -> None:
    folder = write_repository(tmp_path)
    for file in [*folder.rglob("*.safetensors")]:
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    made = BACKENDS["sdxl"](Model(repository=str(folder), resolution=RESOLUTION, variant="fp16"))
    assert made.pipeline is not None
    pipeline = made.pipeline.load({"unet": made.load_teacher().unet}, torch.float32)
    assert {"unet", "vae", "text_encoder", "text_encoder_2"} <= pipeline.components.keys()
    assert pipeline.text_encoder_2 is not None


def test_an_empty_prompt_is_refused(backend: Backend) -> None:
    with pytest.raises(Exception, match="stands for no prompt"):
        backend.check_prompt("  ")


def _cond_rows(cond: Cond, rows: slice) -> Cond:
    return {k: v[rows] for k, v in cond.items()}


def test_a_sample_does_not_depend_on_its_batch(backend: Backend) -> None:
    cond, teacher = backend.encode_prompts(PROMPTS), backend.load_teacher()
    t = torch.tensor([0.9, 0.5, 0.2])
    with torch.no_grad():
        together = teacher(noise(), t, cond)
        alone = teacher(noise()[1:2], t[1:2], _cond_rows(cond, slice(1, 2)))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)


def test_the_printed_targets_are_those_of_the_published_vae() -> None:
    """Eq. 7: latents of another VAE have another mean and variance."""
    assert BACKENDS["sdxl"](Model(dtype="bfloat16")).real_moments == (0.075, 0.81)
    assert BACKENDS["sdxl"](Model(vae="owner/vae")).real_moments is None
    assert BACKENDS["sdxl"](Model(repository="owner/model")).real_moments is None
    assert BACKENDS["sd15"](Model()).real_moments is None
