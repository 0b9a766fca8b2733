"""The two files beside ImageReward's checkpoint: its text encoder's settings and a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

VOCABULARY_SIZE = 30522  # of bert-base-uncased
# What the published med_config.json says, which is BLIP's (salesforce/BLIP, configs/): BERT base
# that attends to the image, with two more tokens.
MED_CONFIG = {
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "vocab_size": VOCABULARY_SIZE + 2,
    "add_cross_attention": True,
}


def vocabulary_text(used: Mapping[str, int]) -> str:
    """vocab.txt with the tokens in use at their numbers, and unused ones elsewhere.

    Cuts the same prompts into the same tokens as the whole vocabulary does: of a word's pieces the
    longest is taken, and it is among those in use.
    """
    lines = [f"[unused_{k}]" for k in range(VOCABULARY_SIZE)]
    for token, number in used.items():
        lines[number] = token
    return "\n".join(lines) + "\n"
