"""HPS v3 at tiny size, from files, against Qwen2-VL written out from the checkpoint's tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import hps_v3
from ddmd_bench.scorers.hps_v3 import HpsV3, load_tokenizer, resized
from ddmd_bench.scorers.hps_v3.network import ARCHITECTURE, expected_state, load_network
from ddmd_bench.scorers.weights import OWN_FOLDER
from tests.pictures import picture, scores, scores_alone, seeded_weights

QUESTION = hps_v3.PROMPT.read_bytes().decode()
CHAT_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
NUM_WORDS = 700
WIDTH, HEADS, PAIRS = 32, 4, 2  # PAIRS: heads of keys and values
TINY: dict[str, Any] = {
    "text_config": {
        **ARCHITECTURE["text_config"],
        "vocab_size": NUM_WORDS + len(CHAT_TOKENS) + 1,
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "num_key_value_heads": PAIRS,
        "rms_norm_eps": 1e-3,  # large enough to count
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [1, 1, 2],
        },
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "vision_config": {
        **ARCHITECTURE["vision_config"],
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": WIDTH,
        "num_heads": HEADS,
    },
}
PROMPTS = ["a red cat", "two dogs on the left of a very long green train, at night", "a cat"]
PICTURES = [picture(seed, (512, 500)) for seed in range(3)]


def tiny_tokenizer() -> Tokenizer:
    """Byte-level pairs, as Qwen2-VL's, learned from the question, and the chat's own tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_WORDS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([QUESTION], trainer)
    tokenizer.add_special_tokens(CHAT_TOKENS)
    assert tokenizer.get_vocab_size() == NUM_WORDS + len(CHAT_TOKENS)
    return tokenizer


