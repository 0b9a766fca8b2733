"""Names of a UNet's layers in Stability's own code, which kohya's trainer writes for SDXL.

As diffusers' converter of Stable Diffusion's checkpoints maps them.
"""

from __future__ import annotations

import re
from typing import Any

# Outside the blocks; in a resnet.
OUTER = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(
    r"(?P<way>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>\w+)\.(?P<layer>\d+)\.(?P<rest>.+)"
)
_MIDDLE = re.compile(r"mid_block\.(?P<kind>resnets|attentions)\.(?P<layer>\d+)\.(?P<rest>.+)")


def original_names(unet: Any) -> dict[str, tuple[str]]:
    """The original name -> the layer's own; {} for a UNet whose blocks differ in length."""
    if not isinstance(unet.config.layers_per_block, int):
        return {}
    found = {}
    for name, _ in unet.named_modules():
        original = OUTER.get(name) or _middle(name) or _in_block(unet, name)
        if original is not None:
            found[original] = (name,)
    return found


def _middle(name: str) -> str | None:
    match = _MIDDLE.fullmatch(name)
    if match is None:
        return None
    if match["kind"] == "attentions":
        return f"middle_block.1.{match['rest']}"
    # The attention stands between the two.
    return f"middle_block.{2 * int(match['layer'])}.{RESNET.get(match['rest'], match['rest'])}"


def _in_block(unet: Any, name: str) -> str | None:
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    block, layer, kind, rest = (
        int(match["block"]),
        int(match["layer"]),
        match["kind"],
        match["rest"],
    )
    num = unet.config.layers_per_block + 1  # going down a resnet is the block's downsampler
    down = match["way"] == "down"
    place = (
        f"input_blocks.{1 + block * num + layer}"
        if down
        else f"output_blocks.{block * num + layer}"
    )
    match kind:
        case "resnets":
            return f"{place}.0.{RESNET.get(rest, rest)}"
        case "attentions":
            return f"{place}.1.{rest}"
        case "downsamplers":
            return f"input_blocks.{(block + 1) * num}.0.{rest.replace('conv', 'op')}"
        case "upsamplers":
            attends = hasattr(unet.up_blocks[block], "attentions")
            return f"output_blocks.{block * num + num - 1}.{2 if attends else 1}.{rest}"
    return None
