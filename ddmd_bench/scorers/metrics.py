"""What is measured: a row for each metric. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ddmd_bench.scorers.dpg_questions import CATEGORIES
from ddmd_bench.scorers.dpg_score import count_column, share_column
from ddmd_bench.scorers.metric import Metric
from ddmd_bench.scorers.weights import RAPIDOCR

_OCR = {"version": f"PP-OCRv6 small in rapidocr {RAPIDOCR}"}
SHARE = (0.0, 1.0)
POSITIVE = (0.0, math.inf)
METRICS = {
    "prompt_accuracy": Metric(
        "Prompt accuracy", "image", "higher", None, 100, "%", 1,
        "Share of images in which shape, colour, size, place and background are all as the prompt "
        "says, read by a network trained on real scenes.", judges=True, bounds=SHARE,
    ),
    "frechet_attributes": Metric(
        "Fréchet distance (attributes)", "distribution", "lower", "attributes", 1, "", 2,
        "Distance between the students' images and real scenes of the same prompts, in 128 "
        "features of the network that reads the attributes; 0 means alike.", distance="frechet",
    ),
    "frechet_efficientnet": Metric(
        "Fréchet distance (EfficientNet)", "distribution", "lower", "efficientnet", 1, "", 2,
        "The same distance in 112 features of EfficientNet-Lite0, which was trained on photographs "
        "and never saw these scenes.", distance="frechet",
    ),
    "hps_v21": Metric(
        "HPS v2.1", "image", "higher", None, 100, "", 2,
        "Human Preference Score v2.1: cosine of image and prompt, times 100, in the ViT-H-14 of "
        "HPS_v2.1_compressed.pt (xswu/HPSv2); 77 tokens of a prompt are read.",
    ),
    "hps_v20": Metric(
        "HPS v2.0", "image", "higher", None, 100, "", 2,
        "Human Preference Score v2.0: cosine of image and prompt, times 100, in the ViT-H-14 of "
        "HPS_v2_compressed.pt (xswu/HPSv2), not comparable with v2.1; 77 tokens of a prompt are "
        "read.",
    ),
    "clip_score_vit_g_14": Metric(
        "CLIP score (ViT-g-14)", "image", "higher", None, 100, "", 2,
        "Cosine of image and prompt, times 100, in LAION's ViT-g-14 (laion2b_s12b_b42k), as DMD2 "
        "evaluates: \"A photo depicts\" before every prompt, 77 tokens with it; the image's "
        "centre square at 256 px first.",
        facts={
            "version": "open_clip ViT-g-14 laion2b_s12b_b42k",
            "text_prefix": "A photo depicts",
        },
    ),
    "clip_score_vit_l_14": Metric(
        "CLIP score (ViT-L-14)", "image", "higher", None, 100, "", 2,
        "Cosine of image and prompt, times 100, in OpenAI's ViT-L-14; nothing before the prompt, "
        "of which 77 tokens are read.",
    ),
    "pick_score": Metric(
        "PickScore", "image", "higher", None, 1, "", 2,
        "PickScore v1: cosine of image and prompt times the logit scale (about 100) in the "
        "ViT-H-14 of yuvalkirstain/PickScore_v1; 77 tokens of a prompt are read.",
    ),
    "aesthetic": Metric(
        "Aesthetic", "image", "higher", None, 1, "", 2,
        "LAION's aesthetic predictor (sac+logos+ava1-l14-linearMSE) on OpenAI's ViT-L-14: a "
        "rating, nominally of 1 to 10, from the image alone; the prompt is not read.",
    ),
    "saturation": Metric(
        "Saturation", "image", "lower", None, 100, "%", 2,
        "Share of pixel values that the student put outside the range an image can hold, before "
        "they were clipped.", bounds=SHARE,
    ),
    "mean": Metric(
        "Mean", "image", "reference", None, 1, "", 3,
        "Mean pixel value, from -1 (black) to 1 (white); right where it equals that of real "
        "scenes.",
    ),
    "std": Metric(
        "Standard deviation", "image", "reference", None, 1, "", 3,
        "Contrast: standard deviation of the pixel values of an image in [-1, 1]; right where it "
        "equals that of real scenes.",
        bounds=POSITIVE,
    ),
    "high_frequency": Metric(
        "High frequency", "image", "reference", None, 1, "", 4,
        "Fine detail and noise: mean squared response of a 3 x 3 Laplacian, 0 for a flat image "
        "and 1 for a checkerboard of black and white; right where it equals that of real scenes.",
        bounds=POSITIVE,
    ),
    "hsv_saturation": Metric(
        "HSV saturation", "image", "reference", None, 100, "%", 1,
        "How colourful: mean over pixels of HSV's S, the largest channel minus the smallest as a "
        "share of the largest. Greys have 0, a pure hue 1, dark ones too.",
        bounds=SHARE,
    ),
    "clipped_highlights": Metric(
        "Clipped highlights", "image", "lower", None, 100, "%", 2,
        "Share of pixels with 255 in all channels, where no shade is left. A white background "
        "counts too: what it says shows beside images of the same prompts.",
        bounds=SHARE,
    ),
    "colour_cast_a": Metric(
        "Colour cast a*", "image", "reference", None, 1, "", 2,
        "Mean a* of the pixels in CIELAB (D65): above 0 red, below 0 green. The difference from "
        "the teacher's image of the same prompt is a cast; of about 2.3 it is just seen.",
    ),
    "colour_cast_b": Metric(
        "Colour cast b*", "image", "reference", None, 1, "", 2,
        "Mean b* of the pixels in CIELAB (D65): above 0 yellow, below 0 blue; as a*.",
    ),
    "sharpness": Metric(
        "Sharpness", "image", "reference", None, 1, "", 1,
        "Variance of a 3 x 3 Laplacian of the luma, in levels squared (of 255): falls with blur, "
        "rises with noise and oversharpening. It depends on the resolution.",
        bounds=POSITIVE,
    ),
    "checkerboard": Metric(
        "Checkerboard", "image", "reference", None, 100, "%", 2,
        "Share of an image's variance that alternates from pixel to pixel along both axes: 1 for "
        "a checkerboard of single pixels, 1/4 for white noise or cells of two, less of larger "
        "ones, 0 for lines and ramps along an axis; right where it equals that of real scenes.",
        bounds=SHARE,
    ),
    "black": Metric(
        "Black images", "image", "lower", None, 100, "%", 2,
        "Share of images in which no level is above 8 of 255.",
        bounds=SHARE, counted_by_check=True,
    ),
    "one_colour": Metric(
        "Images of one colour", "image", "lower", None, 100, "%", 2,
        "Share of images, black ones aside, in which no channel reaches over more than 8 levels "
        "of 255.",
        bounds=SHARE, counted_by_check=True,
    ),
    "near_duplicates": Metric(
        "Near-duplicates", "image", "lower", None, 100, "%", 2,
        "Share of images of which the student has a near-copy among its images of other prompts: "
        "a cosine of SSCD's descriptors above 0.75, where 90 % of DISC's pairs are copies (Pizzi "
        "et al. 2022). The more images, the more of them find one: compare equal numbers only.",
        across=("sscd", 0.75), bounds=SHARE,
    ),
    "diversity": Metric(
        "Diversity", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ: mean over pairs of the root mean square "
        "difference of pixels in [-1, 1]; right where it equals that of real scenes.",
        bounds=POSITIVE,
    ),
    "lpips": Metric(
        "LPIPS", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ to the eye: mean over pairs of LPIPS (Zhang et "
        "al. 2018) in AlexNet, 0 for images alike; right where it equals that of real images, or "
        "of the teacher.",
        bounds=POSITIVE,
    ),
    "ms_ssim": Metric(
        "MS-SSIM", "prompt", "reference", None, 1, "", 3,
        "How alike the images of one prompt are in structure: mean over pairs of the multi-scale "
        "SSIM (Wang et al. 2003), 1 for images alike; images of 176 pixels a side at least; right "
        "where it equals that of real images, or of the teacher.",
        bounds=SHARE,
    ),
    "vendi_dinov2": Metric(
        "Vendi score (DINOv2)", "prompt", "reference", None, 1, "", 3,
        "How many different images of a prompt there are, in effect: from 1, all alike, to their "
        "number (Friedman and Dieng 2023), by cosines in DINOv2's features; right where it equals "
        "that of real images, or of the teacher.",
        within=("dinov2", "vendi"), bounds=(1.0, math.inf),
    ),
    "distance_dinov2": Metric(
        "Pairwise distance (DINOv2)", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ: mean over pairs of 1 - cosine in DINOv2's "
        "features; right where it equals that of real images, or of the teacher.",
        within=("dinov2", "pairwise"), bounds=POSITIVE,
    ),
    "distance_efficientnet": Metric(
        "Pairwise distance (EfficientNet)", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ: mean over pairs of 1 - cosine in "
        "EfficientNet-Lite0's features; right where it equals that of real images, or of the "
        "teacher.",
        within=("efficientnet", "pairwise"), bounds=POSITIVE,
    ),
    "image_reward": Metric(
        "ImageReward", "image", "higher", None, 100, "", 2,
        "How a person would rate the image for its prompt, by ImageReward v1.0, without bounds; "
        "shown times 100. It reads 35 tokens of a prompt.",
    ),
    "hps_v3": Metric(
        "HPS v3", "image", "higher", None, 1, "", 2,
        "How much people would like the image for its prompt, by HPS v3, without bounds. It reads "
        "prompts whole.",
    ),
    "dpg_bench_blip_vqa": Metric(
        "DPG-Bench (BLIP-VQA)", "image", "higher", None, 100, "%", 2,
        "Share of the questions about its prompt that an image passes: BLIP-VQA answers yes to "
        "them and to what they depend on. Published DPG-Bench values are mPLUG-large's answers, "
        "another model's: not comparable.", bounds=SHARE,
    ),
    "ocr_accuracy": Metric(
        "OCR accuracy", "image", "higher", None, 100, "%", 2,
        "How much of the texts that a prompt quotes stands on its image, read by PP-OCRv6: 1 - "
        "edits / characters (Flow-GRPO, Liu et al. 2025) of the words that come nearest to each "
        "text, without case, spaces and punctuation. A prompt that quotes none has no value.",
        bounds=SHARE, facts=_OCR,
    ),
    "ocr_exact": Metric(
        "OCR exact", "image", "higher", None, 100, "%", 2,
        "Share of images on which PP-OCRv6 reads every text that the prompt quotes without a "
        "single edit, as in OCR accuracy.",
        judges=True, bounds=SHARE, facts=_OCR,
    ),
    "fid": Metric(
        "FID", "distribution", "lower", "inception", 1, "", 2,
        "Fréchet Inception distance to the reference's real images (Heusel et al. 2017) with "
        "clean-fid's resize. Its bias depends on the number of images: compare equal numbers only.",
        distance="frechet_wide", published_n=30_000,
    ),
    "fid_dmd2": Metric(
        "FID (DMD2's COCO protocol)", "distribution", "lower", "inception_dmd2", 1, "", 2,
        "FID as DMD2 evaluates on COCO 2014: the centre square resized to 512 pixels with Lanczos' "
        "filter, then clean-fid's resize. Comparable with its table at 10,000 images.",
        distance="frechet_wide", published_n=10_000,
        facts={
            "resize": "centre crop to the shorter side, PIL Lanczos to 512",
            "version": "clean-fid's Inception",
        },
    ),
    "patch_fid": Metric(
        "Patch FID", "distribution", "lower", "inception_patch", 1, "", 2,
        "FID of the centre's 299 x 299 pixels at full resolution (SDXL-Lightning, DMD2): fine "
        "detail, which a resize would hide. Images below that size are resized whole.",
        distance="frechet_wide", published_n=10_000,
        facts={
            "resize": "none; centre crop of 299 pixels",
            "version": "clean-fid's Inception",
        },
    ),
    "fid_infinity": Metric(
        "FID at infinity", "distribution", "lower", "inception", 1, "", 2,
        "FID extrapolated to infinitely many of the student's images (Chong and Forsyth 2020); "
        "needs more than twice as many images as features.",
        distance="frechet_infinity", published_n=50_000,
    ),
    "mifid": Metric(
        "MiFID", "distribution", "lower", "inception", 1, "", 2,
        "FID over the memorisation distance (Bai et al. 2021): the mean of each image's 1 - "
        "|cosine| to the nearest real one in FID's features, where that is below 0.1; else FID. It "
        "tells of copies where the reference holds the images of the training, and jumps at 0.1.",
        distance="frechet_memorisation",
    ),
    "fd_dinov2": Metric(
        "FD (DINOv2)", "distribution", "lower", "dinov2", 1, "", 2,
        "Fréchet distance to the reference's real images in the class token of DINOv2's ViT-L/14 "
        "(Stein et al. 2023): nearer to what people call realistic than Inception's features. Its "
        "bias depends on the number of images: compare equal numbers only.",
        distance="frechet_wide", published_n=50_000,
    ),
    "cmmd": Metric(
        "CMMD", "distribution", "lower", "clip_vit_l_14_336", 1_000, "10⁻³", 3,
        "Squared maximum mean discrepancy to the reference's real images in CLIP ViT-L-14's "
        "features at 336 px, by a Gaussian kernel of bandwidth 10 (Jayasumana et al. 2024), over "
        "all pairs, those of an image with itself too.",
        distance="gaussian_kernel", published_n=30_000,
    ),
    "kid": Metric(
        "KID", "distribution", "lower", "inception", 1_000, "10⁻³", 2,
        "Kernel Inception distance (Bińkowski et al. 2018), over all pairs of images. Without "
        "bias at any number of images; below 0 as often as above where students are as real.",
        distance="kernel",
    ),
    "precision": Metric(
        "Precision", "distribution", "higher", "inception", 100, "%", 1,
        "Share of the student's images that lie among real ones (Kynkäänniemi et al. 2019, k = 3) "
        "in FID's features: how real they look.",
        distance="precision", published_n=50_000, bounds=SHARE,
    ),
    "recall": Metric(
        "Recall", "distribution", "higher", "inception", 100, "%", 1,
        "Share of real images that lie among the student's (Kynkäänniemi et al. 2019, k = 3) in "
        "FID's features: how much of the variety there is.",
        distance="recall", published_n=50_000, bounds=SHARE,
    ),
    "density": Metric(
        "Density", "distribution", "higher", "inception", 1, "", 3,
        "How densely real images surround the student's (Naeem et al. 2020, k = 5) in FID's "
        "features: as precision, without trust in outliers; 1 is expected of real images, and "
        "students that crowd where real images do exceed it.",
        distance="density", published_n=10_000, bounds=POSITIVE,
    ),
    "coverage": Metric(
        "Coverage", "distribution", "higher", "inception", 100, "%", 1,
        "Share of real images with an image of the student's nearby (Naeem et al. 2020, k = 5) in "
        "FID's features: as recall, without trust in outliers.",
        distance="coverage", published_n=10_000, bounds=SHARE,
    ),
}  # fmt: skip

_DPG = "dpg_bench_blip_vqa"
METRICS |= {
    share_column(_DPG, category): Metric(
        f"DPG {category} (BLIP-VQA)", "image", "higher", None, 100, "%", 2,
        f"Share of the benchmark's questions of the category {category} that BLIP-VQA answers with "
        "yes, whatever they depend on: a mean over questions, as the benchmark's own.",
        counts=count_column(_DPG, category), bounds=SHARE,
    )
    for category in CATEGORIES
}  # fmt: skip

# What metrics have in common, by which wide tables show or hide them.
GROUPS = {
    "image": "Single images",
    "category": "By category",
    "prompt": "Images of one prompt",
    "distribution": "Sets of images",
    "reference": "Statistics",
}


def group_of(metric: str) -> str:
    """A key of `GROUPS`."""
    row = METRICS[metric]
    if row.better == "reference":
        return row.better
    return "category" if row.counts else row.kind


def headline_of(metrics: Iterable[str], kind: str) -> str | None:
    """The first of a kind that has a better direction."""
    rows = [name for name in metrics if name in METRICS and METRICS[name].kind == kind]
    return next((name for name in rows if METRICS[name].better != "reference"), None)


def gated_by_default(metrics: Iterable[str]) -> list[str]:
    """Those of which more or less is better, but for what `check` counts by itself."""
    rows = {name: METRICS[name] for name in metrics}
    return [n for n, row in rows.items() if row.better != "reference" and not row.counted_by_check]
