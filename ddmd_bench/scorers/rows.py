"""What measures: a row for each scorer. Loads no torch.

Revisions and sha256 are given where they were verified.
"""

from __future__ import annotations

from ddmd_bench.scorers.dpg_questions import CATEGORIES, QUESTIONS, two_prompts
from ddmd_bench.scorers.interface import Scorer
from ddmd_bench.scorers.vqa import VQA
from ddmd_bench.scorers.weights import Weights, attribute_weights, efficientnet_weights

_ATTRIBUTES = Weights("attribute network", ("attributes.safetensors",), package=attribute_weights)
_EFFICIENTNET = Weights(
    "EfficientNet-Lite0", ("efficientnet_lite0.pth",), package=efficientnet_weights
)
# Where hpsv2 keeps its files, beside the Hub's cache.
_HPS_FOLDERS = ("$HPS_ROOT", "~/.cache/hpsv2")
_HPS_V21 = Weights("HPS v2.1", ("HPS_v2.1_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
_HPS_V20 = Weights("HPS v2.0", ("HPS_v2_compressed.pt",), "xswu/HPSv2", elsewhere=_HPS_FOLDERS)
_VIT_G_14 = Weights(
    "LAION's CLIP ViT-g-14", ("open_clip_pytorch_model.bin",),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
)  # fmt: skip
_VIT_L_14 = Weights(
    "OpenAI's CLIP ViT-L-14", ("open_clip_model.safetensors",),
    "timm/vit_large_patch14_clip_224.openai",  # where open_clip takes it from
)  # fmt: skip
_PICK_SCORE = Weights("PickScore v1", ("model.safetensors",), "yuvalkirstain/PickScore_v1")
_AESTHETIC = Weights(
    "the LAION aesthetic predictor", ("sac+logos+ava1-l14-linearMSE.pth",),
    url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/"
        "6934dd81792f086e613a121dbce43082cb8be85e/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    # As several public projects that fetch it state it.
    sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
)  # fmt: skip
_IMAGE_REWARD = Weights(
    "ImageReward v1.0", ("ImageReward.pt", "med_config.json"), "zai-org/ImageReward",
    elsewhere=("~/.cache/ImageReward",),
)  # fmt: skip
_BERT_VOCABULARY = Weights("BERT's vocabulary", ("vocab.txt",), "google-bert/bert-base-uncased")
_HPS_V3 = Weights("HPS v3", ("HPSv3.safetensors",), "MizzenAI/HPSv3")
_QWEN2_TOKENIZER = Weights("Qwen2-VL's tokenizer", ("tokenizer.json",), "Qwen/Qwen2-VL-7B-Instruct")

_SCORERS = "ddmd_bench.scorers"
_CLIP = f"{_SCORERS}.clip.scorer"

SCORERS = {
    "images": Scorer(
        f"{_SCORERS}.images", ("mean", "std", "high_frequency"), ("diversity",),
        reads_prompts=False,
    ),
    "attributes": Scorer(
        f"{_SCORERS}.attributes", ("prompt_accuracy",), weights=(_ATTRIBUTES,),
        num_features=128, example_size=32,
        example_prompts=(
            "a large red circle in the centre on a white background",
            "a small blue square at the top on a black background",
        ),
    ),
    "efficientnet": Scorer(
        f"{_SCORERS}.efficientnet", weights=(_EFFICIENTNET,), num_features=112,
        reads_prompts=False,
    ),
    "hps_v21": Scorer(_CLIP, ("hps_v21",), weights=(_HPS_V21,)),
    "hps_v20": Scorer(_CLIP, ("hps_v20",), weights=(_HPS_V20,)),
    "clip_score_vit_g_14": Scorer(_CLIP, ("clip_score_vit_g_14",), weights=(_VIT_G_14,)),
    "clip_score_vit_l_14": Scorer(_CLIP, ("clip_score_vit_l_14",), weights=(_VIT_L_14,)),
    "pick_score": Scorer(_CLIP, ("pick_score",), weights=(_PICK_SCORE,)),
    "aesthetic": Scorer(
        f"{_SCORERS}.clip.aesthetic", ("aesthetic",), weights=(_VIT_L_14, _AESTHETIC),
        reads_prompts=False,
    ),
    "image_reward": Scorer(
        f"{_SCORERS}.image_reward", ("image_reward",), weights=(_IMAGE_REWARD, _BERT_VOCABULARY)
    ),
    "hps_v3": Scorer(
        f"{_SCORERS}.hps_v3", ("hps_v3",), weights=(_HPS_V3, _QWEN2_TOKENIZER), batch_size=16
    ),
    "dpg_blip_vqa": Scorer(
        f"{_SCORERS}.dpg",
        ("dpg_bench_blip_vqa", *(f"dpg_bench_blip_vqa_{category}" for category in CATEGORIES)),
        weights=(QUESTIONS, VQA["blip_vqa"].weights), batch_size=32, example_prompts=two_prompts,
    ),
}  # fmt: skip
