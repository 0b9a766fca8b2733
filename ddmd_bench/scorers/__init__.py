"""What is measured (`METRICS`) and what measures it (`SCORERS`). Importing loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from ddmd_bench.errors import BenchError, unknown
from ddmd_bench.records import content_key
from ddmd_bench.scorers.metrics import METRICS, Metric
from ddmd_bench.scorers.weights import (
    Weights,
    attribute_weights,
    efficientnet_weights,
    identity,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

__all__ = ["METRICS", "SCORERS", "Metric", "Scored", "Scorer", "ScorerModel", "needed_scorers"]


class Scored(NamedTuple):
    """What a scorer says about one batch, on the CPU."""

    columns: dict[str, Tensor]  # [B] each
    features: Tensor | None  # [B, d]


class ScorerModel(Protocol):
    """A scorer with its weights; what each module's `load` returns."""

    def preprocess(self, image: Image) -> Tensor:
        """What the network reads of one image, on the CPU; called from several threads at once.

        The image is upright, with 8 bits a channel, in any of Pillow's modes L, LA, P, RGB, RGBA,
        and of any size. Images whose tensors have equal shapes are scored in one batch.
        """

    def encode_prompts(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """What the scorer reads of each prompt, on the CPU; empty dicts where it reads none.

        A prompt that is longer than the scorer reads has a key `truncated`, a tensor True.
        """

    def score_batch(self, inputs: Tensor, text: Sequence[Mapping[str, Tensor]]) -> Scored:
        """Inputs [B, ...], stacked from `preprocess`; text: each image's prompt, encoded."""


class ScorerModule(Protocol):
    """What each module of this package offers."""

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The scorer of that name in `SCORERS`; its numbers come out in float32 or float64."""


@dataclass(frozen=True)
class Scorer:
    """A module, loaded when first used, and the metrics that it gives per image."""

    module: str
    columns: tuple[str, ...] = ()
    weights: tuple[Weights, ...] = ()  # what its numbers depend on
    num_features: int | None = None
    batch_size: int = 64  # at most; halved where memory runs out

    def load(self, name: str, device: str, dtype: torch.dtype) -> ScorerModel:
        """The module's scorer, with torch."""
        return cast(ScorerModule, import_module(self.module)).load(name, device, dtype)


# No revision is pinned that was not verified; the sha256 of what is found goes into every key.
_HPS_FOLDERS = (
    "$HPS_ROOT",
    "~/.cache/hpsv2",
)  # where hpsv2 keeps its files, beside the Hub's cache
_HPS_V21 = Weights("HPS v2.1", ("HPS_v2.1_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
_HPS_V20 = Weights("HPS v2.0", ("HPS_v2_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
_VIT_G_14 = Weights(
    "LAION's CLIP ViT-g-14",
    ("open_clip_pytorch_model.bin",),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
)
_VIT_L_14 = Weights(
    "OpenAI's CLIP ViT-L-14",
    ("open_clip_model.safetensors",),
    "timm/vit_large_patch14_clip_224.openai",  # where open_clip takes it from
)
_PICK_SCORE = Weights("PickScore v1", ("model.safetensors",), "yuvalkirstain/PickScore_v1")
_AESTHETIC = Weights(
    "LAION aesthetic predictor",
    ("sac+logos+ava1-l14-linearMSE.pth",),
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
    "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    # As several public projects that fetch it state it.
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
)
_CLIP = "ddmd_bench.scorers.clip.scorer"

SCORERS = {
    "images": Scorer("ddmd_bench.scorers.images", ("mean", "std", "high_frequency")),
    "attributes": Scorer(
        "ddmd_bench.scorers.attributes", ("prompt_accuracy",),
        (Weights("the attribute network", ("attributes.safetensors",), package=attribute_weights),),
        num_features=128,
    ),
    "efficientnet": Scorer(
        "ddmd_bench.scorers.efficientnet", (),
        (Weights("EfficientNet-Lite0", ("efficientnet_lite0.pth",), package=efficientnet_weights),),
        num_features=112,
    ),
    "hps_v21": Scorer(_CLIP, ("hps_v21",), weights=(_HPS_V21,)),
    "hps_v20": Scorer(_CLIP, ("hps_v20",), weights=(_HPS_V20,)),
    "clip_score_vit_g_14": Scorer(_CLIP, ("clip_score_vit_g_14",), weights=(_VIT_G_14,)),
    "clip_score_vit_l_14": Scorer(_CLIP, ("clip_score_vit_l_14",), weights=(_VIT_L_14,)),
    "pick_score": Scorer(_CLIP, ("pick_score",), weights=(_PICK_SCORE,)),
    "aesthetic": Scorer(
        "ddmd_bench.scorers.clip.aesthetic", ("aesthetic",), weights=(_VIT_L_14, _AESTHETIC),
    ),
}  # fmt: skip


def needed_scorers(metrics: Iterable[str]) -> list[str]:
    """Names of the scorers that the metrics need, in the order of `SCORERS`."""
    wanted = list(metrics)
    for name in wanted:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, METRICS))
    extractors = {METRICS[name].extractor for name in wanted}
    return [k for k, row in SCORERS.items() if k in extractors or set(row.columns) & set(wanted)]


def weights_sha256(names: Iterable[str]) -> dict[str, str]:
    """Of each scorer that has weights their sha256, or of several files the hash of theirs."""
    found = {name: [identity(w) for w in SCORERS[name].weights] for name in names}
    files = {
        name: {k: v for part in parts for k, v in part.items()} for name, parts in found.items()
    }
    return {
        name: next(iter(hashes.values())) if len(hashes) == 1 else content_key(hashes)
        for name, hashes in files.items()
        if hashes
    }
