"""ImageReward at tiny size, from files, against BLIP written out from their tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import SCORERS, image_reward
from ddmd_bench.scorers.image_reward import (
    MAX_TOKENS,
    REWARD_MEAN,
    REWARD_STD,
    VISION,
    ImageReward,
    expected_state,
    load_network,
    load_tokenizer,
    text_settings,
)
from ddmd_bench.scorers.weights import OWN_FOLDER
from tests.pictures import Code, picture, scores, scores_alone, seeded_weights

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["a", "cat", "dog", "on", "red", "sit", "##ting", "the", ",", "!"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{c}" for c in LETTERS)]
HEADS = 4
# The epsilons are large beside the activations that they are added to, so that they count.
TINY_VISION = {**VISION, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
               "num_attention_heads": HEADS, "image_size": 48}  # fmt: skip
MED_CONFIG = {"hidden_act": "gelu", "hidden_size": 24, "intermediate_size": 40,
              "layer_norm_eps": 1e-3, "max_position_embeddings": 40, "num_attention_heads": HEADS,
              "num_hidden_layers": 2, "pad_token_id": 0, "vocab_size": len(VOCABULARY) + 2,
              "encoder_width": 768, "add_cross_attention": True}  # fmt: skip
TEXT = {name: MED_CONFIG[name] for name in image_reward.TEXT}
PROMPTS = ["a cat sitting on the red dog", "Dog!", "the red, red cat"]
PICTURES = [picture(seed, (80, 60)) for seed in range(3)]


def seeded_state() -> dict[str, Tensor]:
    """Random weights under the published names, with activations of moderate size."""
    inputs = ("patch_embed", "pos_embed", "cls_token")
    state = seeded_weights(
        expected_state(TEXT, TINY_VISION),
        lambda key: 0.003 if any(name in key for name in inputs) else 0.3,
    )
    positions = torch.arange(MED_CONFIG["max_position_embeddings"])[None]
    return state | {"blip.text_encoder.embeddings.position_ids": positions}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("image_reward")
    torch.save(seeded_state(), made / "ImageReward.pt")
    (made / "med_config.json").write_text(json.dumps(MED_CONFIG))
    (made / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return made


def scorer_of(folder: Path, dtype: torch.dtype = torch.float32) -> ImageReward:
    """`load`, with the tiny image encoder in place of ViT-L/16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OWN_FOLDER, str(folder))
        patch.setattr(image_reward, "VISION", TINY_VISION)
        return image_reward.load("image_reward", "cpu", dtype)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ImageReward:
    return scorer_of(folder)


