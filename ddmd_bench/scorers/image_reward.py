"""ImageReward v1.0 (Xu et al. 2023, arXiv 2304.05977): how a person would rate image and prompt.

BLIP's image encoder and its text encoder, which looks at the image in every layer, give the state
of the prompt's first token; five linear layers make a number of it. The networks are transformers'
BLIP with the published checkpoint's weights; what is computed is what the package `image-reward`
1.5 computes in `ImageReward.score`, for a batch of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from torchvision import transforms
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import read_record
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.checkpoints import FETCH, Shape, read_tensors, refuse_misfit, shapes_of
from ddmd_bench.scorers.interface import on_device
from ddmd_bench.scorers.pixels import CLIP_MEAN, CLIP_STD
from ddmd_bench.scorers.weights import require

MAX_TOKENS = 35  # with [CLS] and [SEP]
PAD_ID = 0
PROJECTION = 256  # of the two projections that BLIP was trained with and nothing here reads

# The package's constants: what it subtracts from the head's number, and what it divides by.
REWARD_MEAN = 0.16717362830052426
REWARD_STD = 1.0333394966054072

# ViT-L/16 at 224 px. transformers' default for the normalisations' epsilon is another one.
VISION: Mapping[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}

# What is read of med_config.json; both libraries call these the same.
TEXT = (
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "vocab_size",
)

# Names here and in the checkpoint, from the outermost in.
RENAMED = (
    ("visual.embeddings.class_embedding", "blip.visual_encoder.cls_token"),
    ("visual.embeddings.position_embedding", "blip.visual_encoder.pos_embed"),
    ("visual.embeddings.patch_embedding.", "blip.visual_encoder.patch_embed.proj."),
    ("visual.post_layernorm.", "blip.visual_encoder.norm."),
    ("visual.encoder.layers.", "blip.visual_encoder.blocks."),
    (".self_attn.projection.", ".attn.proj."),
    (".self_attn.", ".attn."),
    (".layer_norm", ".norm"),
    ("text.e", "blip.text_encoder.e"),  # embeddings, encoder
)


def published_key(key: str) -> str:
    """The checkpoint's name of one of `RewardNetwork`'s parameters."""
    for ours, theirs in RENAMED:
        key = key.replace(ours, theirs)
    return key


class Head(nn.Module):
    """Five linear layers with nothing between them but training's dropout: [B, d] -> [B, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024), nn.Dropout(0.2),
            nn.Linear(1024, 128), nn.Dropout(0.2),
            nn.Linear(128, 64), nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, state: Tensor) -> Tensor:
        rewards: Tensor = self.layers(state)
        return rewards


class RewardNetwork(nn.Module):
    """Image encoder, text encoder with cross-attention, head."""

    def __init__(self, vision: Mapping[str, Any], text: Mapping[str, Any]) -> None:
        super().__init__()
        # is_decoder builds the cross-attention; the call below keeps the text bidirectional.
        text_config = BlipTextConfig(
            **text, encoder_hidden_size=vision["hidden_size"], is_decoder=True
        )
        # The text encoder adds its mask to the scores, so the mask must be made for that.
        text_config._attn_implementation = "eager"
        self.visual = BlipVisionModel(BlipVisionConfig(**vision))
        self.text = BlipTextModel(text_config, add_pooling_layer=False)
        self.mlp = Head(text["hidden_size"])

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pixels [B, 3, S, S], tokens and mask [B, 35] -> rewards [B] in float32."""
        states = self.text(
            input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=self.visual(pixels).last_hidden_state,
            is_decoder=False,
        ).last_hidden_state
        rewards: Tensor = self.mlp(states[:, 0].float())[:, 0]
        return (rewards - REWARD_MEAN) / REWARD_STD


def text_settings(path: Path) -> dict[str, Any]:
    """What the text encoder is, from med_config.json; a setting left out has no safe default."""
    stored = read_record(path, remedy=FETCH)
    absent = [name for name in TEXT if name not in stored]
    if absent or not stored.get("add_cross_attention"):
        raise BenchError(
            f"{path}: not ImageReward's text encoder. Expected add_cross_attention: true and "
            f"{', '.join(TEXT)}; missing: {', '.join(absent) or 'add_cross_attention'}"
        )
    return {name: stored[name] for name in TEXT}


def _on_meta(vision: Mapping[str, Any], text: Mapping[str, Any]) -> RewardNetwork:
    with torch.device("meta"):
        return RewardNetwork(vision, text)


def _unread(vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Shape]:
    return {
        "blip.text_encoder.embeddings.position_ids": (1, text["max_position_embeddings"]),
        "blip.vision_proj.weight": (PROJECTION, vision["hidden_size"]),
        "blip.vision_proj.bias": (PROJECTION,),
        "blip.text_proj.weight": (PROJECTION, text["hidden_size"]),
        "blip.text_proj.bias": (PROJECTION,),
    }


def expected_state(text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Shape]:
    """Every tensor of the published module by its published name, those included that go unread."""
    read = shapes_of(_on_meta(vision, text).state_dict())
    shapes = {published_key(key): shape for key, shape in read.items()}
    return shapes | _unread(vision, text)


def load_network(
    path: Path, text: Mapping[str, Any], vision: Mapping[str, Any], device: str, dtype: torch.dtype
) -> RewardNetwork:
    """The network with a checkpoint's weights, every key matched; the head stays in float32."""
    stored = read_tensors(path)
    # What goes unread may be absent.
    found = shapes_of(stored) | _unread(vision, text)
    refuse_misfit(path, expected_state(text, vision), found)
    network = _on_meta(vision, text)
    state = {
        key: stored[published_key(key)].to(
            device, torch.float32 if key.startswith("mlp.") else dtype
        )
        for key in network.state_dict()
    }
    network.load_state_dict(state, assign=True)
    # The one tensor that no checkpoint gives back: built on no device, it would hold nothing.
    positions = torch.arange(text["max_position_embeddings"], device=device)[None]
    network.text.embeddings.register_buffer("position_ids", positions, persistent=False)
    return network.requires_grad_(False).eval()


