"""HPS v2.1 and v2.0 by `hpsv2.score`, at full size: python -m parity.hps_v2."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ddmd_bench.vendors.authors import hps_v2, hpsv2_network
from parity.cases import PAIRS
from parity.vendor import record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("hpsv2",)
# The versions are one network with two sets of weights, so few pairs are enough for the second.
PAIRS_OF = {"v2.1": PAIRS, "v2.0": PAIRS[:2]}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "checkpoint.pt"
        shapes = shapes_of(hpsv2_network(path).model_dict["model"].state_dict())
        torch.save({"state_dict": checkpoint(shapes)}, path)
        for version, pairs in PAIRS_OF.items():
            score = hps_v2({path.name: str(path)}, {"hps_version": version})
            record(f"hps_{version.replace('.', '')}", PACKAGES, shapes, score, pairs=pairs)


if __name__ == "__main__":
    main()
