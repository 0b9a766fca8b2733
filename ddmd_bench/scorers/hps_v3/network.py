"""Qwen2-VL with a head that reads the reward token, as HPS v3 was trained and is published.

transformers' image encoder and language model, with the checkpoint's weights. Three things differ
from Qwen2-VL as a chat model runs, all of them in the package `hpsv3` 1.0.0, and scores differ
without them:

- Tokens are numbered one after another, those of the image as well. The package calls the language
  model without positions, so that Qwen2-VL's positions in rows and columns are never made.
- The whole model is cast to bfloat16, rotary frequencies included, for training and for scoring.
  The image encoder's angles and their sines are rounded too, the language model's are not. At
  position 500 rounding turns a token by up to 0.58 radians, at 900 by one, so the rounded ones
  belong to the network in every precision.
- The head is in float32, whatever the rest is in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import (
    Qwen2VisionTransformerPretrainedModel,
    Qwen2VLRotaryEmbedding,
    Qwen2VLTextModel,
)

from ddmd_bench.files.tensors import open_safetensors
from ddmd_bench.scorers.checkpoints import FETCH, Shape, refuse_misfit, shapes_of

NUM_OUTPUTS = 2  # the mean of the score, and a number that its spread is made of
VISION_THETA = 10_000.0

# config.json of Qwen/Qwen2-VL-7B-Instruct, but for the vocabulary: the package cuts the embedding
# to the tokenizer's 151,657 tokens and the reward token.
ARCHITECTURE: Mapping[str, Any] = {
    "text_config": {
        "vocab_size": 151658,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": [16, 24, 24],
        },
    },
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "hidden_act": "quick_gelu",
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_channels": 3,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}

# Names here and in the checkpoint, which has those of transformers 4.45.
RENAMED = {"visual": "visual", "language": "model", "rm_head": "rm_head"}


class VisionRotary(nn.Module):
    """Cosines and sines of patch positions, rounded to bfloat16 at every step."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim // 2, 2, dtype=torch.float32, device="cpu")
        inv_freq = (1 / VISION_THETA ** (exponents / (head_dim // 2))).bfloat16()
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of each patch [N, 2] -> two of [N, head_dim] in float32."""
        angles = (position_ids.bfloat16()[..., None] * self.inv_freq).flatten(1)
        return angles.cos().float().repeat(1, 2), angles.sin().float().repeat(1, 2)


class RewardNetwork(nn.Module):
    """Image encoder, language model without its vocabulary's head, reward head."""

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        config: Any = Qwen2VLConfig(**architecture)
        config._attn_implementation = "sdpa"  # named: scores do not hang on what is installed
        vision = architecture["vision_config"]
        self.patch_size: int = vision["patch_size"]
        self.merge_size: int = vision["spatial_merge_size"]  # patches a side, of one token
        self.frames: int = vision["temporal_patch_size"]
        self.vision_head_dim: int = vision["embed_dim"] // vision["num_heads"]
        width = architecture["text_config"]["hidden_size"]
        self.visual = Qwen2VisionTransformerPretrainedModel(config.vision_config)
        self.language = Qwen2VLTextModel(config.text_config)
        self.rm_head = nn.Sequential(
            nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05),
            nn.Linear(1024, 16), nn.ReLU(),
            nn.Linear(16, NUM_OUTPUTS),
        )  # fmt: skip

    def make_rotary(self, device: str) -> None:
        """Frequencies, which no checkpoint stores: on no device (meta) they would hold nothing."""
        visual: Any = self.visual
        language: Any = self.language
        visual.rotary_pos_emb = VisionRotary(self.vision_head_dim).to(device)
        rotary: Any = Qwen2VLRotaryEmbedding(language.config)
        rotary.inv_freq = rotary.inv_freq.bfloat16().float()
        language.rotary_emb = rotary.to(device)

    def patches(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] -> what the image encoder reads, by 2 x 2 blocks of patches.

        [B * H/14 * W/14, 3 * 2 * 14 * 14]; a still image is two equal frames.
        """
        batch, channels, height, width = pixels.shape
        size, merge = self.patch_size, self.merge_size
        rows, columns = height // (size * merge), width // (size * merge)
        blocks = pixels.reshape(batch, channels, rows, merge, size, columns, merge, size)
        ordered = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [B, rows, columns, 2, 2, 3, 14, 14]
        frames = torch.stack([ordered] * self.frames, 6)
        return frames.reshape(batch * rows * columns * merge**2, -1)

    def forward(
        self, pixels: Tensor, input_ids: Tensor, image_at: int, reward_at: Tensor
    ) -> Tensor:
        """Pixels [B, 3, H, W], tokens [B, L] -> outputs [B, 2] in float32, the score first.

        The one token at image_at makes place for the image's. Tokens after reward_at [B], counted
        before that, are padding: attention looks back only, so they change nothing.
        """
        batch, _, height, width = pixels.shape
        grid = torch.tensor([[1, height // self.patch_size, width // self.patch_size]])
        grid = grid.to(pixels.device).expand(batch, -1)
        image = self.visual(self.patches(pixels), grid_thw=grid).pooler_output
        image = image.reshape(batch, -1, image.shape[-1])
        words = self.language.embed_tokens(input_ids)
        embeds = torch.cat([words[:, :image_at], image, words[:, image_at + 1 :]], 1)
        states = self.language(inputs_embeds=embeds, use_cache=False).last_hidden_state
        rows = torch.arange(batch, device=states.device)
        outputs: Tensor = self.rm_head(states[rows, reward_at + image.shape[1] - 1].float())
        return outputs


def published_key(key: str) -> str:
    """The checkpoint's name of one of `RewardNetwork`'s parameters."""
    part, _, rest = key.partition(".")
    return f"{RENAMED[part]}.{rest}"


def _on_meta(architecture: Mapping[str, Any]) -> RewardNetwork:
    with torch.device("meta"):
        return RewardNetwork(architecture)


def expected_state(architecture: Mapping[str, Any]) -> dict[str, Shape]:
    """Every tensor of the checkpoint by its published name, the unread vocabulary head included."""
    read = shapes_of(_on_meta(architecture).state_dict())
    shapes = {published_key(key): shape for key, shape in read.items()}
    text = architecture["text_config"]
    return shapes | {"lm_head.weight": (text["vocab_size"], text["hidden_size"])}


def load_network(
    path: Path, architecture: Mapping[str, Any], device: str, dtype: torch.dtype
) -> RewardNetwork:
    """The network with a checkpoint's weights, every key matched, read tensor by tensor."""
    network = _on_meta(architecture)
    with open_safetensors(path, remedy=FETCH) as stored:
        keys = list(stored.keys())
        shapes = {key: tuple(stored.get_slice(key).get_shape()) for key in keys}
        refuse_misfit(path, expected_state(architecture), shapes)
        state = {
            key: stored.get_tensor(published_key(key)).to(
                device, torch.float32 if key.startswith("rm_head.") else dtype
            )
            for key in network.state_dict()
        }
    network.load_state_dict(state, assign=True)
    network.make_rotary(device)
    return network.requires_grad_(False).eval()
