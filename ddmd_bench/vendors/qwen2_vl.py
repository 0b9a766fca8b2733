"""The files from which the package `hpsv3` makes its network and its processor, without weights.

Its checkpoint replaces every weight of the Qwen2-VL that it would start from, so that a
configuration is enough, and beside it the tokenizer that our scorer reads. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddmd_bench.files.reading import FETCH_AGAIN
from ddmd_bench.files.records import read_record, write_json

# Qwen/Qwen2-VL-7B-Instruct (Apache-2.0): what its chat template makes of one user's turn with an
# image and a text.
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Its preprocessor_config.json.
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# Fields of its config.json that name a token.
TOKENS = {
    "bos_token_id": "<|endoftext|>",
    "eos_token_id": "<|im_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "vision_token_id": "<|vision_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}
SPARE = 64  # rows of the embedding without a token; as published there are some, which are cut off
TOKENIZER_FORM = {"added_tokens": [{"id": int, "content": str}]}


def configuration(architecture: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    """config.json in the words of transformers 4.45, of an architecture in those of 5.

    tokens: numbers of the special tokens.
    """
    text = dict(architecture["text_config"])
    rope = text.pop("rope_parameters")
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        **text,
        "vocab_size": text["vocab_size"] + SPARE,
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "torch_dtype": "float32",
        **{name: tokens[token] for name, token in TOKENS.items()},
        "vision_config": {"model_type": "qwen2_vl", **architecture["vision_config"]},
    }


def write_base(folder: Path, architecture: Mapping[str, Any]) -> None:
    """All else that the package reads of the folder it starts from, beside tokenizer.json."""
    tokenizer = read_record(folder / "tokenizer.json", TOKENIZER_FORM, FETCH_AGAIN)
    added = tokenizer["added_tokens"]
    write_json(
        folder / "config.json",
        configuration(architecture, {token["content"]: token["id"] for token in added}),
    )
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "errors": "replace",
        "model_max_length": 32768,
        "padding_side": "left",
        "split_special_tokens": False,
        "additional_special_tokens": [token["content"] for token in added][1:],
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
        },
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
