"""HPS v3 by `HPSv3RewardInferencer.reward`, on a tiny Qwen2-VL: python -m parity.hps_v3."""

from __future__ import annotations

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from parity.qwen2_vl import configuration, write_files
from parity.vendor import folder_of, leave_out, record
from parity.weights import checkpoint, shapes_of

PACKAGES = ("hpsv3", "tokenizers")
# Training, plots and tables; the two functions of trl that scoring calls say "not quantised".
TRAINING = (
    "datasets", "fire", "matplotlib", "matplotlib.patches", "matplotlib.pyplot", "pandas", "peft",
    "torch.utils.tensorboard", "trl",
)  # fmt: skip
# The published settings but for what needs a GPU.
SETTINGS = {"disable_flash_attn2": True, "use_cpu": True}


def main() -> None:
    # Imported first: they look whether some of the others are installed.
    for name in ("torchvision", "transformers.trainer"):
        import_module(name)
    leave_out(*TRAINING)
    import trl

    trl.get_quantization_config = lambda model_config: None
    from hpsv3 import inference

    published = folder_of("hpsv3") / "config" / "HPSv3_7B.yaml"
    with tempfile.TemporaryDirectory() as scratch:
        base, path = Path(scratch) / "qwen2_vl", Path(scratch) / "HPSv3.safetensors"
        base.mkdir()
        write_files(base)
        # Weights to start from; the checkpoint replaces every one of them (strict).
        Qwen2VLForConditionalGeneration(Qwen2VLConfig(**configuration())).save_pretrained(base)
        settings = OmegaConf.merge(OmegaConf.load(published), SETTINGS)
        settings.model_name_or_path = str(base)
        settings.output_dir = scratch
        OmegaConf.save(settings, Path(scratch) / "tiny.yaml")

        make, shapes = inference.create_model_and_processor, {}

        def made(**kwargs: Any) -> Any:
            """The vendor's model; its checkpoint is written once its keys are known."""
            model, *rest = make(**kwargs)
            shapes.update(shapes_of(model.state_dict()))
            save_file(checkpoint(shapes), path)
            return model, *rest

        inference.create_model_and_processor = made
        scorer = inference.HPSv3RewardInferencer(
            str(Path(scratch) / "tiny.yaml"), str(path), device="cpu"
        )
        # The settings cast the model to bfloat16, and with it the rotary frequencies, which belong
        # to what was trained and stay so; the weights are put back into float32.
        for parameter in scorer.model.parameters():
            parameter.data = parameter.data.float()
        scorer.model.load_state_dict(load_file(path), strict=True)

    def score(image: Path, prompt: str) -> float:
        return float(scorer.reward([str(image)], [prompt])[0, 0])  # of (mean, spread) the mean

    record("hps_v3", PACKAGES, shapes, score)


if __name__ == "__main__":
    main()
