"""Names of a Lumina-Image-2.0 transformer's layers in its authors' own code."""

from __future__ import annotations

from typing import Any

# In a block, as diffusers' converter of its LoRAs has them; there three projections are one.
PARTS = {
    "attention.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "attention.out": ("attn.to_out.0",),
    "feed_forward.w1": ("feed_forward.linear_1",),
    "feed_forward.w2": ("feed_forward.linear_2",),
    "feed_forward.w3": ("feed_forward.linear_3",),
    "adaLN_modulation.1": ("norm1.linear",),
}
BLOCKS = ("noise_refiner", "context_refiner", "layers")


def original_names(transformer: Any) -> dict[str, tuple[str, ...]]:
    """The original name -> the layers that it joins."""
    layers = {name for name, _ in transformer.named_modules()}
    found = {}
    for blocks in BLOCKS:
        for k in range(len(getattr(transformer, blocks))):
            for original, parts in PARTS.items():
                own = tuple(f"{blocks}.{k}.{part}" for part in parts)
                if layers.issuperset(own):  # a context refiner has no modulation
                    found[f"{blocks}.{k}.{original}"] = own
    return found
