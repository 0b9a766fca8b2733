"""HPS v3 (Ma et al. 2025, arXiv 2508.03789): how much people would like an image for its prompt.

Qwen2-VL-7B reads the image, the instruction and the prompt, and a small head reads the state of a
token `<|Reward|>` that was trained for it. What is computed is what the package `hpsv3` 1.0.0
computes in `HPSv3RewardInferencer.reward`, of whose two numbers the first, the mean, is the score.

prompt.txt is what the model is asked, from the first token to the reward token: Qwen2-VL's chat
format (Qwen/Qwen2-VL-7B-Instruct, Apache-2.0) around the instruction of `hpsv3` 1.0.0 (MIT, see
LICENSE beside it). What the package writes after the reward token is left out: attention looks back
only. Every character counts, blanks at the ends of lines included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image, Resampling
from tokenizers import AddedToken, Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ddmd_bench.errors import BenchError
from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.hps_v3.network import ARCHITECTURE, RewardNetwork, load_network
from ddmd_bench.scorers.interface import on_device
from ddmd_bench.scorers.pixels import CLIP_MEAN, CLIP_STD
from ddmd_bench.scorers.weights import require

PROMPT = Path(__file__).with_name("prompt.txt")
PLACE = "{text_prompt}"
REWARD_TOKEN = "<|Reward|>"
IMAGE_TOKEN = "<|image_pad|>"

SIDE = 28  # px; one token of the language model, 2 x 2 patches
PIXELS = 256 * SIDE**2  # about 448 x 448, in whatever shape
MAX_RATIO = 200


def resized(height: int, width: int) -> tuple[int, int]:
    """Height and width as the model reads them: multiples of 28 px, in about 200,704 pixels.

    Rounded to the nearest multiple, and where that is too many or too few pixels, scaled to the
    right number and rounded down or up. In floating point, in the order of `qwen_vl_utils`.
    """
    h, w = (max(SIDE, round(side / SIDE) * SIDE) for side in (height, width))
    if h * w > PIXELS:
        scale = math.sqrt(height * width / PIXELS)
        h, w = (math.floor(side / scale / SIDE) * SIDE for side in (height, width))
    elif h * w < PIXELS:
        scale = math.sqrt(PIXELS / (height * width))
        h, w = (math.ceil(side * scale / SIDE) * SIDE for side in (height, width))
    for long, short in (sorted((height, width))[::-1], sorted((h, w))[::-1]):
        if long > MAX_RATIO * short:
            raise BenchError(
                f"an image of {width} x {height} px: HPS v3 reads none that is more than "
                f"{MAX_RATIO} times as long as wide, before or after it is resized ({w} x {h} px)"
            )
    return h, w


class HpsV3:
    """A network and its tokenizer."""

    def __init__(self, network: RewardNetwork, tokenizer: Tokenizer) -> None:
        self.network = network
        self.tokenizer = tokenizer
        first = next(network.visual.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.mean, self.std = (
            torch.tensor(values, device=first.device)[:, None, None]
            for values in (CLIP_MEAN, CLIP_STD)
        )
        self.question = PROMPT.read_bytes().decode()
        self.image_id, self.reward_id = special_ids(tokenizer)

    def preprocess(self, image: Image) -> Tensor:
        """uint8 [3, H, W], sides multiples of 28 px by `resized`; transparency is dropped."""
        h, w = resized(image.height, image.width)
        pixels = np.asarray(image.convert("RGB").resize((w, h), Resampling.BICUBIC))
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """input_ids of each, from the first token to the reward token; the image is one token.

        A prompt is read whole, however long.
        """
        asked = [self.question.replace(PLACE, prompt) for prompt in prompts]
        encodings = self.tokenizer.encode_batch(asked, add_special_tokens=False)
        for prompt, encoding in zip(prompts, encodings, strict=True):
            if any(encoding.ids.count(k) != 1 for k in (self.image_id, self.reward_id)):
                raise BenchError(
                    f"prompt {prompt!r}: HPS v3 cannot be asked about the text {IMAGE_TOKEN} or "
                    f"{REWARD_TOKEN}, with which it is asked. Leave it out of the prompt"
                )
        return [{"input_ids": torch.tensor(e.ids, dtype=torch.int32)} for e in encodings]

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Scores of images [B, 3, H, W] in uint8, without bounds; no features."""
        rows = [row["input_ids"].long() for row in text]
        image_at = rows[0].tolist().index(self.image_id)
        reward_at = torch.tensor([len(row) - 1 for row in rows])
        tokens = on_device(pad_sequence(rows, batch_first=True), self.device)
        pixels = (on_device(inputs, self.device).float() / 255 - self.mean) / self.std
        with torch.inference_mode():
            outputs = self.network(
                pixels.to(self.dtype), tokens, image_at, on_device(reward_at, self.device)
            )
        return Scored({"hps_v3": outputs[:, 0]}, None)


def special_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Of the image's token and of the reward token; -1 where the tokenizer has it not."""
    image, reward = (tokenizer.token_to_id(token) for token in (IMAGE_TOKEN, REWARD_TOKEN))
    return -1 if image is None else image, -1 if reward is None else reward


def load_tokenizer(path: Path, vocab_size: int) -> Tokenizer:
    """Qwen2-VL's tokenizer and, after its last token, the reward token."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens([AddedToken(REWARD_TOKEN, special=True)])
    image, reward = special_ids(tokenizer)
    if image < 0 or reward + 1 != vocab_size:
        raise BenchError(
            f"{path}: {reward + 1} tokens with {REWARD_TOKEN}, expected {vocab_size}, one of them "
            f"{IMAGE_TOKEN}. It must be the tokenizer of Qwen2-VL-7B-Instruct"
        )
    return tokenizer


def load(name: str, device: str, dtype: torch.dtype) -> HpsV3:
    """HPS v3 from the files in `SCORERS`."""
    published, base = (require(weights) for weights in SCORERS[name].weights)
    tokenizer = load_tokenizer(base["tokenizer.json"], ARCHITECTURE["text_config"]["vocab_size"])
    network = load_network(published["HPSv3.safetensors"], ARCHITECTURE, device, dtype)
    return HpsV3(network, tokenizer)
