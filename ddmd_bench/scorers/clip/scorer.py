"""Cosine of image and prompt in a CLIP: HPS v2, CLIPScore and PickScore, as their references do.

- HPS v2.0 and v2.1: Wu et al. 2023, arXiv 2306.09341; hpsv2 1.2.0 (img_score.py), whose package
  states Apache-2.0. The cosine of a fine-tuned open_clip ViT-H-14, without logit scale.
- CLIPScore: Hessel et al. 2021, arXiv 2104.08718, without its factor 2.5 and its floor of 0.
  ViT-g-14 as DMD2 evaluates (Yin et al. 2024, arXiv 2405.14867; code main/coco_eval), with
  "A photo depicts" before every prompt; weights of LAION, MIT. ViT-L-14 as torchmetrics' CLIPScore,
  with nothing before it; weights of OpenAI (Radford et al. 2021, arXiv 2103.00020), MIT.
- PickScore v1: Kirstain et al. 2023, arXiv 2305.01569; model card of yuvalkirstain/PickScore_v1,
  licence as stated there. The cosine times the network's logit scale.

The references run on float16 autocast where they find a GPU; here the towers' dtype is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import open_clip
import torch
from torch import Tensor

from ddmd_bench.scorers import SCORERS, Scored
from ddmd_bench.scorers.clip import transforms
from ddmd_bench.scorers.clip.network import (
    OPEN_CLIP,
    TRANSFORMERS,
    Architecture,
    Network,
    load_network,
)
from ddmd_bench.scorers.clip.tokens import tokens
from ddmd_bench.scorers.interface import on_device
from ddmd_bench.scorers.weights import require

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS_AT_ONCE = 16  # the longest of them says what all cost


@dataclass(frozen=True)
class Reading:
    """How a published scorer reads images and prompts."""

    architecture: Architecture
    transform: Callable[[Image], Tensor]
    prefix: str = ""  # before every prompt
    mended: bool = True  # whether the tokenizer mends text
    scaled: bool = False  # whether the cosine is multiplied by the logit scale


# transformers' words for open_clip's ViT-H-14.
_VIT_H_14_TRANSFORMERS = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}
_HPS = Reading(
    Architecture(OPEN_CLIP, open_clip.get_model_config("ViT-H-14"), "state_dict"), transforms.hps
)
READINGS = {
    "hps_v21": _HPS,
    "hps_v20": _HPS,
    "clip_score_vit_g_14": Reading(
        Architecture(OPEN_CLIP, open_clip.get_model_config("ViT-g-14")),
        transforms.dmd2,
        prefix="A photo depicts",
    ),
    # OpenAI trained with an approximate GELU, which the plain ViT-L-14 of open_clip has not.
    "clip_score_vit_l_14": Reading(
        Architecture(OPEN_CLIP, open_clip.get_model_config("ViT-L-14-quickgelu")),
        transforms.openai,
    ),
    "pick_score": Reading(
        Architecture(TRANSFORMERS, _VIT_H_14_TRANSFORMERS),
        transforms.transformers,
        mended=False,
        scaled=True,
    ),
}


@dataclass(frozen=True)
class ClipScorer:
    """A network and how it is read; one column of cosines."""

    name: str
    reading: Reading
    network: Network

    def preprocess(self, image: Image) -> Tensor:
        """[3, 224, 224]."""
        return self.reading.transform(image)

    @torch.inference_mode()
    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Each prompt's normalised feature `text` [d]."""
        rows: list[dict[str, Tensor]] = []
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            read = [
                tokens(prompt, self.reading.prefix, self.reading.mended)
                for prompt in prompts[start : start + PROMPTS_AT_ONCE]
            ]
            features = self.network.text(torch.stack([ids for ids, _ in read])).cpu()
            for feature, (_, cut) in zip(features, read, strict=True):
                # A view would be kept on disk with all the batch that it looks at.
                row = {"text": feature.clone()}
                rows.append(row | {"truncated": torch.tensor(True)} if cut else row)
        return rows

    @torch.inference_mode()
    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Images [B, 3, 224, 224] with their prompts -> cosines [B], scaled where published so."""
        images = self.network.image(inputs)
        texts = on_device(torch.stack([row["text"] for row in text]), images.device)
        cosines = (images * texts.to(images.dtype)).sum(1)
        factor = self.network.logit_scale if self.reading.scaled else 1.0
        return Scored({self.name: factor * cosines}, None)


def load(name: str, device: str, dtype: torch.dtype) -> ClipScorer:
    """A scorer of `READINGS` with its published weights."""
    reading, (weights,) = READINGS[name], SCORERS[name].weights
    (path,) = require(weights).values()
    return ClipScorer(name, reading, load_network(reading.architecture, path, device, dtype))
