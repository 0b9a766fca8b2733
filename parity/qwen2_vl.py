"""A tiny Qwen2-VL: its architecture, and its tokenizer in the published file's format.

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


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json."""
    tokens = vocabulary()
    added = [
        {"id": len(tokens) + k, "content": token, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for k, token in enumerate(SPECIAL)
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                  "use_regex": False}  # fmt: skip
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    content = {
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
    }
    text = json.dumps(content, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")


def architecture() -> dict[str, Any]:
    """With Qwen2-VL-7B's proportions where they matter to the arithmetic."""
    return {
        "text_config": {
            "vocab_size": len(vocabulary()) + len(SPECIAL) + 1,  # <|Reward|>
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [2, 3, 3],
            },
        },
        "vision_config": {
            "depth": 3,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }
