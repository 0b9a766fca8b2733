"""HPS v3 by `HPSv3RewardInferencer.reward`, on a tiny Qwen2-VL: python -m parity.hps_v3."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ddmd_bench.vendors.authors import hps_v3, import_hpsv3
from ddmd_bench.vendors.qwen2_vl import write_base
from parity.qwen2_vl import architecture, write_tokenizer
from parity.vendor import record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("hpsv3", "tokenizers")


def main() -> None:
    inference = import_hpsv3()
    with tempfile.TemporaryDirectory() as scratch:
        base, path = Path(scratch) / "qwen2_vl", Path(scratch) / "HPSv3.safetensors"
        base.mkdir()
        write_tokenizer(base)
        write_base(base, architecture())
        make, shapes = inference.create_model_and_processor, {}

        def made(**kwargs: Any) -> Any:
            """The vendor's model; its checkpoint is written once its keys are known."""
            model, *rest = make(**kwargs)
            shapes.update(shapes_of(model.state_dict()))
            save_file(checkpoint(shapes), path)
            return model, *rest

        inference.create_model_and_processor = made
        score = hps_v3({path.name: str(path)}, {"base": str(base)})
    record("hps_v3", PACKAGES, shapes, score)


if __name__ == "__main__":
    main()
