"""Lumina-Image-2.0 on diffusers' real classes at tiny size, against diffusers' own pipeline."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lumina2 import PUBLISHED, RESOLUTION, write_repository
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.backends.lumina2.backend import make_backend
from ddmd_bench.errors import BenchError
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.terms import Cond
from ddmd_bench.students.networks import Network, bottleneck_features
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.finite import require_finite_weights
from ddmd_bench.training.update import Training

PROMPTS = ["a red cup", "two green birds that sit on a fence, seen from far away", "Night."]
NUM = 4  # samples of a batch, one for each step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("lumina2"), seed=1)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Backend:
    return make_backend(Model(repository=str(folder), resolution=RESOLUTION))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    from diffusers import Lumina2Pipeline

    pipeline = Lumina2Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def backend(plain: Backend) -> Backend:
    """With prompts that are already encoded, and a real image for each."""
    encoders = plain.encoders
    assert encoders is not None
    texts = ["", *PROMPTS]
    rows = dict(zip(texts, encoders.load_prompt_encoder("cpu")(texts), strict=True))
    encode_images = encoders.load_image_encoder("cpu")

    def draw_prompt(generator: torch.Generator) -> str:
        return PROMPTS[int(torch.randint(len(PROMPTS), (), generator=generator))]

    def draw_real_latents(generators: Sequence[torch.Generator]) -> tuple[list[str], Tensor]:
        size = (3, RESOLUTION, RESOLUTION)
        images = torch.stack([torch.rand(size, generator=g) * 2 - 1 for g in generators])
        return [draw_prompt(g) for g in generators], encode_images(images)

    def encode_prompts(prompts: Sequence[str]) -> Cond:
        return encoders.collate([rows[prompt] for prompt in prompts])

    return dataclasses.replace(
        plain,
        draw_prompt=draw_prompt,
        encode_prompts=encode_prompts,
        draw_real_latents=draw_real_latents,
    )


def noise_of(backend: Backend, num: int) -> Tensor:
    return torch.randn(num, *backend.latent_shape, generator=torch.Generator().manual_seed(5))


def batch_of(backend: Backend) -> tuple[Tensor, Tensor, Cond]:
    """Noised latents, times and prompts of different length."""
    t = torch.rand(len(PROMPTS), generator=torch.Generator().manual_seed(6))
    return noise_of(backend, len(PROMPTS)), t, backend.encode_prompts(PROMPTS)


def transformer_of(denoiser: nn.Module) -> Any:
    transformer: Any = denoiser.transformer
    return transformer


# Against diffusers.


def test_embeddings_are_those_of_the_pipeline(backend: Backend, pipeline: Any) -> None:
    """The pipeline's negative prompt '' has no system prompt before it: its one token is <bos>."""
    with torch.no_grad():
        embeds, mask, uncond, uncond_mask = pipeline.encode_prompt(PROMPTS)
    for prompts, expected, wanted in (
        (PROMPTS, embeds, mask),
        ([""] * len(PROMPTS), uncond, uncond_mask),
    ):
        found = backend.encode_prompts(prompts)
        assert torch.equal(found["prompt_attention_mask"], wanted.bool())
        real = wanted.bool()[..., None]
        torch.testing.assert_close(found["prompt_embeds"] * real, expected * real)
    assert len(set(mask.sum(dim=1).tolist())) == len(PROMPTS)
    assert uncond_mask.sum(dim=1).tolist() == [1] * len(PROMPTS)


SAMPLINGS: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "as the model card": (4.0, {}, {"cfg_trunc_ratio": 0.25}),
    "guided throughout": (4.0, {"cfg_trunc_ratio": 1.0}, {"cfg_trunc_ratio": 1.0}),
    "not normalised": (
        4.0,
        {"cfg_trunc_ratio": 0.5, "cfg_normalization": False},
        {"cfg_trunc_ratio": 0.5, "cfg_normalization": False},
    ),
    "no guidance": (1.0, {}, {}),
}