def load_tokenizer(path: Path, vocab_size: int) -> BertWordPieceTokenizer:
    """BERT's uncased word pieces and the two tokens that BLIP adds."""
    tokenizer = BertWordPieceTokenizer(str(path), lowercase=True)
    tokenizer.add_special_tokens(["[DEC]", "[ENC]"])
    if (found := tokenizer.get_vocab_size()) != vocab_size:
        raise BenchError(
            f"{path}: {found} tokens with BLIP's [DEC] and [ENC], expected {vocab_size}. It must "
            "be the vocabulary of bert-base-uncased"
        )
    return tokenizer


class ImageReward:
    """A network, its tokenizer and what it does to an image."""

    def __init__(
        self, network: RewardNetwork, tokenizer: BertWordPieceTokenizer, image_size: int
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        # Resized and cropped in the image's own mode and converted last, as published: a palette
        # is resized without interpolation, transparency is dropped.
        self.preprocess_image = transforms.Compose([
            transforms.Resize(image_size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(image_size),
            transforms.Lambda(lambda image: image.convert("RGB")),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ])  # fmt: skip

    def preprocess(self, image: Image) -> Tensor:
        """[3, 224, 224] in float32: the middle square, resized, as CLIP normalises."""
        pixels: Tensor = self.preprocess_image(image)
        return pixels

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """input_ids and attention_mask [35] of each: [CLS], at most 33 word pieces, [SEP]."""
        return [
            self._encoded(encoding.ids) for encoding in self.tokenizer.encode_batch(list(prompts))
        ]

    def _encoded(self, ids: list[int]) -> dict[str, Tensor]:
        kept = ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], ids[-1]]
        padding = MAX_TOKENS - len(kept)
        row = {
            "input_ids": torch.tensor(kept + [PAD_ID] * padding),
            "attention_mask": torch.tensor([1] * len(kept) + [0] * padding),
        }
        return row | ({"truncated": torch.tensor(True)} if len(ids) > MAX_TOKENS else {})

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Rewards of images [B, 3, 224, 224] with their prompts, without bounds; no features."""
        first = next(self.network.visual.parameters())
        device = first.device
        tokens = [torch.stack([row["input_ids"], row["attention_mask"]]) for row in text]
        input_ids, mask = on_device(torch.stack(tokens, 1), device)
        with torch.inference_mode():
            rewards = self.network(on_device(inputs, device).to(first.dtype), input_ids, mask)
        return Scored({"image_reward": rewards}, None)


def load(name: str, device: str, dtype: torch.dtype) -> ImageReward:
    """ImageReward v1.0 from the files in `SCORERS`."""
    published, bert = (require(weights) for weights in SCORERS[name].weights)
    text = text_settings(published["med_config.json"])
    network = load_network(published["ImageReward.pt"], text, VISION, device, dtype)
    tokenizer = load_tokenizer(bert["vocab.txt"], text["vocab_size"])
    return ImageReward(network, tokenizer, VISION["image_size"])
