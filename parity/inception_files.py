"""Both published files of FID's Inception-v3, with random weights: the format alone is theirs.

NVIDIA's network is restated here under its own names, so that the map of names is checked by what
comes out at the other end.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddmd_bench.scorers.inception_network import build_network

NVIDIA = "inception-2015-12-05.pt"
FIDELITY = "weights-inception-2015-12-05-6726825d.pth"
Kernel = int | tuple[int, int]


class Layer(nn.Module):
    """Convolution, batch norm without scale, ReLU; with stride 1 the size stays."""

    def __init__(
        self, before: int, after: int, kernel: Kernel = 1, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.stride = stride
        same = padded and stride == 1
        self.padding = [height // 2, width // 2] if same else [0, 0]
        fan_in = before * height * width
        self.weight = nn.Parameter(torch.randn(after, before, height, width) * (2 / fan_in) ** 0.5)
        self.register_buffer("beta", torch.randn(after) * 0.1)
        self.register_buffer("mean", torch.randn(after) * 0.1)
        self.register_buffer("var", torch.rand(after) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)
        return F.relu(F.batch_norm(x, self.mean, self.var, bias=self.beta, eps=1e-3))


def tower(*layers: nn.Module) -> nn.Sequential:
    """conv, conv_1, conv_2 ... and a pool before them, where there is one."""
    named: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers:
        k = sum(isinstance(module, Layer) for module in named.values())
        named["pool" if not isinstance(layer, Layer) else f"conv_{k}" if k else "conv"] = layer
    return nn.Sequential(named)


def mean_pool() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class A(nn.Module):
    def __init__(self, c: int, pooled: int) -> None:
        super().__init__()
        self.conv = Layer(c, 64)
        self.tower = tower(Layer(c, 48), Layer(48, 64, 5))
        self.tower_1 = tower(Layer(c, 64), Layer(64, 96, 3), Layer(96, 96, 3))
        self.tower_2 = tower(mean_pool(), Layer(c, pooled))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(x)], 1)


class B(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = Layer(c, 384, 3, stride=2)
        self.tower = tower(Layer(c, 64), Layer(64, 96, 3), Layer(96, 96, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), F.max_pool2d(x, 3, stride=2)], 1)


class C(nn.Module):
    def __init__(self, c: int, k: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.conv = Layer(c, 192)
        self.tower = tower(Layer(c, k), Layer(k, k, row), Layer(k, 192, column))
        self.tower_1 = tower(
            Layer(c, k),
            Layer(k, k, column),
            Layer(k, k, row),
            Layer(k, k, column),
            Layer(k, 192, row),
        )
        self.tower_2 = tower(mean_pool(), Layer(c, 192))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x), self.tower_1(x), self.tower_2(x)], 1)


class D(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.tower = tower(Layer(c, 192), Layer(192, 320, 3, stride=2))
        self.tower_1 = tower(
            Layer(c, 192),
            Layer(192, 192, (1, 7)),
            Layer(192, 192, (7, 1)),
            Layer(192, 192, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.tower(x), self.tower_1(x), F.max_pool2d(x, 3, stride=2)], 1)


class E(nn.Module):
    def __init__(self, c: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv = Layer(c, 320)
        self.tower_conv = Layer(c, 384)
        self.tower_mixed_conv = Layer(384, 384, (1, 3))
        self.tower_mixed_conv_1 = Layer(384, 384, (3, 1))
        self.tower_1_conv = Layer(c, 448)
        self.tower_1_conv_1 = Layer(448, 384, 3)
        self.tower_1_mixed_conv = Layer(384, 384, (1, 3))
        self.tower_1_mixed_conv_1 = Layer(384, 384, (3, 1))
        self.tower_2_pool = pool
        self.tower_2_conv = Layer(c, 192)

    def forward(self, x: Tensor) -> Tensor:
        a = self.tower_conv(x)
        b = self.tower_1_conv_1(self.tower_1_conv(x))
        parts = [
            self.conv(x),
            self.tower_mixed_conv(a),
            self.tower_mixed_conv_1(a),
            self.tower_1_mixed_conv(b),
            self.tower_1_mixed_conv_1(b),
            self.tower_2_conv(self.tower_2_pool(x)),
        ]
        return torch.cat(parts, 1)


class NvidiaInception(nn.Module):
    """NVIDIA's network; input (levels - 128) / 128."""

    def __init__(self) -> None:
        super().__init__()
        mixed = [A(192, 32), A(256, 64), A(288, 64), B(288), C(768, 128), C(768, 160), C(768, 160),
                 C(768, 192), D(768), E(1280, mean_pool()),
                 E(2048, nn.MaxPool2d(3, stride=1, padding=1))]  # fmt: skip
        stem = OrderedDict(
            conv=Layer(3, 32, 3, stride=2),
            conv_1=Layer(32, 32, 3, padded=False),
            conv_2=Layer(32, 64, 3),
            pool0=nn.MaxPool2d(3, stride=2),
            conv_3=Layer(64, 80),
            conv_4=Layer(80, 192, 3, padded=False),
            pool1=nn.MaxPool2d(3, stride=2),
        )
        blocks = OrderedDict((f"mixed_{k}" if k else "mixed", m) for k, m in enumerate(mixed))
        self.layers = nn.Sequential(OrderedDict([*stem.items(), *blocks.items()]))
        self.layers.add_module("pool2", nn.AvgPool2d(8))
        self.output = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).flatten(1)


def write_nvidia(path: Path, seed: int = 0) -> NvidiaInception:
    """A file as NVIDIA publishes it, and the network that it holds."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = NvidiaInception().eval().requires_grad_(False)
    torch.jit.script(network).save(str(path))
    return network


def fidelity_state(network: NvidiaInception) -> dict[str, Tensor]:
    """The same weights by torch-fidelity's names: both networks list their layers by block, but in
    another order within one, so that the names are matched by hand."""
    from ddmd_bench.scorers.inception_network import NVIDIA_NAMES

    stored = {NVIDIA_NAMES[name]: value for name, value in network.state_dict().items()}
    state = build_network().state_dict()
    for name, value in state.items():
        if name.endswith("bn.weight"):
            state[name] = torch.ones_like(value)
        elif not name.endswith("num_batches_tracked"):
            state[name] = stored[name]
    return state
