"""What is measured: a row for each metric. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """What a number means and how it is shown; values are stored raw."""

    title: str
    kind: Literal["image", "prompt", "distribution"]
    better: Literal["higher", "lower", "reference"]  # reference: nearer to the real scenes' value
    extractor: str | None
    scale: float  # display only
    unit: str
    decimals: int
    description: str
    judges: bool = False  # whether an image's value is 1 for right and 0 for wrong


METRICS = {
    "prompt_accuracy": Metric(
        "Prompt accuracy", "image", "higher", None, 100, "%", 1,
        "Share of images in which shape, colour, size, place and background are all as the prompt "
        "says, read by a network trained on real scenes.", judges=True,
    ),
    "frechet_attributes": Metric(
        "Fréchet distance (attributes)", "distribution", "lower", "attributes", 1, "", 2,
        "Distance between the students' images and real scenes of the same prompts, in 128 "
        "features of the network that reads the attributes; 0 means alike.",
    ),
    "frechet_efficientnet": Metric(
        "Fréchet distance (EfficientNet)", "distribution", "lower", "efficientnet", 1, "", 2,
        "The same distance in 112 features of EfficientNet-Lite0, which was trained on photographs "
        "and never saw these scenes.",
    ),
    "saturation": Metric(
        "Saturation", "image", "lower", None, 100, "%", 2,
        "Share of pixel values that the student put outside the range an image can hold, before "
        "they were clipped.",
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
    ),
    "high_frequency": Metric(
        "High frequency", "image", "reference", None, 1, "", 4,
        "Fine detail and noise: mean squared response of a 3 x 3 Laplacian, 0 for a flat image "
        "and 1 for a checkerboard of black and white; right where it equals that of real scenes.",
    ),
    "diversity": Metric(
        "Diversity", "prompt", "reference", None, 1, "", 3,
        "How much the images of one prompt differ: mean over pairs of the root mean square "
        "difference of pixels in [-1, 1]; right where it equals that of real scenes.",
    ),
    "dpg_bench_blip_vqa": Metric(
        "DPG-Bench (BLIP-VQA)", "image", "higher", None, 100, "%", 2,
        "Share of the questions about its prompt that an image passes: BLIP-VQA answers yes to "
        "them and to what they depend on. Published DPG-Bench values are mPLUG-large's answers, "
        "another model's: not comparable.",
    ),
}  # fmt: skip