@pytest.mark.parametrize(("scale", "ours", "theirs"), SAMPLINGS.values(), ids=SAMPLINGS)
def test_the_teacher_samples_as_the_pipeline(
    backend: Backend, pipeline: Any, scale: float, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    noise = noise_of(backend, len(PROMPTS))
    expected = pipeline(
        PROMPTS,
        height=RESOLUTION,
        width=RESOLUTION,
        num_inference_steps=8,
        guidance_scale=scale,
        latents=noise.clone(),
        output_type="latent",
        **theirs,
    ).images
    cond, uncond = (backend.encode_prompts(p) for p in (PROMPTS, [""] * len(PROMPTS)))
    found = backend.sample_teacher(backend.load_teacher(), 8, scale, cond, uncond, noise, **ours)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_each_option_of_the_teacher_changes_its_samples(backend: Backend) -> None:
    teacher, noise = backend.load_teacher(), noise_of(backend, len(PROMPTS))
    cond, uncond = (backend.encode_prompts(p) for p in (PROMPTS, [""] * len(PROMPTS)))
    made = [
        backend.sample_teacher(teacher, 8, scale, cond, uncond, noise, **ours)
        for scale, ours, _ in SAMPLINGS.values()
    ]
    for k, one in enumerate(made):
        assert all((one - other).abs().max() > 1e-2 for other in made[:k])
    assert {o for _, ours, _ in SAMPLINGS.values() for o in ours} == backend.teacher_options


def test_images_are_decoded_as_by_the_pipeline(backend: Backend, pipeline: Any) -> None:
    noise = noise_of(backend, len(PROMPTS))
    common = {"height": RESOLUTION, "width": RESOLUTION, "num_inference_steps": 2}
    latents, images = (
        pipeline(PROMPTS, latents=noise.clone(), output_type=kind, **common).images
        for kind in ("latent", "pt")
    )
    found = backend.decode(latents)
    assert found.dtype == torch.float32
    torch.testing.assert_close((found / 2 + 0.5).clamp(0, 1), images, rtol=0, atol=1e-6)
    assert found.abs().max() > 1  # not clipped


def test_the_vae_is_loaded_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import AutoencoderKL

    latents = noise_of(backend, 1)
    images = backend.decode(latents)
    monkeypatch.setattr(AutoencoderKL, "from_pretrained", None)
    assert torch.equal(backend.decode(latents), images)


def test_image_latents_are_the_mode_moved_and_scaled(backend: Backend, pipeline: Any) -> None:
    encoders = backend.encoders
    assert encoders is not None
    images = torch.rand(2, 3, RESOLUTION, RESOLUTION) * 2 - 1
    with torch.no_grad():
        mode = pipeline.vae.encode(images).latent_dist.mode()
        decoded = pipeline.vae.decode(mode).sample
    latents = encoders.load_image_encoder("cpu")(images)
    assert latents.shape == (2, *backend.latent_shape)
    torch.testing.assert_close(latents, (mode - 0.1159) * 0.3611)
    torch.testing.assert_close(backend.decode(latents), decoded, rtol=1e-4, atol=1e-5)


# The denoiser.


def test_x0_is_the_input_moved_along_the_prediction(backend: Backend) -> None:
    """Lumina's time is 1 - t, and its prediction x0 - eps: x0 = x_t + t * (x0 - eps)."""
    teacher, (x_t, t, cond) = backend.load_teacher(), batch_of(backend)
    with torch.no_grad():
        predicted = transformer_of(teacher)(
            x_t, 1 - t, cond["prompt_embeds"], cond["prompt_attention_mask"]
        ).sample
        x0 = teacher(x_t, t, cond)
    torch.testing.assert_close(x0, x_t + t.view(-1, 1, 1, 1) * predicted)
    level = backend.level(t)
    assert torch.equal(level.alpha.flatten(), 1 - t)
    assert torch.equal(level.sigma.flatten(), t)


def test_the_gradient_reaches_input_and_every_weight(backend: Backend) -> None:
    denoiser, (x_t, t, cond) = backend.load_teacher().requires_grad_(True), batch_of(backend)
    x_t.requires_grad_(True)
    denoiser(x_t, t, cond).square().mean().backward()
    assert x_t.grad is not None
    assert x_t.grad.abs().sum() > 0
    untouched = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched


def test_what_stands_after_a_prompt_changes_nothing(backend: Backend) -> None:
    teacher, (x_t, t, cond) = backend.load_teacher(), batch_of(backend)
    padding = ~cond["prompt_attention_mask"][..., None]
    assert padding.any()
    assert not (cond["prompt_embeds"] * padding).any()
    filled = cond["prompt_embeds"] + 9 * torch.randn(cond["prompt_embeds"].shape) * padding
    with torch.no_grad():
        expected = teacher(x_t, t, cond)
        assert torch.equal(teacher(x_t, t, {**cond, "prompt_embeds": filled}), expected)


def test_a_sample_does_not_depend_on_its_batch(backend: Backend) -> None:
    teacher, (x_t, t, cond) = backend.load_teacher(), batch_of(backend)
    with torch.no_grad():
        together = teacher(x_t, t, cond)
        for k, prompt in enumerate(PROMPTS):
            alone = teacher(x_t[k : k + 1], t[k : k + 1], backend.encode_prompts([prompt]))
            torch.testing.assert_close(together[k : k + 1], alone, rtol=0, atol=2e-6)


def test_the_step_embedding_changes_nothing_before_it_learns(backend: Backend) -> None:
    denoiser, (x_t, t, cond) = backend.load_teacher(), batch_of(backend)
    names = set(denoiser.state_dict())
    step = torch.arange(len(PROMPTS))
    told = {**cond, "step": step}
    with torch.no_grad():
        before = denoiser(x_t, t, cond)
        backend.add_step_embedding(denoiser, 4)
        assert torch.equal(denoiser(x_t, t, cond), before)
        assert torch.equal(denoiser(x_t, t, told), before)
        (added,) = set(denoiser.state_dict()) - names
        assert names < set(denoiser.state_dict())
        weight = denoiser.get_parameter(added)
        nn.init.normal_(weight[:4])
        changed = denoiser(x_t, t, told)
        assert torch.equal(denoiser(x_t, t, cond), before)  # a pass that is told no step
    assert all((changed[k] - before[k]).abs().max() > 1e-3 for k in range(len(PROMPTS)))
    assert weight.shape == (5, transformer_of(denoiser).config.hidden_size)


def test_the_bottleneck_is_the_image_s_tokens_half_way(backend: Backend) -> None:
    """Each sample's image stands behind its own text, of its own length."""
    denoiser, (x_t, t, cond) = backend.load_teacher(), batch_of(backend)
    transformer, bottleneck = transformer_of(denoiser), backend.bottleneck(denoiser)
    expected = denoiser(x_t, t, cond)
    half = len(transformer.layers) // 2
    tokens: list[Tensor] = []
    later: list[bool] = []
    keep = transformer.layers[half - 1].register_forward_hook(lambda m, i, out: tokens.append(out))
    run = transformer.layers[half].attn.register_forward_hook(lambda *_: later.append(True))
    features = bottleneck_features(Network(denoiser, {}), bottleneck, x_t, t, cond)
    keep.remove()
    assert not later
    assert features.shape == (len(PROMPTS), 32, 4, 4)
    for k, num in enumerate(cond["prompt_attention_mask"].sum(dim=1).tolist()):
        for row in range(4):
            for column in range(4):
                token = tokens[0][k, num + 4 * row + column]
                assert torch.equal(features[k, :, row, column], token)

    seen: list[Tensor] = []
    handle = bottleneck.register_forward_hook(lambda m, i, out: seen.append(out))
    assert torch.equal(denoiser(x_t, t, cond), expected)  # a listener changes nothing
    assert torch.equal(seen[0], features)
    handle.remove()
    run.remove()
    assert not transformer.layers[half]._forward_pre_hooks
    assert set(denoiser.state_dict()) == {f"transformer.{n}" for n in transformer.state_dict()}


# The objective.


def make_training(backend: Backend, method: str, **options: Any) -> Training:
    settings = {"batch_size": NUM, "fake_score_updates": 1, "mean_variance_targets": (0.0, 1.0)}
    return Training(
        backend, METHODS[method], TrainSettings.model_validate({**settings, **options}), 3, "cpu"
    )


def weights_of(training: Training) -> dict[str, Tensor]:
    return {
        f"{role}.{name}": value.clone()
        for role, network in training.networks.items()
        for name, value in network.state().items()
    }


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_updates(backend: Backend, method: str, options: dict[str, Any]) -> None:
    training = make_training(backend, method, fake_score_sees="step", **options)
    before = weights_of(training)
    row = training.update(1)
    if METHODS[method].tau_ca is None:  # the fake score starts as the teacher: DM is zero at first
        row = training.update(2)
    require_finite_weights(training.networks)
    after = weights_of(training)
    moved = {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])}
    assert moved == {"student", "average"} | ({"fake_score"} & training.networks.keys())
    assert ("loss_gan_student" in row) == METHODS[method].gan
    assert ("loss_fake_score" in row) == (METHODS[method].tau_dm is not None)
    if METHODS[method].tau_dm is not None:
        (embedding,) = training.networks["fake_score"].step_embedding.values()
        assert embedding[:4].abs().sum(1).min() > 0
        assert not embedding[4].any()


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_gradient_checkpointing_gives_the_same_update(
    backend: Backend, options: dict[str, Any]
) -> None:
    options = {"weight_gan": 1.0, "weight_gan_fake_score": 1.0, **options}
    trainings = [
        make_training(backend, "dmd2", gradient_checkpointing=on, **options) for on in (False, True)
    ]
    assert trainings[0].update(1) == pytest.approx(trainings[1].update(1), rel=1e-5, nan_ok=True)
    first, second = (weights_of(training) for training in trainings)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)