def seeded_state() -> dict[str, Tensor]:
    return seeded_weights(expected_state(TINY), lambda key: 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("hps_v3")
    save_file(seeded_state(), made / "HPSv3.safetensors")
    tiny_tokenizer().save(str(made / "tokenizer.json"))
    return made


def scorer_of(folder: Path, dtype: torch.dtype = torch.float32) -> HpsV3:
    """`load`, with a tiny architecture in place of the 7B one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OWN_FOLDER, str(folder))
        patch.setattr(hps_v3, "ARCHITECTURE", TINY)
        return hps_v3.load("hps_v3", "cpu", dtype)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> HpsV3:
    return scorer_of(folder)


# Qwen2-VL as the package runs it, from the checkpoint's tensors alone


def turned(x: Tensor, angles: Tensor, rounded: bool) -> Tensor:
    """Rotary embedding of [heads, n, d] by angles [n, d / 2]: pairs are d / 2 apart."""
    cos, sin = angles.cos(), angles.sin()
    if rounded:
        cos, sin = cos.bfloat16(), sin.bfloat16()
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def written_out(state: dict[str, Tensor], image: Tensor, ids: list[int], image_id: int) -> float:
    def linear(x: Tensor, name: str) -> Tensor:
        out = x @ state[f"{name}.weight"].T
        return out + state[f"{name}.bias"] if f"{name}.bias" in state else out

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def rms(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * state[f"{name}.weight"]

    def heads(x: Tensor, number: int) -> Tensor:
        return x.unflatten(1, (number, -1)).transpose(0, 1)

    mean, std = (torch.tensor(x).double() for x in (hps_v3.CLIP_MEAN, hps_v3.CLIP_STD))
    pixels = (image.double() / 255 - mean[:, None, None]) / std[:, None, None]
    rows, columns = image.shape[1] // 28, image.shape[2] // 28
    patches, places = [], []
    for row in range(rows):
        for column in range(columns):
            for y in (2 * row, 2 * row + 1):
                for x in (2 * column, 2 * column + 1):
                    patch = pixels[:, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
                    patches.append(torch.stack([patch, patch], 1).flatten())
                    places.append((y, x))
    x = torch.stack(patches) @ state["visual.patch_embed.proj.weight"].flatten(1).T
    dim = x.shape[1] // HEADS
    inverse = torch.tensor([10_000 ** (-2 * k / (dim // 2)) for k in range(dim // 4)])
    angles = torch.tensor(places).bfloat16()[..., None] * inverse.bfloat16()  # rounded again
    angles = angles.flatten(1).float()
    for n in range(2):
        block = f"visual.blocks.{n}"
        q, k, v = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, 1)
        q, k = (turned(heads(part, HEADS), angles, rounded=True) for part in (q, k))
        weights = (q @ k.mT / math.sqrt(dim)).softmax(-1)
        seen = (weights @ heads(v, HEADS)).transpose(0, 1).flatten(1)
        x = x + linear(seen, f"{block}.attn.proj")
        inner = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{block}.mlp.fc2")
    x = norm(x, "visual.merger.ln_q").reshape(rows * columns, -1)
    image_tokens = linear(F.gelu(linear(x, "visual.merger.mlp.0")), "visual.merger.mlp.2")

    at = ids.index(image_id)
    words = state["model.embed_tokens.weight"][ids]
    x = torch.cat([words[:at], image_tokens, words[at + 1 :]])
    dim = WIDTH // HEADS
    inverse = torch.tensor([1e6 ** (-2 * k / dim) for k in range(dim // 2)]).bfloat16().double()
    angles = torch.arange(len(x)).double()[:, None] * inverse  # one position after another
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for n in range(2):
        layer = f"model.layers.{n}"
        y = rms(x, f"{layer}.input_layernorm")
        q = turned(heads(linear(y, f"{layer}.self_attn.q_proj"), HEADS), angles, rounded=False)
        k = turned(heads(linear(y, f"{layer}.self_attn.k_proj"), PAIRS), angles, rounded=False)
        v = heads(linear(y, f"{layer}.self_attn.v_proj"), PAIRS)
        k, v = (part.repeat_interleave(HEADS // PAIRS, 0) for part in (k, v))
        weights = (q @ k.mT / math.sqrt(dim)).masked_fill(later, float("-inf")).softmax(-1)
        x = x + linear((weights @ v).transpose(0, 1).flatten(1), f"{layer}.self_attn.o_proj")
        y = rms(x, f"{layer}.post_attention_layernorm")
        gate = F.silu(linear(y, f"{layer}.mlp.gate_proj"))
        x = x + linear(gate * linear(y, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
    y = rms(x, "model.norm")[-1]
    y = linear(F.relu(linear(y, "rm_head.0")), "rm_head.3")
    return linear(F.relu(y), "rm_head.5")[0].item()


def test_scores_are_those_of_qwen2_vl_written_out(scorer: HpsV3) -> None:
    state = {key: value.double() for key, value in seeded_state().items()}
    expected = [
        written_out(state, scorer.preprocess(image), row["input_ids"].tolist(), scorer.image_id)
        for image, row in zip(PICTURES, scorer.encode_prompts(PROMPTS), strict=True)
    ]
    assert scores(scorer, PICTURES, PROMPTS).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_batch_mates_and_their_length_do_not_matter(scorer: HpsV3) -> None:
    alone = scores_alone(scorer, PICTURES, PROMPTS)
    assert scores(scorer, PICTURES, PROMPTS).tolist() == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_image_and_prompt_both_matter(scorer: HpsV3) -> None:
    one, other, _ = PICTURES
    found = scores(scorer, [one, one, other], ["a cat", "a dog", "a cat"]).tolist()
    assert len({round(value, 4) for value in found}) == 3


def test_frequencies_are_there_and_rounded_to_bfloat16(scorer: HpsV3) -> None:
    language: Any = scorer.network.language
    visual: Any = scorer.network.visual
    exact = 1e6 ** -(torch.arange(0, 8, 2).double() / 8)
    assert language.rotary_emb.inv_freq.tolist() == exact.bfloat16().tolist()
    assert not torch.equal(language.rotary_emb.inv_freq.double(), exact)
    assert visual.rotary_pos_emb.inv_freq.tolist() == [1.0, torch.tensor(0.01).bfloat16().item()]


@pytest.mark.parametrize("where", ["language.rotary_emb", "visual.rotary_pos_emb"])
def test_frequencies_of_zero_would_be_seen(folder: Path, scorer: HpsV3, where: str) -> None:
    """What a library does that leaves buffers as they were on the meta device."""
    broken = scorer_of(folder)
    rotary: Any = broken.network.get_submodule(where)
    rotary.inv_freq.zero_()
    difference = scores(broken, PICTURES, PROMPTS) - scores(scorer, PICTURES, PROMPTS)
    assert difference.abs().min() > 1e-3


def test_the_body_is_in_the_dtype_asked_for_and_the_head_in_float32(
    folder: Path, scorer: HpsV3
) -> None:
    rounded = scorer_of(folder, torch.bfloat16)
    kinds = {name.split(".")[0]: p.dtype for name, p in rounded.network.named_parameters()}
    assert kinds == {"visual": torch.bfloat16, "language": torch.bfloat16, "rm_head": torch.float32}
    values, expected = (scores(each, PICTURES, PROMPTS) for each in (rounded, scorer))
    assert values.dtype == torch.float32
    assert not values.equal(expected)
    assert (values - expected).abs().max() < 0.2 * expected.abs().max()


def test_the_attention_kernel_is_named(scorer: HpsV3) -> None:
    parts = (scorer.network.visual, scorer.network.language)
    assert [part.config._attn_implementation for part in parts] == ["sdpa", "sdpa"]


# prompts


def test_the_question_is_the_published_one() -> None:
    assert hashlib.sha256(QUESTION.encode()).hexdigest() == (
        "46b3128834c315a7f235743d0fb4cb026aedcdc961706a81351f06da3c347526"
    )
    assert QUESTION.count(hps_v3.PLACE) == 1
    assert QUESTION.count(hps_v3.IMAGE_TOKEN) == 1
    assert QUESTION.endswith(
        f"\nPlease provide the overall ratings of this image: {hps_v3.REWARD_TOKEN}"
    )


def test_prompts_stand_in_the_question_and_are_read_whole(scorer: HpsV3) -> None:
    prompts = ["a cat", "naïve {text_prompt} 猫", "word " * 3000]
    for prompt, row in zip(prompts, scorer.encode_prompts(prompts), strict=True):
        read = scorer.tokenizer.decode(row["input_ids"].tolist(), skip_special_tokens=False)
        assert read == QUESTION.replace("{text_prompt}", prompt)
        assert row["input_ids"][-1] == scorer.reward_id
        assert "truncated" not in row


@pytest.mark.parametrize("token", [hps_v3.IMAGE_TOKEN, hps_v3.REWARD_TOKEN])
def test_a_prompt_that_answers_for_the_model_is_refused(scorer: HpsV3, token: str) -> None:
    with pytest.raises(BenchError, match="cannot be asked about"):
        scorer.encode_prompts(["a cat", f"a cat {token}"])


def test_another_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(BenchError, match=r"706 tokens .* expected 151658"):
        load_tokenizer(folder / "tokenizer.json", 151658)


# images


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1024, 1024, (448, 448)),
        (512, 512, (448, 448)),
        (448, 448, (448, 448)),
        (32, 32, (448, 448)),
        (768, 1344, (336, 588)),
        (640, 600, (448, 420)),
        (1, 1, (448, 448)),
        (200, 1, (6356, 56)),
        (909, 211, (896, 224)),  # 256 tokens by rounding alone
    ],
)
def test_sizes_that_are_read(height: int, width: int, expected: tuple[int, int]) -> None:
    assert resized(height, width) == expected


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_every_size_is_in_whole_tokens_and_about_256_of_them(height: int, width: int) -> None:
    if max(height, width) > 150 * min(height, width):
        return
    h, w = resized(height, width)
    assert h % 28 == w % 28 == 0
    if h * w != 256 * 28**2:  # rounded down or up from 256 tokens, each side by less than one
        rows, columns = math.sqrt(256 * height / width), math.sqrt(256 * width / height)
        assert abs(h / 28 - rows) < 1 + 1e-9
        assert abs(w / 28 - columns) < 1 + 1e-9
    assert resized(width, height) == (w, h)


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (19900, 100)])
def test_an_image_that_is_too_long_is_refused(scorer: HpsV3, size: tuple[int, int]) -> None:
    with pytest.raises(BenchError, match="more than 200 times as long as wide"):
        scorer.preprocess(Image.new("RGB", size))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_images_are_made_rgb_and_then_resized(scorer: HpsV3, mode: str) -> None:
    image = picture(0, (300, 200), mode)
    opaque = image.convert("RGB")
    expected = np.asarray(opaque.resize((560, 392), Image.Resampling.BICUBIC))
    found = scorer.preprocess(image)
    assert found.dtype == torch.uint8
    assert (found.permute(1, 2, 0).numpy() == expected).all()


def test_images_of_other_shapes_are_scored(scorer: HpsV3) -> None:
    wide, tall = picture(0, (1344, 768)), picture(0, (768, 1344))
    assert scorer.preprocess(wide).shape == (3, 336, 588)
    assert scores(scorer, [wide], ["a cat"]).isfinite().all()
    assert scores(scorer, [tall], ["a cat"]).isfinite().all()


# the checkpoint


def test_the_published_network_at_full_size() -> None:
    state = expected_state(ARCHITECTURE)
    assert len(state) == 736
    assert sum(math.prod(shape) for shape in state.values()) == 8_292_152_882
    assert state["visual.blocks.31.attn.qkv.weight"] == (3840, 1280)
    assert state["visual.merger.mlp.2.weight"] == (3584, 5120)
    assert state["model.embed_tokens.weight"] == state["lm_head.weight"] == (151658, 3584)
    assert state["model.layers.27.self_attn.k_proj.weight"] == (512, 3584)
    assert [state[f"rm_head.{n}.weight"] for n in (0, 3, 5)] == [(1024, 3584), (16, 1024), (2, 16)]


def test_what_no_shape_says_is_as_published() -> None:
    text, vision = ARCHITECTURE["text_config"], ARCHITECTURE["vision_config"]
    assert (text["num_attention_heads"], text["num_key_value_heads"], vision["num_heads"]) == (
        28,
        4,
        16,
    )
    assert (text["rms_norm_eps"], text["rope_parameters"]["rope_theta"]) == (1e-6, 1e6)
    assert (text["hidden_act"], vision["hidden_act"]) == ("silu", "quick_gelu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("rm_head.5.bias"), r"1 missing: rm_head.5.bias"),
        (lambda s: s.pop("lm_head.weight"), r"1 missing: lm_head.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unexpected: extra"),
        (
            lambda s: s.update({"rm_head.5.bias": torch.zeros(4)}),
            r"1 of another shape: rm_head.5.bias \(4,\), expected \(2,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    state = seeded_state()
    change(state)
    path = tmp_path / "HPSv3.safetensors"
    save_file(state, path)
    with pytest.raises(BenchError, match=message):
        load_network(path, TINY, "cpu", torch.float32)


def test_a_file_cut_short_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "HPSv3.safetensors"
    path.write_bytes((folder / "HPSv3.safetensors").read_bytes()[:-100])
    with pytest.raises(BenchError, match="cut, or no safetensors file"):
        load_network(path, TINY, "cpu", torch.float32)


def test_everything_is_on_the_device(scorer: HpsV3) -> None:
    tensors = [*scorer.network.parameters(), *scorer.network.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
