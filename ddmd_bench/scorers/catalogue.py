"""What measures: a row for each scorer. Loads no torch."""

from __future__ import annotations

from functools import partial

from ddmd_bench.scorers.dpg_questions import CATEGORIES, QUESTIONS, two_prompts, why_no_question
from ddmd_bench.scorers.dpg_score import share_column
from ddmd_bench.scorers.interface import Scorer
from ddmd_bench.scorers.quoted import SIGN_PROMPTS, signs, why_no_text
from ddmd_bench.scorers.vqa import VQA
from ddmd_bench.scorers.weight_files import (
    AESTHETIC,
    ALEXNET,
    BERT_VOCABULARY,
    CLIP_VIT_G_14,
    CLIP_VIT_L_14,
    CLIP_VIT_L_14_336,
    DINOV2,
    HPS_V3,
    HPS_V20,
    HPS_V21,
    IMAGE_REWARD,
    INCEPTION,
    PICK_SCORE,
    QWEN2_TOKENIZER,
    SSCD,
)
from ddmd_bench.scorers.weights import (
    Weights,
    attribute_weights,
    efficientnet_weights,
    lpips_weights,
    rapidocr_weights,
)

_ATTRIBUTES = Weights("attribute network", ("attributes.safetensors",), package=attribute_weights)
_EFFICIENTNET = Weights(
    "EfficientNet-Lite0", ("efficientnet_lite0.pth",), package=efficientnet_weights
)
_LPIPS_LINEAR = Weights("LPIPS' linear layers", ("alex.pth",), package=lpips_weights)
_PP_OCR = tuple(
    Weights(what, (file,), package=partial(rapidocr_weights, file), extra="ocr")
    for what, file in (
        ("PP-OCRv6's text detector", "PP-OCRv6_det_small.onnx"),
        ("PP-OCR's text direction", "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
        ("PP-OCRv6's text recogniser", "PP-OCRv6_rec_small.onnx"),
    )
)


def _why_no_labels(prompt: str) -> str | None:
    from ddmd_bench.backends.shapes.scenes import TEMPLATE, labels_of

    known = labels_of(prompt) is not None
    return None if known else f"the prompt is not of the embedded world, such as {TEMPLATE!r}"


_SCORERS = "ddmd_bench.scorers"
_CLIP = f"{_SCORERS}.clip.scorer"
_DPG = "dpg_bench_blip_vqa"

SCORERS = {
    "images": Scorer(
        f"{_SCORERS}.images", ("mean", "std", "high_frequency"), ("diversity",),
        reads_prompts=False,
    ),
    "faults": Scorer(
        f"{_SCORERS}.faults",
        (
            "hsv_saturation", "clipped_highlights", "colour_cast_a", "colour_cast_b", "sharpness",
            "checkerboard", "black", "one_colour",
        ),
        # In float64 a batch of large images would be tensors that the system maps anew each time.
        batch_size=1, reads_prompts=False, of_blank=True,
    ),
    "attributes": Scorer(
        f"{_SCORERS}.attributes", ("prompt_accuracy",), weights=(_ATTRIBUTES,),
        num_features=128, example_size=32, why_no_value=_why_no_labels,
        example_prompts=(
            "a large red circle in the centre on a white background",
            "a small blue square at the top on a black background",
        ),
    ),
    "efficientnet": Scorer(
        f"{_SCORERS}.efficientnet", weights=(_EFFICIENTNET,), num_features=112,
        reads_prompts=False,
    ),
    "hps_v21": Scorer(_CLIP, ("hps_v21",), weights=(HPS_V21,)),
    "hps_v20": Scorer(_CLIP, ("hps_v20",), weights=(HPS_V20,)),
    "clip_score_vit_g_14": Scorer(_CLIP, ("clip_score_vit_g_14",), weights=(CLIP_VIT_G_14,)),
    "clip_score_vit_l_14": Scorer(_CLIP, ("clip_score_vit_l_14",), weights=(CLIP_VIT_L_14,)),
    "pick_score": Scorer(_CLIP, ("pick_score",), weights=(PICK_SCORE,)),
    "aesthetic": Scorer(
        f"{_SCORERS}.clip.aesthetic", ("aesthetic",), weights=(CLIP_VIT_L_14, AESTHETIC),
        reads_prompts=False,
    ),
    "image_reward": Scorer(
        f"{_SCORERS}.image_reward", ("image_reward",), weights=(IMAGE_REWARD, BERT_VOCABULARY)
    ),
    "hps_v3": Scorer(
        f"{_SCORERS}.hps_v3", ("hps_v3",), weights=(HPS_V3, QWEN2_TOKENIZER), batch_size=16
    ),
    "inception": Scorer(
        f"{_SCORERS}.inception", weights=(INCEPTION,), num_features=2048, batch_size=128,
        reads_prompts=False,
        protocol="clean-fid's resize to 299 px: Pillow's bicubic filter on float32 channels",
    ),
    "inception_dmd2": Scorer(
        f"{_SCORERS}.inception", weights=(INCEPTION,), num_features=2048, batch_size=128,
        reads_prompts=False,
        protocol="centre square, Lanczos to 512 px, clean-fid's resize to 299 px",
    ),
    "inception_patch": Scorer(
        f"{_SCORERS}.inception", weights=(INCEPTION,), num_features=2048, batch_size=128,
        reads_prompts=False, example_size=512,
        protocol="centre 299 px, not resized; below that size clean-fid's resize of the whole",
    ),
    "lpips_alex": Scorer(
        f"{_SCORERS}.likeness", prompt_columns=("lpips",), weights=(ALEXNET, _LPIPS_LINEAR),
        reads_prompts=False,
    ),
    "ms_ssim": Scorer(
        f"{_SCORERS}.likeness", prompt_columns=("ms_ssim",), reads_prompts=False,
        # What is left of so many at the fifth scale holds the window of 11.
        fewest_pixels=176,
    ),
    "dinov2": Scorer(
        f"{_SCORERS}.dinov2", weights=(DINOV2,), num_features=1024, reads_prompts=False,
        protocol="the whole image resized to 224 px: Pillow's bicubic filter on 8-bit levels",
    ),
    "sscd": Scorer(
        f"{_SCORERS}.sscd", weights=(SSCD,), num_features=512, reads_prompts=False,
        protocol="the whole image resized to 320 px: Pillow's bilinear filter on 8-bit levels",
    ),
    "clip_vit_l_14_336": Scorer(
        f"{_SCORERS}.clip.features", weights=(CLIP_VIT_L_14_336,), num_features=768,
        reads_prompts=False,
        protocol="the centre square resized to 336 px: Pillow's bicubic filter on 8-bit levels",
    ),
    "dpg_blip_vqa": Scorer(
        f"{_SCORERS}.dpg",
        (_DPG, *(share_column(_DPG, category) for category in CATEGORIES)),
        weights=(QUESTIONS, VQA["blip_vqa"].weights), batch_size=32, why_no_value=why_no_question,
        example_prompts=two_prompts,
    ),
    "ocr": Scorer(
        f"{_SCORERS}.ocr", ("ocr_accuracy", "ocr_exact"), weights=_PP_OCR,
        batch_size=1,  # images are read one by one
        of_blank=True, why_no_value=why_no_text,
        example_prompts=SIGN_PROMPTS, example_images=signs,
    ),
}  # fmt: skip