# BLIP, from the checkpoint's tensors alone


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of [n, d] to [m, d]."""
    q, k, v = (x.unflatten(1, (HEADS, -1)).transpose(0, 1) for x in (q, k, v))
    weights = q @ k.mT / math.sqrt(q.shape[-1])
    if mask is not None:
        weights = weights.masked_fill(mask == 0, float("-inf"))
    return (weights.softmax(-1) @ v).transpose(0, 1).flatten(1)


def written_out(state: dict[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> float:
    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    vit, bert = "blip.visual_encoder", "blip.text_encoder"
    weight, bias = (state[f"{vit}.patch_embed.proj.{kind}"] for kind in ("weight", "bias"))
    patches = F.unfold(pixels[None], 16, stride=16)[0].T @ weight.flatten(1).T + bias
    x = torch.cat([state[f"{vit}.cls_token"][0], patches]) + state[f"{vit}.pos_embed"][0]
    for n in range(TINY_VISION["num_hidden_layers"]):
        block = f"{vit}.blocks.{n}"
        q, k, v = linear(norm(x, f"{block}.norm1", 1e-6), f"{block}.attn.qkv").chunk(3, 1)
        x = x + linear(attended(q, k, v), f"{block}.attn.proj")
        inner = F.gelu(linear(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
        x = x + linear(inner, f"{block}.mlp.fc2")
    image = norm(x, f"{vit}.norm", 1e-6)

    eps = MED_CONFIG["layer_norm_eps"]
    embedded = state[f"{bert}.embeddings.word_embeddings.weight"][ids]
    embedded = embedded + state[f"{bert}.embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(embedded, f"{bert}.embeddings.LayerNorm", eps)
    for n in range(MED_CONFIG["num_hidden_layers"]):
        layer = f"{bert}.encoder.layer.{n}"
        for part, seen, hidden in (("attention", None, mask), ("crossattention", image, None)):
            source = x if seen is None else seen
            q = linear(x, f"{layer}.{part}.self.query")
            k, v = (linear(source, f"{layer}.{part}.self.{name}") for name in ("key", "value"))
            out = linear(attended(q, k, v, hidden), f"{layer}.{part}.output.dense")
            x = norm(out + x, f"{layer}.{part}.output.LayerNorm", eps)
        inner = F.gelu(linear(x, f"{layer}.intermediate.dense"))
        x = norm(linear(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm", eps)
    reward = x[0]
    for n in (0, 2, 4, 6, 7):
        reward = linear(reward, f"mlp.layers.{n}")
    return (reward.item() - REWARD_MEAN) / REWARD_STD


def test_scores_are_those_of_blip_written_out(scorer: ImageReward) -> None:
    state = {key: value.double() for key, value in seeded_state().items()}
    expected = [
        written_out(
            state, scorer.preprocess(image).double(), row["input_ids"], row["attention_mask"]
        )
        for image, row in zip(PICTURES, scorer.encode_prompts(PROMPTS), strict=True)
    ]
    assert scores(scorer, PICTURES, PROMPTS).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_batch_mates_do_not_matter(scorer: ImageReward) -> None:
    alone = scores_alone(scorer, PICTURES, PROMPTS)
    assert scores(scorer, PICTURES, PROMPTS).tolist() == pytest.approx(alone, rel=1e-5, abs=1e-5)


def test_image_and_prompt_both_matter(scorer: ImageReward) -> None:
    one, other, _ = PICTURES
    found = scores(scorer, [one, one, other], ["a cat", "a dog", "a cat"]).tolist()
    assert len({round(value, 3) for value in found}) == 3


def test_the_body_is_in_the_dtype_asked_for_and_the_head_in_float32(folder: Path) -> None:
    exact, rounded = (scorer_of(folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    kinds = {name.split(".")[0]: p.dtype for name, p in rounded.network.named_parameters()}
    assert kinds == {"visual": torch.bfloat16, "text": torch.bfloat16, "mlp": torch.float32}
    values, expected = (scores(each, PICTURES, PROMPTS) for each in (rounded, exact))
    assert values.dtype == torch.float32
    assert not values.equal(expected)
    assert (values - expected).abs().max() < 0.1 * expected.abs().max()


# prompts


def test_tokens_are_wrapped_and_padded(scorer: ImageReward) -> None:
    (row,) = scorer.encode_prompts(["The CAT sitting"])
    tokens = ["[CLS]", "the", "cat", "sit", "##ting", "[SEP]"]
    ids = [VOCABULARY.index(token) for token in tokens]
    assert row["input_ids"].tolist() == ids + [0] * (MAX_TOKENS - len(ids))
    assert row["attention_mask"].tolist() == [1] * len(ids) + [0] * (MAX_TOKENS - len(ids))
    assert "truncated" not in row


def test_what_is_beyond_35_tokens_is_flagged_and_unread(scorer: ImageReward) -> None:
    fits, cut, longer = scorer.encode_prompts(["cat " * 33, "cat " * 34, "cat " * 33 + "red dog"])
    assert "truncated" not in fits
    assert bool(cut["truncated"])
    assert bool(longer["truncated"])
    for row in (cut, longer):
        assert row["input_ids"].equal(fits["input_ids"])
        assert row["attention_mask"].equal(fits["attention_mask"])
    assert VOCABULARY[int(fits["input_ids"][-1])] == "[SEP]"


def test_another_vocabulary_is_refused(folder: Path) -> None:
    with pytest.raises(BenchError, match=r"expected 30524.*bert-base-uncased"):
        load_tokenizer(folder / "vocab.txt", 30524)


# images


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(300, 40), (40, 300), (7, 5), (48, 48), (101, 96)])
def test_images_are_resized_cropped_and_only_then_made_rgb(
    scorer: ImageReward, mode: str, size: tuple[int, int]
) -> None:
    image = picture(0, size, mode)
    short = min(size)
    resized = image.resize(
        tuple(int(48 * side / short) for side in size),
        Image.Resampling.NEAREST if mode == "P" else Image.Resampling.BICUBIC,
    )
    left, top = (round((side - 48) / 2) for side in resized.size)
    square = np.asarray(resized.crop((left, top, left + 48, top + 48)).convert("RGB")) / 255
    mean, std = np.array(image_reward.CLIP_MEAN), np.array(image_reward.CLIP_STD)
    expected = ((square - mean) / std).transpose(2, 0, 1)
    assert scorer.preprocess(image).numpy() == pytest.approx(expected, abs=1e-5)


# the checkpoint


def test_the_published_network_at_full_size() -> None:
    state = expected_state({**TEXT, "hidden_size": 768, "intermediate_size": 3072,
                            "max_position_embeddings": 512, "num_hidden_layers": 12,
                            "vocab_size": 30524}, VISION)  # fmt: skip
    assert len(state) == 625
    assert sum(math.prod(shape) for shape in state.values()) == 446_666_465
    assert state["blip.visual_encoder.blocks.23.attn.qkv.weight"] == (3072, 1024)
    assert state["blip.text_encoder.encoder.layer.11.crossattention.self.key.weight"] == (768, 1024)
    assert state["blip.vision_proj.weight"] == (256, 1024)
    assert state["mlp.layers.7.weight"] == (1, 16)


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    state = seeded_state()
    change(state)
    torch.save(state, tmp_path / "ImageReward.pt")
    return tmp_path / "ImageReward.pt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("mlp.layers.7.bias"), r"1 missing: mlp.layers.7.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unexpected: extra"),
        (
            lambda s: s.update({"mlp.layers.7.bias": torch.zeros(2)}),
            r"1 of another shape: mlp.layers.7.bias \(2,\), expected \(1,\)",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(BenchError, match=message):
        load_network(path, TEXT, TINY_VISION, "cpu", torch.float32)


def test_what_is_never_read_may_be_absent(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda s: s.pop("blip.vision_proj.weight"))
    load_network(path, TEXT, TINY_VISION, "cpu", torch.float32)


def test_a_pickle_that_holds_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ImageReward.pt"
    torch.save({"mlp.layers.7.bias": Code()}, path)
    with pytest.raises(BenchError, match="cut, or no PyTorch file of tensors"):
        load_network(path, TEXT, TINY_VISION, "cpu", torch.float32)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BenchError, match="cut, or no PyTorch file of tensors"):
        load_network(path, TEXT, TINY_VISION, "cpu", torch.float32)
    assert capsys.readouterr().out == ""


def test_a_setting_left_out_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "med_config.json"
    path.write_text(json.dumps({k: v for k, v in MED_CONFIG.items() if k != "num_attention_heads"}))
    with pytest.raises(BenchError, match="missing: num_attention_heads"):
        text_settings(path)
    path.write_text(json.dumps(MED_CONFIG | {"add_cross_attention": False}))
    with pytest.raises(BenchError, match="missing: add_cross_attention"):
        text_settings(path)


def test_everything_is_on_the_device(scorer: ImageReward) -> None:
    tensors = [*scorer.network.parameters(), *scorer.network.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    positions = scorer.network.text.embeddings.position_ids
    assert positions.tolist() == [list(range(MED_CONFIG["max_position_embeddings"]))]


def test_files_that_are_not_here_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(OWN_FOLDER, str(tmp_path))
    with pytest.raises(
        BenchError, match=r"ImageReward\.pt, med_config\.json of zai-org/ImageReward"
    ):
        SCORERS["image_reward"].load("image_reward", "cpu", torch.float32)
