"""Which image is scored with which prompt."""

from __future__ import annotations

from parity.images import IMAGES

PROMPTS = (
    "a red cube on a blue table",
    # Longer than any of the scorers reads, HPS v3 aside.
    "a wide photograph of an old harbour at dawn, " + "with boats, ropes and wet stones, " * 14,
    "",
    "  \n ",
    "Ein Mädchen malt «Zürich» – 猫が月を見ている, naïve café №5 🌙👩🏽‍🎨",
    "cats &amp; dogs, 50% <b>BOLD</b>, isn't it? {prompt} #1/2_x ... \\n",
)  # fmt: skip

# The first image with every prompt; every other image with one.
PAIRS = tuple(
    (name, prompt)
    for k, name in enumerate(IMAGES)
    for prompt in (PROMPTS if k == 0 else (PROMPTS[k % len(PROMPTS)],))
)
