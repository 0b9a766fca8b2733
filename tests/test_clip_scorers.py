"""The CLIP scorers at tiny size: real classes, seeded, through files in the published formats.

A network of open_clip is held against transformers' implementation with the same weights, and the
other way round; each image rule against a restatement with Pillow and numpy.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import file_sha256, read_json
from ddmd_bench.measuring.doctor import require_healthy
from ddmd_bench.planning.downloads import require_here
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.scorers import METRICS, SCORERS, ScorerModel, loaded, needed_scorers
from ddmd_bench.scorers.checkpoints import shapes_of
from ddmd_bench.scorers.clip import aesthetic, features, scorer, transforms
from ddmd_bench.scorers.clip.scorer import READINGS
from ddmd_bench.scorers.clip.tokens import tokens
from ddmd_bench.scorers.weights import OWN_FOLDER
from ddmd_bench.stages.doctor import doctor
from ddmd_bench.stages.generate import generate
from ddmd_bench.stages.report import report
from ddmd_bench.stages.score import score
from ddmd_bench.suite.files import load_suite
from tests.pictures import Code, scores, scores_alone

COSINES = ("hps_v21", "hps_v20", "clip_score_vit_g_14", "clip_score_vit_l_14", "pick_score")
PROMPTS = ["a red bicycle", "two dogs on a beach, oil painting"]
LOGIT_SCALE = 4.6052

# 224 px as in full size, with patches so large that there are 16 of them.
SMALL = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 224, "layers": 2, "width": 40, "head_width": 20, "mlp_ratio": 4.0,
        "patch_size": 56,
    },
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2,
    },
}  # fmt: skip
SMALL_QUICK = SMALL | {"quick_gelu": True}
SMALL_TRANSFORMERS = {
    "projection_dim": 24,
    "text_config": {
        "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2,
        "num_hidden_layers": 2, "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 40, "intermediate_size": 160, "num_attention_heads": 2,
        "num_hidden_layers": 2, "patch_size": 56, "hidden_act": "gelu",
    },
}  # fmt: skip
SMALL_CONFIGS = {
    "hps_v21": SMALL,
    "hps_v20": SMALL,
    "clip_score_vit_g_14": SMALL,
    "clip_score_vit_l_14": SMALL_QUICK,
    "pick_score": SMALL_TRANSFORMERS,
}


def in_words_of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights under transformers' key names."""
    words = {
        "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
    }  # fmt: skip
    outer = {
        "logit_scale": "logit_scale",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
        "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
        "visual.ln_post.weight": "vision_model.post_layernorm.weight",
        "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    }
    found = {outer[key]: value for key, value in state.items() if key in outer}
    found["text_projection.weight"] = state["text_projection"].T.contiguous()
    found["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for key, value in state.items():
        tower, inside, rest = key.partition("transformer.resblocks.")
        if not inside:
            continue
        number, _, name = rest.partition(".")
        place = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
        module, _, kind = name.rpartition(".")
        if module == "attn":  # in_proj_weight, in_proj_bias
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                found[f"{place}.self_attn.{letter}_proj.{kind.removeprefix('in_proj_')}"] = part
        else:
            found[f"{place}.{words[module]}.{kind}"] = value
    return {key: value.contiguous() for key, value in found.items()}


def small_state(config: Mapping[str, Any] = SMALL) -> dict[str, Tensor]:
    """open_clip's seeded initial weights, every one moved, so that none is 0 or 1 by default."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = open_clip.CLIP(**config).state_dict()
        moved = {key: value + 0.1 * torch.randn(value.shape) for key, value in state.items()}
    return moved | {"logit_scale": torch.tensor(LOGIT_SCALE)}


def write_checkpoint(name: str, folder: Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """A scorer's file in its published format, with small weights."""
    path = folder / SCORERS[name].weights[0].files[0]
    tensors = dict(small_state() if state is None else state)
    if path.name == "model.safetensors" and state is None:
        tensors = in_words_of_transformers(tensors)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        key = READINGS[name].architecture.key
        torch.save({key: tensors, "epoch": 3} if key else tensors, path)
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for weights, and every scorer at small size."""
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    monkeypatch.delenv("HPS_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, config in SMALL_CONFIGS.items():
        small = replace(READINGS[name].architecture, config=config)
        monkeypatch.setitem(READINGS, name, replace(READINGS[name], architecture=small))
    return tmp_path


def load(name: str, dtype: torch.dtype = torch.float32) -> ScorerModel:
    return SCORERS[name].load(name, "cpu", dtype)


def photograph(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with noise and sharp edges."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(9 * x + 5 * y + k) for k in range(3)]
    pixels = np.stack(waves, -1) * 90 + 128 + draw.normal(0, 20, (height, width, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray((x * 255).astype(np.uint8)))
    return image.convert(mode)


PICTURES = [photograph(300, 300), photograph(200, 340, seed=1), photograph(90, 60, seed=2)]


# full size


def expected_state(name: str) -> dict[str, tuple[int, ...]]:
    """Every key of a scorer's file of weights with its shape, without memory for the weights."""
    return shapes_of(READINGS[name].architecture.empty().state_dict())


@pytest.mark.parametrize(
    ("name", "parameters", "keys"),
    [
        ("hps_v21", 986_109_441, 686),
        ("hps_v20", 986_109_441, 686),
        ("clip_score_vit_g_14", 1_366_678_273, 782),
        ("clip_score_vit_l_14", 427_616_513, 446),
        ("pick_score", 986_109_441, 910),
    ],
)
def test_full_size_networks(name: str, parameters: int, keys: int) -> None:
    state = expected_state(name)
    assert sum(math.prod(shape) for shape in state.values()) == parameters
    assert len(state) == keys


def test_pick_score_is_the_network_of_hps_in_other_words() -> None:
    """Every key and shape of the one is a key and shape of the other, at full size."""
    hps = READINGS["hps_v21"].architecture.empty().state_dict()
    assert all(value.is_meta for value in hps.values())
    renamed = {k: tuple(v.shape) for k, v in in_words_of_transformers(hps).items()}
    assert renamed == expected_state("pick_score")


def test_only_openai_trained_with_the_approximate_gelu() -> None:
    quick = {name for name in COSINES if READINGS[name].architecture.config.get("quick_gelu")}
    assert quick == {"clip_score_vit_l_14"}


def test_every_column_is_a_metric() -> None:
    for name in (*COSINES, "aesthetic"):
        assert SCORERS[name].columns == (name,)
        assert METRICS[name].better == "higher"
        assert needed_scorers([name]) == [name]


# the value


def features_of_transformers(
    state: Mapping[str, Tensor], activation: str, pixels: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """Normalised image and text features by transformers' CLIPModel."""
    config = {
        key: value | {"hidden_act": activation} if isinstance(value, dict) else value
        for key, value in SMALL_TRANSFORMERS.items()
    }
    model = CLIPModel(CLIPConfig(**config)).eval()
    model.load_state_dict(in_words_of_transformers(state))
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
    return out.image_embeds, out.text_embeds


@pytest.mark.parametrize(
    ("name", "activation", "prefix"),
    [
        ("hps_v21", "gelu", ""),
        ("hps_v20", "gelu", ""),
        ("clip_score_vit_g_14", "gelu", "A photo depicts "),
        ("clip_score_vit_l_14", "quick_gelu", ""),
    ],
)
def test_the_cosine_is_that_of_another_implementation(
    weights: Path, name: str, activation: str, prefix: str
) -> None:
    write_checkpoint(name, weights)
    prompts = [*PROMPTS, "a cat"]
    ids = open_clip.get_tokenizer("ViT-H-14")([prefix + prompt for prompt in prompts])
    model = load(name)
    pixels = torch.stack([model.preprocess(image) for image in PICTURES])
    images, texts = features_of_transformers(small_state(), activation, pixels, ids)
    expected = (images * texts).sum(1)
    assert scores(model, PICTURES, prompts) == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.01


def test_pick_score_is_that_of_another_implementation_times_its_scale(weights: Path) -> None:
    write_checkpoint("pick_score", weights)
    reference = open_clip.CLIP(**SMALL).eval()
    reference.load_state_dict(small_state())
    model = load("pick_score")
    pixels = torch.stack([model.preprocess(image) for image in PICTURES[:2]])
    with torch.no_grad():
        images, texts, scale = reference(pixels, open_clip.get_tokenizer("ViT-H-14")(PROMPTS))
    expected = scale * (images * texts).sum(1)
    assert scores(model, PICTURES[:2], PROMPTS) == pytest.approx(expected, abs=1e-3)
    assert scale.item() == pytest.approx(math.exp(LOGIT_SCALE))


@pytest.mark.parametrize("name", ["hps_v21", "pick_score"])
def test_neither_batch_nor_its_mates_matter(weights: Path, name: str) -> None:
    write_checkpoint(name, weights)
    model = load(name)
    prompts = [*PROMPTS, "a cat"]
    scale = math.exp(LOGIT_SCALE) if name == "pick_score" else 1.0
    together = scores(model, PICTURES, prompts)
    alone = scores_alone(model, PICTURES, prompts)
    backwards = scores(model, PICTURES[::-1], prompts[::-1]).flip(0)
    assert together == pytest.approx(alone, abs=1e-6 * scale)
    assert together == pytest.approx(backwards, abs=1e-6 * scale)


@pytest.mark.parametrize("name", COSINES)
def test_prompts_and_images_matter(weights: Path, name: str) -> None:
    write_checkpoint(name, weights)
    model = load(name)
    right, other = scores(model, PICTURES[:2], PROMPTS), scores(model, PICTURES[:2], PROMPTS[::-1])
    assert ((right - other).abs() > 1e-4).all()
    assert scores(model, [PICTURES[0], PICTURES[1]], PROMPTS[:1] * 2).diff().abs() > 1e-4


def test_many_prompts_are_the_same_as_one(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint("hps_v21", weights)
    monkeypatch.setattr(scorer, "PROMPTS_AT_ONCE", 4)
    model = load("hps_v21")
    prompts = [f"number {k}" for k in range(9)]
    rows = model.encode_prompts(prompts)
    for prompt, row in zip(prompts, rows, strict=True):
        (alone,) = model.encode_prompts([prompt])
        assert row["text"] == pytest.approx(alone["text"], abs=1e-6)
        assert row["text"].norm().item() == pytest.approx(1)
        # What torch.save would write with it.
        assert row["text"].untyped_storage().nbytes() == row["text"].nbytes


def test_bfloat16_towers_give_float32_numbers(weights: Path) -> None:
    for name in ("hps_v21", "pick_score"):
        write_checkpoint(name, weights)
        exact, model = load(name), load(name, torch.bfloat16)
        assert {p.dtype for p in model.network.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
        scale = math.exp(LOGIT_SCALE) if name == "pick_score" else 1.0
        assert model.network.logit_scale == pytest.approx(math.exp(LOGIT_SCALE))  # type: ignore[attr-defined]
        (row,) = model.encode_prompts(PROMPTS[:1])
        assert row["text"].norm().item() == pytest.approx(1, abs=1e-6)
        near = scores(model, PICTURES[:2], PROMPTS)
        assert near.dtype == torch.float32
        assert near == pytest.approx(scores(exact, PICTURES[:2], PROMPTS), abs=0.02 * scale)


# images


def rgb_of(image: Image.Image) -> np.ndarray[Any, Any]:
    """[H, W, 3] of 8 bits, without Pillow's conversion: transparency is dropped."""
    pixels = np.asarray(image)
    if image.mode == "P":
        palette = np.asarray(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
        return palette[pixels]
    if image.mode in ("L", "LA"):
        gray = pixels if image.mode == "L" else pixels[..., 0]
        return np.stack([gray] * 3, -1)
    return pixels[..., :3]


def normalized(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[H, W, 3] in [0, 1] -> [3, H, W], by OpenAI's constants."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    return np.moveaxis((pixels - mean) / std, -1, 0)


def hps_rule(image: Image.Image) -> np.ndarray[Any, Any]:
    """HPS v2's rule once more: Pillow resizes each channel as floats, numpy pads."""
    pixels = rgb_of(image).astype(np.float32) / 255
    height, width = pixels.shape[:2]
    scale = 224 / max(height, width)
    new_height, new_width = (max(1, round(side * scale)) for side in (height, width))
    canvas = np.zeros((224, 224, 3), np.float32)
    top, left = (224 - new_height) // 2, (224 - new_width) // 2
    for k in range(3):
        channel = Image.fromarray(pixels[..., k]).resize((new_width, new_height), Image.BICUBIC)
        canvas[top : top + new_height, left : left + new_width, k] = np.asarray(channel)
    return normalized(canvas)


SIZES = [(224, 224), (512, 512), (300, 411), (640, 360), (223, 224), (224, 100), (37, 5), (1, 1),
         (1, 500), (500, 1), (2, 500)]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_hps_reads_every_shape_as_its_reference(width: int, height: int) -> None:
    image = photograph(width, height)
    found = transforms.hps(image)
    assert found.shape == (3, 224, 224)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - hps_rule(image)).max() < 1e-4


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA"])
def test_hps_reads_every_mode_as_its_reference(mode: str) -> None:
    image = photograph(320, 200, mode)
    found = transforms.hps(image).numpy()
    assert np.abs(found - hps_rule(image)).max() < 1e-4


def test_hps_keeps_what_the_cubic_kernel_overshoots() -> None:
    """Floats are resized, so that an edge rings beyond black and white; 8 bits would clip it."""
    edge = Image.fromarray(np.repeat([[0] * 50 + [255] * 50], 100, 0).astype(np.uint8))
    pixels = transforms.hps(edge).numpy()
    black, white = normalized(np.zeros((1, 1, 3))), normalized(np.ones((1, 1, 3)))
    assert pixels.max() > white.max() + 0.05
    assert pixels.min() < black.min() - 0.05


def openai_rule(image: Image.Image) -> np.ndarray[Any, Any]:
    """Shortest side to 224 in the image's own mode, centre, RGB."""
    short = min(image.size)
    image = image.resize(
        [int(224 * side / short) for side in image.size],  # type: ignore[arg-type]
        Image.BICUBIC,
    )
    left, top = (round((side - 224) / 2) for side in image.size)
    cropped = image.crop((left, top, left + 224, top + 224)).convert("RGB")
    return normalized(np.asarray(cropped) / 255)


@pytest.mark.parametrize(("width", "height"), [(224, 227), (512, 512), (300, 411), (640, 357)])
@pytest.mark.parametrize("mode", ["RGB", "LA", "P", "RGBA"])
def test_openai_and_dmd2_read_images_as_their_references(
    width: int, height: int, mode: str
) -> None:
    image = photograph(width, height, mode)
    assert np.abs(transforms.openai(image).numpy() - openai_rule(image)).max() < 1e-5
    side = min(width, height)
    left, top = round((width - side) / 2), round((height - side) / 2)
    square = Image.fromarray(rgb_of(image)[top : top + side, left : left + side])
    expected = openai_rule(square.resize((256, 256), Image.LANCZOS))
    assert np.abs(transforms.dmd2(image).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("width", "height"), [(224, 227), (300, 411), (640, 357), (37, 5)])
def test_pick_score_reads_images_as_transformers(width: int, height: int) -> None:
    backend = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    for mode in ("RGB", "RGBA", "L", "P"):
        image = photograph(width, height, mode)
        expected = backend.CLIPImageProcessorPil()(image.convert("RGB"), return_tensors="np")
        found = transforms.transformers(image).numpy()
        assert np.abs(found - expected["pixel_values"][0]).max() < 1e-5


# prompts

ODD_PROMPTS = ["", "  A  CAT\n", "naïve café", "it's 3 o'clock, 日本", "#!?&amp; <b>", "“quoted”"]
LONG = " ".join(f"word {k}" for k in range(60))


@pytest.mark.parametrize("prompt", [*PROMPTS, *ODD_PROMPTS, LONG])
def test_tokens_are_those_of_open_clip(prompt: str) -> None:
    ids, cut = tokens(prompt)
    assert ids.tolist() == open_clip.get_tokenizer("ViT-H-14")(prompt)[0].tolist()
    assert cut == (prompt == LONG)


@pytest.fixture(scope="module")
def tokenizer_of_transformers() -> Any:
    """transformers' CLIP tokenizer on the vocabulary that open_clip carries."""
    vocabulary = open_clip.tokenizer.SimpleTokenizer()
    merges = sorted(vocabulary.bpe_ranks, key=vocabulary.bpe_ranks.__getitem__)
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocab = {names.get(token, token): k for token, k in vocabulary.encoder.items()}
    return CLIPTokenizer(vocab=vocab, merges=[pair for pair in merges if len(pair) == 2])


@pytest.mark.parametrize("prompt", [*PROMPTS, *ODD_PROMPTS, LONG])
def test_pick_score_reads_prompts_as_transformers(
    prompt: str, tokenizer_of_transformers: Any
) -> None:
    expected = tokenizer_of_transformers(prompt, truncation=True, max_length=77).input_ids
    ids, _ = tokens(prompt, mended=False)
    assert ids[: len(expected)].tolist() == expected
    assert not ids[len(expected) :].any()


def test_text_is_mended_for_all_but_pick_score() -> None:
    assert tokens("“a &amp; b”")[0].equal(tokens('"a & b"')[0])
    assert not tokens("“a &amp; b”", mended=False)[0].equal(tokens('"a & b"', mended=False)[0])
    assert [name for name in COSINES if not READINGS[name].mended] == ["pick_score"]


def dmd2_ids(prompt: str) -> Tensor:
    """As DMD2 puts its prefix in: between start and prompt, cut at 77, the last one an end."""
    tokenize = open_clip.get_tokenizer("ViT-g-14")
    read, prefix = tokenize([prompt]), tokenize(["A photo depicts "])[:, 1:4]
    ids = torch.cat([read[:, :1], prefix, read[:, 1:]], 1)[:, :77]
    if ids[0, 76] > 0:
        ids[0, 76] = 49407
    return ids[0]


@pytest.mark.parametrize("n_words", [1, 71, 72, 73, 74, 75, 76, 90])
def test_the_prefix_is_placed_as_by_dmd2(n_words: int) -> None:
    prompt = " ".join(["cat"] * n_words)
    ids, cut = tokens(prompt, READINGS["clip_score_vit_g_14"].prefix)
    assert ids.equal(dmd2_ids(prompt))
    assert cut == (n_words > 72)


def test_a_prompt_too_long_is_told_and_its_end_not_read(weights: Path) -> None:
    write_checkpoint("hps_v21", weights)
    write_checkpoint("clip_score_vit_g_14", weights)
    fits, too_long = " ".join(["cat"] * 75), " ".join(["cat"] * 75 + ["dog"])
    one, other = load("hps_v21").encode_prompts([fits, too_long])
    assert "truncated" not in one
    assert other["truncated"].item() is True
    assert one["text"] == pytest.approx(other["text"], abs=1e-6)
    (with_prefix,) = load("clip_score_vit_g_14").encode_prompts([fits])
    assert with_prefix["truncated"].item() is True


# weights


@pytest.mark.parametrize("name", ["hps_v21", "clip_score_vit_g_14", "clip_score_vit_l_14"])
def test_weights_of_another_network_are_refused_with_their_keys(weights: Path, name: str) -> None:
    state = small_state()
    del state["ln_final.bias"]
    state["visual.proj"] = torch.zeros(40, 25)
    state["score_predictor.weight"] = torch.zeros(2)
    path = write_checkpoint(name, weights, state)
    with pytest.raises(BenchError) as caught:
        load(name)
    message = str(caught.value)
    assert str(path) in message
    assert "1 missing: ln_final.bias" in message
    assert "1 unexpected: score_predictor.weight" in message
    assert "1 of another shape: visual.proj (40, 25), expected (40, 24)" in message


def test_many_wrong_keys_are_counted_and_a_few_named(weights: Path) -> None:
    state = {f"module.{key}": value for key, value in small_state().items()}
    write_checkpoint("hps_v21", weights, state)
    with pytest.raises(BenchError, match=rf"{len(state)} unexpected: (\S+, ){{5}}\.\.\.$"):
        load("hps_v21")


def test_position_ids_of_older_files_are_no_weights(weights: Path) -> None:
    write_checkpoint("pick_score", weights)
    plain = scores(load("pick_score"), PICTURES[:1], PROMPTS[:1])
    older = in_words_of_transformers(small_state()) | {
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "vision_model.embeddings.position_ids": torch.arange(17)[None],
    }
    write_checkpoint("pick_score", weights, older)
    # Mapped memory begins elsewhere, which moves the last bits.
    assert scores(load("pick_score"), PICTURES[:1], PROMPTS[:1]) == pytest.approx(plain, abs=1e-4)


def test_a_pickle_is_data_only(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = weights / "HPS_v2.1_compressed.pt"
    path.write_bytes(pickle.dumps({"state_dict": Code()}, protocol=2))
    with pytest.raises(BenchError, match="cut, or no PyTorch file of tensors"):
        load("hps_v21")
    assert not capsys.readouterr().out
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(BenchError, match="Delete it and fetch it again"):
        load("hps_v21")


def test_a_cut_download_is_told(weights: Path) -> None:
    for name in ("clip_score_vit_l_14", "clip_score_vit_g_14"):
        path = write_checkpoint(name, weights)
        path.write_bytes(path.read_bytes()[:100_000])
        with pytest.raises(BenchError, match="Delete it and fetch it again"):
            load(name)


def test_a_checkpoint_without_its_entry_is_refused(weights: Path) -> None:
    torch.save({"model": {}}, weights / "HPS_v2.1_compressed.pt")
    with pytest.raises(BenchError, match="it holds model; expected an entry 'state_dict'"):
        load("hps_v21")


def test_the_format_of_old_torch_is_read(weights: Path) -> None:
    """It cannot be mapped into memory."""
    path = weights / "HPS_v2_compressed.pt"
    torch.save({"state_dict": small_state()}, path, _use_new_zipfile_serialization=False)
    old = scores(load("hps_v20"), PICTURES[:1], PROMPTS[:1])
    write_checkpoint("hps_v20", weights)
    assert scores(load("hps_v20"), PICTURES[:1], PROMPTS[:1]) == pytest.approx(old, abs=1e-6)


def test_half_precision_files_run_in_the_dtype_asked_for(weights: Path) -> None:
    write_checkpoint("hps_v21", weights, {k: v.half() for k, v in small_state().items()})
    model = load("hps_v21")
    assert {p.dtype for p in model.network.model.parameters()} == {torch.float32}  # type: ignore[attr-defined]


def test_hps_weights_are_found_where_hpsv2_keeps_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BenchError, match=r"HPS_v2\.1_compressed\.pt of xswu/HPSv2"):
        load("hps_v21")
    (weights / "root").mkdir()
    write_checkpoint("hps_v21", weights / "root")
    monkeypatch.setenv("HPS_ROOT", str(weights / "root"))
    assert load("hps_v21")
    (weights / "home/.cache/hpsv2").mkdir(parents=True)
    write_checkpoint("hps_v20", weights / "home/.cache/hpsv2")
    assert load("hps_v20")


# the aesthetic predictor


def head_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        key: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for key, shape in shapes_of(aesthetic.Head().state_dict()).items()
    }


@pytest.fixture
def aesthetic_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both files of the aesthetic predictor, at small size."""
    clip, head = SCORERS["aesthetic"].weights
    small_head = replace(head, sha256=None)
    row = replace(SCORERS["aesthetic"], weights=(clip, small_head))
    monkeypatch.setitem(SCORERS, "aesthetic", row)
    monkeypatch.setattr(aesthetic, "WIDTHS", (24, *aesthetic.WIDTHS[1:]))
    write_checkpoint("clip_score_vit_l_14", weights)
    torch.save(head_state(), weights / head.files[0])
    return weights


def test_the_aesthetic_rating_is_a_product_of_matrices(aesthetic_weights: Path) -> None:
    model = load("aesthetic")
    pixels = torch.stack([model.preprocess(image) for image in PICTURES])
    ids = torch.zeros(1, 77, dtype=torch.long)
    rating, _ = features_of_transformers(small_state(), "quick_gelu", pixels, ids)
    state = head_state()
    for place in (0, 2, 4, 6, 7):
        rating = rating @ state[f"layers.{place}.weight"].T + state[f"layers.{place}.bias"]
    found = model.score_batch(pixels, model.encode_prompts(["a"] * 3)).columns["aesthetic"]
    assert found == pytest.approx(rating[:, 0], abs=1e-5)
    assert rating.std() > 0.001


def test_the_aesthetic_predictor_reads_no_prompt(aesthetic_weights: Path) -> None:
    assert load("aesthetic").encode_prompts(PROMPTS) == [{}, {}]


def test_the_doctor_finds_all_of_them_healthy(aesthetic_weights: Path) -> None:
    for name in COSINES:
        write_checkpoint(name, aesthetic_weights)
    loaded.cache_clear()
    try:
        findings = require_healthy([*COSINES, "aesthetic"])
    finally:
        loaded.cache_clear()
    assert sum(finding.passed is True for finding in findings) == 3 * len(COSINES) + 2


def test_the_published_head() -> None:
    shapes = shapes_of(aesthetic.Head().state_dict())
    assert shapes["layers.0.weight"] == (1024, 768)
    assert shapes["layers.7.weight"] == (1, 16)
    assert sum(math.prod(shape) for shape in shapes.values()) == 927_969


def test_another_head_is_refused(aesthetic_weights: Path) -> None:
    torch.save(
        {"layers.0.weight": torch.zeros(1, 24)},
        aesthetic_weights / "sac+logos+ava1-l14-linearMSE.pth",
    )
    with pytest.raises(BenchError, match=r"9 missing: .*1 of another shape: layers\.0\.weight"):
        load("aesthetic")


# A suite


def test_a_suite_has_them_examined_and_reported(
    weights: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str], tmp_path: Path
) -> None:
    """Every stage on the real classes, from missing weights to the report."""

    def planned() -> Plan:
        return make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")

    def quiet(done: int, total: int) -> None:
        assert done <= total

    tiny["students"] = {name: tiny["students"][name] for name in ("real", "teacher_2")}
    tiny |= {"baseline": "teacher_2", "metrics": ["hps_v21", "std"]}
    before = planned()
    with pytest.raises(BenchError, match=r"HPS v2\.1: xswu/HPSv2@main is not on this machine"):
        require_here(before.downloads)
    path = write_checkpoint("hps_v21", weights)
    loaded.cache_clear()
    try:
        plan = planned()
        assert not plan.downloads.remotes  # found in a folder of the user's
        assert plan.protocol["scorers"] == {"hps_v21": file_sha256(path)}
        task = plan.task("doctor")
        assert task.key != before.task("doctor").key
        doctor(plan, task, quiet)
        assert {f["passed"] for f in read_json(task.folder / "done.json")["findings"]} == {True}
        for name in plan.suite.students:
            generate(plan, plan.task("generate", name, 0), quiet)
            score(plan, plan.task("score", name, 0), quiet)
        record = report(plan)
        cell = record["table"]["teacher_2"]["hps_v21"]["all"]
        assert cell["n"] == cell["n_expected"] == 10
        assert -1 < cell["low"] < cell["value"] < cell["high"] < 1
        # Another metric looks at the images again; what HPS said of them is kept.
        kept = sorted((tmp_path / "runs" / "tiny" / "answers").rglob("hps_v21-*/*.npz"))
        assert len(kept) == 2
        times = [part.stat().st_mtime_ns for part in kept]
        tiny["metrics"].append("mean")
        plan = planned()
        assert plan.task("doctor").complete()
        for name in plan.suite.students:
            score(plan, plan.task("score", name, 0), quiet)
        assert [part.stat().st_mtime_ns for part in kept] == times
        assert report(plan)["table"]["teacher_2"]["hps_v21"]["all"] == cell
    finally:
        loaded.cache_clear()


def test_features_at_336_px_are_the_image_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMMD's: of the centre square, of length 1, as open_clip's own network gives them."""
    vision = SMALL_QUICK["vision_cfg"] | {"image_size": features.SIZE, "patch_size": 84}
    config = SMALL_QUICK | {"vision_cfg": vision}
    monkeypatch.setattr(features, "ARCHITECTURE", replace(features.ARCHITECTURE, config=config))
    torch.manual_seed(3)
    network = open_clip.CLIP(**config).eval()
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    model = SCORERS["clip_vit_l_14_336"].load("clip_vit_l_14_336", "cpu", torch.bfloat16)
    levels = np.random.default_rng(0).integers(0, 256, (50, 81, 3)).astype(np.uint8)
    image = Image.fromarray(levels)
    square = image.crop((15, 0, 65, 50)).resize((336, 336), Image.Resampling.BICUBIC)
    inputs = model.preprocess(image)
    assert np.array_equal(inputs.numpy(), np.asarray(square))
    pixels = torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.inference_mode():
        expected = network.encode_image((pixels - mean) / std, normalize=True)
    found = model.score_batch(inputs[None], [{}]).features
    assert found is not None
    assert found.norm(dim=1).item() == pytest.approx(1, abs=1e-5)
    assert (found - expected).abs().max() < 1e-5
