"""A BLIP-VQA repository of tiny size, in the published one's files and formats."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertTokenizerFast, BlipConfig, BlipForQuestionAnswering

WORDS = ["yes", "no", "is", "are", "there", "a", "the", "this", "it", "two", "?"]
WORDS += ["field", "green", "vast", "horses", "drawing"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SIZE = 32  # px
IMAGE_FORMAT = {
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "BlipImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"height": SIZE, "width": SIZE},
}


def config() -> BlipConfig:
    """As in the published one, two tokens follow the vocabulary, and the first is named."""
    text = {
        "vocab_size": len(VOCABULARY) + 2,
        "bos_token_id": len(VOCABULARY),
        "pad_token_id": 0,
        "sep_token_id": 3,
        "hidden_size": 32,
        "encoder_hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,  # so that answers differ from image to image
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 16,
        "initializer_range": 0.3,
    }
    return BlipConfig(text_config=text, vision_config=vision, initializer_range=0.3)


def tiny_blip(seed: int = 0) -> BlipForQuestionAnswering:
    """The network with drawn weights."""
    torch.manual_seed(seed)
    network = BlipForQuestionAnswering(config())
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.3 * torch.randn(value.shape))
    return network.eval()


def write_repository(folder: Path, seed: int = 0) -> BlipForQuestionAnswering:
    """The files that the scorer reads; gives the network that is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    network = tiny_blip(seed)
    network.config.to_json_file(folder / "config.json")
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGE_FORMAT))
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(VOCABULARY))
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    # Of the time of the published file: positions were written too.
    positions = {
        f"{part}.embeddings.position_ids": torch.arange(64)[None]
        for part in ("text_encoder", "text_decoder.bert")
    }
    torch.save(network.state_dict() | positions, folder / "pytorch_model.bin")
    return network
