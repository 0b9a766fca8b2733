"""The Inception-v3 of 2015-12-05 that FID is defined on, from either of its two published files.

torchvision's network with the poolings in which TensorFlow's graph differs, batch norms folded into
the convolutions before them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from ddmd_bench.errors import BenchError
from ddmd_bench.files.tensors import read_torch
from ddmd_bench.scorers.checkpoints import FETCH, misfit, shapes_of

INPUT_SIZE = 299
NUM_FEATURES = 2048
_NUM_CLASSES = 1008  # of the published files; torchvision's own weights have 1,000


def _mean_of_neighbours(x: Tensor) -> Tensor:
    """3 x 3 means; TensorFlow leaves the padding out of them, torchvision counts its zeros."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class _BlockA(InceptionA):  # type: ignore[misc]  # torchvision has no types
    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(_mean_of_neighbours(x)),
        ]


class _BlockC(InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(_mean_of_neighbours(x)),
        ]


class _BlockE(InceptionE):  # type: ignore[misc]
    def _pooled(self, x: Tensor) -> Tensor:
        return _mean_of_neighbours(x)

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(self._pooled(x)),
        ]


class _LastBlock(_BlockE):
    def _pooled(self, x: Tensor) -> Tensor:
        # The graph of 2015 has a maximum here, where the paper has a mean.
        return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)


def build_network() -> Inception3:
    """The network before any weights, in evaluation mode; its keys are those of torch-fidelity."""
    blocks = [BasicConv2d, _BlockA, InceptionB, _BlockC, InceptionD, _BlockE, InceptionAux]
    # Neither the second head nor torchvision's slow initial weights.
    network = Inception3(
        _NUM_CLASSES, inception_blocks=blocks, aux_logits=False, init_weights=False
    )
    network.Mixed_7c = _LastBlock(NUM_FEATURES)
    return network.eval().requires_grad_(False)


# NVIDIA's names of modules, with torchvision's: TensorFlow's names of 2015 beside the paper's.
_STEM = {
    "conv": "Conv2d_1a_3x3",
    "conv_1": "Conv2d_2a_3x3",
    "conv_2": "Conv2d_2b_3x3",
    "conv_3": "Conv2d_3b_1x1",
    "conv_4": "Conv2d_4a_3x3",
}
_A = {
    "conv": "branch1x1",
    "tower.conv": "branch5x5_1",
    "tower.conv_1": "branch5x5_2",
    "tower_1.conv": "branch3x3dbl_1",
    "tower_1.conv_1": "branch3x3dbl_2",
    "tower_1.conv_2": "branch3x3dbl_3",
    "tower_2.conv": "branch_pool",
}
_B = {
    "conv": "branch3x3",
    "tower.conv": "branch3x3dbl_1",
    "tower.conv_1": "branch3x3dbl_2",
    "tower.conv_2": "branch3x3dbl_3",
}
_C = {
    "conv": "branch1x1",
    "tower.conv": "branch7x7_1",
    "tower.conv_1": "branch7x7_2",
    "tower.conv_2": "branch7x7_3",
    "tower_1.conv": "branch7x7dbl_1",
    "tower_1.conv_1": "branch7x7dbl_2",
    "tower_1.conv_2": "branch7x7dbl_3",
    "tower_1.conv_3": "branch7x7dbl_4",
    "tower_1.conv_4": "branch7x7dbl_5",
    "tower_2.conv": "branch_pool",
}
_D = {
    "tower.conv": "branch3x3_1",
    "tower.conv_1": "branch3x3_2",
    "tower_1.conv": "branch7x7x3_1",
    "tower_1.conv_1": "branch7x7x3_2",
    "tower_1.conv_2": "branch7x7x3_3",
    "tower_1.conv_3": "branch7x7x3_4",
}
_E = {
    "conv": "branch1x1",
    "tower_conv": "branch3x3_1",
    "tower_mixed_conv": "branch3x3_2a",
    "tower_mixed_conv_1": "branch3x3_2b",
    "tower_1_conv": "branch3x3dbl_1",
    "tower_1_conv_1": "branch3x3dbl_2",
    "tower_1_mixed_conv": "branch3x3dbl_3a",
    "tower_1_mixed_conv_1": "branch3x3dbl_3b",
    "tower_2_conv": "branch_pool",
}
_MIXED = {
    "mixed": ("Mixed_5b", _A),
    "mixed_1": ("Mixed_5c", _A),
    "mixed_2": ("Mixed_5d", _A),
    "mixed_3": ("Mixed_6a", _B),
    "mixed_4": ("Mixed_6b", _C),
    "mixed_5": ("Mixed_6c", _C),
    "mixed_6": ("Mixed_6d", _C),
    "mixed_7": ("Mixed_6e", _C),
    "mixed_8": ("Mixed_7a", _D),
    "mixed_9": ("Mixed_7b", _E),
    "mixed_10": ("Mixed_7c", _E),
}
_TENSORS = {
    "weight": "conv.weight",
    "beta": "bn.bias",
    "mean": "bn.running_mean",
    "var": "bn.running_var",
}


def _modules() -> Iterator[tuple[str, str]]:
    yield from _STEM.items()
    for theirs, (ours, inside) in _MIXED.items():
        yield from ((f"{theirs}.{their}", f"{ours}.{our}") for their, our in inside.items())


NVIDIA_NAMES = {
    **{
        f"layers.{theirs}.{their}": f"{ours}.{our}"
        for theirs, ours in _modules()
        for their, our in _TENSORS.items()
    },
    "output.weight": "fc.weight",
    "output.bias": "fc.bias",
}


def _stored(path: Path) -> dict[str, Tensor]:
    """A published file's tensors by torchvision's names; names that are not known stay."""
    if path.suffix == ".pt":
        with warnings.catch_warnings():
            # Deprecated for whoever makes models; the file is what it has been since 2020.
            warnings.simplefilter("ignore", FutureWarning)
            script = torch.jit.load(str(path), map_location="cpu")
        return {NVIDIA_NAMES.get(key, key): value for key, value in script.state_dict().items()}
    stored = read_torch(path, remedy=FETCH)
    return {key: value for key, value in stored.items() if not key.endswith("num_batches_tracked")}


def load_network(path: Path) -> Inception3:
    """A published file's network, every key and shape matched: images to features [B, 2048].

    `.pt` is NVIDIA's TorchScript, which clean-fid uses; all else the state that torch-fidelity
    and torchmetrics use. Input [B, 3, 299, 299] in [-1, 1), which is (x - 128) / 128 of levels.
    """
    network, stored = build_network(), _stored(path)
    expected = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    if path.suffix == ".pt":  # it has no scales: they are 1 in TensorFlow's graph
        ones = {k: torch.ones_like(v) for k, v in expected.items() if k.endswith("bn.weight")}
        stored = {**ones, **stored}
    if wrong := misfit(shapes_of(expected), shapes_of(stored)):
        raise BenchError(
            f"{path}: not the Inception-v3 of 2015-12-05. {wrong}; of {len(expected)} tensors. "
            f"{FETCH}"
        )
    network.load_state_dict(stored, strict=False)  # all but the batch norms' counters, see above
    for module in list(network.modules()):
        if isinstance(module, BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    network.fc = nn.Identity()
    return network.requires_grad_(False)
