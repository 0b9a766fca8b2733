"""A tiny Qwen2-VL in its published files' format: configuration, tokenizer, chat template.

Nothing is drawn at random and nothing is fetched: both environments write the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Words of the instruction, which become tokens of their own; all else is spelt in bytes.
WORDS = (
    "the", "and", "image", "visual", "quality", "text", "alignment", "evaluate", "rating", "style",
    "prompt", "boat", "photograph", "relevance", "user", "system", "assistant", "example", "table",
)  # fmt: skip
# In the order of their numbers, right after the vocabulary; the vendor adds <|Reward|> behind them.
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
# What the published template makes of one user's turn with an image and a text.
CHAT_TEMPLATE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen2's: contractions, letters, single digits, punctuation, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_symbols() -> list[str]:
    """The character that stands for each byte in byte-level BPE, printable ones for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + k) for k in range(len(others)))]


def _merges() -> Iterator[tuple[str, str]]:
    """Of each word, alone and after a space (Ġ), its letters from the left."""
    seen = set()
    for word in WORDS:
        for start in (word, f"Ġ{word}"):
            for k in range(1, len(start)):
                merge = (start[:k], start[k])
                if merge not in seen:
                    seen.add(merge)
                    yield merge


def vocabulary() -> dict[str, int]:
    """Number by token, without the special ones."""
    tokens = [*_byte_symbols(), *("".join(merge) for merge in _merges())]
    return {token: k for k, token in enumerate(tokens)}


def configuration() -> dict[str, Any]:
    """config.json, with Qwen2-VL-7B's proportions where they matter to the arithmetic."""
    first = len(vocabulary())
    ids = {token: first + k for k, token in enumerate(SPECIAL)}
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vocab_size": first + 64,  # more rows than tokens, as published
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "torch_dtype": "float32",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": 3,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 4,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    }


def _files() -> dict[str, Any]:
    """Content by name, of all but the weights."""
    tokens = vocabulary()
    added = [
        {"id": len(tokens) + k, "content": token, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for k, token in enumerate(SPECIAL)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "config.json": configuration(),
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "tokenizer_config.json": {
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
            "additional_special_tokens": list(SPECIAL[1:]),
            "added_tokens_decoder": {
                str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added
            },
            "chat_template": CHAT_TEMPLATE,
        },
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": tokens,
                "merges": [" ".join(merge) for merge in _merges()],
            },
        },
        "vocab.json": tokens,
    }


def write_files(folder: Path) -> None:
    """Everything of a published Qwen2-VL folder but its weights."""
    for name, content in _files().items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    merges = "".join(f"{left} {right}\n" for left, right in _merges())
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")


def architecture() -> dict[str, Any]:
    """The same configuration in the words of transformers 5, with as many tokens as are in use."""
    old = configuration()
    text = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
    )  # fmt: skip
    vision = (
        "depth", "embed_dim", "hidden_size", "num_heads", "mlp_ratio", "patch_size",
        "spatial_merge_size", "temporal_patch_size",
    )  # fmt: skip
    return {
        "text_config": {
            **{name: old[name] for name in text},
            "vocab_size": len(vocabulary()) + len(SPECIAL) + 1,  # <|Reward|>
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": old["rope_theta"],
                "mrope_section": old["rope_scaling"]["mrope_section"],
            },
        },
        "vision_config": {name: old["vision_config"][name] for name in vision},
    }