def test_lora_joins_attention_and_feed_forward_of_every_block(backend: Backend) -> None:
    transformer = transformer_of(backend.load_teacher())
    linear = {n for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    joined = {n for n in linear if n.endswith(tuple(f".{t}" for t in backend.lora_targets))}
    blocks = len(transformer.layers) + len(transformer.noise_refiner)
    blocks += len(transformer.context_refiner)
    assert len(joined) == 7 * blocks
    assert joined == {n for n in linear if ".attn." in n or ".feed_forward." in n}


# Configurations and refusals.


def test_the_published_configuration_has_its_published_size() -> None:
    """ "2.6B" in the model card; its two files hold 9.96 and 0.48 GB of float32."""
    from diffusers import Lumina2Transformer2DModel

    with torch.device("meta"):
        transformer = Lumina2Transformer2DModel(**PUBLISHED)
    assert sum(p.numel() for p in transformer.parameters()) == 2_609_769_152


@pytest.fixture
def bare(folder: Path, tmp_path: Path) -> Path:
    """The repository's configurations alone, the transformer's as it is published."""
    bare = tmp_path / "bare"
    weights = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(folder, bare, ignore=weights)
    (bare / "transformer" / "config.json").write_text(json.dumps(PUBLISHED))
    text = json.loads((bare / "text_encoder" / "config.json").read_text())
    text["hidden_size"] = PUBLISHED["cap_feat_dim"]
    (bare / "text_encoder" / "config.json").write_text(json.dumps(text))
    return bare


def test_a_backend_is_made_from_configurations_alone(bare: Path) -> None:
    backend = make_backend(Model(repository=str(bare)))
    assert backend.resolution == 1024
    assert backend.latent_shape == (16, 128, 128)
    assert backend.draw_real is None
    assert backend.draw_real_latents is None
    assert backend.real_moments is None
    assert not backend.prompt_sets


def test_identities_tell_weights_apart(folder: Path, plain: Backend, tmp_path: Path) -> None:
    other = make_backend(
        Model(repository=str(write_repository(tmp_path / "other", seed=2)), resolution=RESOLUTION)
    )
    again = make_backend(Model(repository=str(folder), resolution=RESOLUTION))
    assert plain.weights() == again.weights()
    assert not {k for k, v in plain.weights().items() if v == other.weights()[k]}
    assert plain.encoders is not None
    assert other.encoders is not None
    assert plain.encoders.identity() != other.encoders.identity()


def test_another_vae_decodes(folder: Path, plain: Backend, tmp_path: Path) -> None:
    other = write_repository(tmp_path / "other", seed=2)
    latents = noise_of(plain, 1)
    model = Model(repository=str(folder), resolution=RESOLUTION)
    backend = make_backend(model.model_copy(update={"vae": str(other / "vae")}))
    assert backend.weights()["transformer"] == plain.weights()["transformer"]
    assert backend.weights()["vae"] != plain.weights()["vae"]
    assert not torch.allclose(backend.decode(latents), plain.decode(latents))


REFUSED: dict[str, tuple[Callable[[Path], Model], str]] = {
    "no folder": (
        lambda f: Model(repository=str(f / "gone")),
        r"gone has no transformer/config\.json",
    ),
    "size": (lambda f: Model(repository=str(f), resolution=1000), "no multiple of 16 .* Take 992"),
    "too large": (lambda f: Model(repository=str(f), resolution=16384), "up to 8192. Take 8192"),
    "vae": (
        lambda f: Model(repository=str(f), vae=str(f / "vae4")),
        "reads 16 channels .* latents have 4 ",
    ),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(
    bare: Path, model: Callable[[Path], Model], message: str
) -> None:
    config = json.loads((bare / "vae" / "config.json").read_text())
    (bare / "vae4").mkdir()
    (bare / "vae4" / "config.json").write_text(json.dumps({**config, "latent_channels": 4}))
    with pytest.raises(BenchError, match=message):
        make_backend(model(bare))


def test_prompts_are_refused_or_referred_to_their_stage(plain: Backend) -> None:
    plain.check_prompt("a red cup")
    for empty in ("", "  "):
        with pytest.raises(BenchError, match="an empty prompt"):
            plain.check_prompt(empty)
    with pytest.raises(BenchError, match="encode stage"):
        plain.encode_prompts(["a red cup"])
    with pytest.raises(BenchError, match=r"train_data\.prompts"):
        plain.draw_prompt(torch.Generator())
