"""DMD2's discriminator: a head on the fake score's bottleneck, fed with noised samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.files.records import seed_of
from ddmd_bench.objective.process import NoiseLevel, renoise
from ddmd_bench.objective.regularizers import DiscriminatorHead
from ddmd_bench.objective.terms import Cond, Renoising
from ddmd_bench.students.networks import Network, bottleneck_features
from ddmd_bench.students.sharding import is_part, keep_module_in_parts, part_of


class Discriminator:
    """Logits of noised samples; the trunk is the fake score's, up to its bottleneck."""

    def __init__(self, backend: Backend, trunk: Network, seed: int, device: str) -> None:
        self.trunk = trunk
        self.level: Callable[[Tensor], NoiseLevel] = backend.level
        self.bottleneck = backend.bottleneck(trunk.module)
        self.forward_samples = self.backward_samples = 0
        cond = {k: v.to(device) for k, v in backend.encode_prompts([""]).items()}
        x_t = torch.zeros(1, *backend.latent_shape, device=device)
        with torch.no_grad(), torch.random.fork_rng():
            t = torch.ones(1, device=device)
            shape = bottleneck_features(trunk, self.bottleneck, x_t, t, cond).shape
            torch.manual_seed(seed_of("train", seed, "discriminator"))
            self.head = DiscriminatorHead(shape[1], shape[2]).to(device)
        # One optimizer has both, and takes parameters of one kind.
        if any(map(is_part, trunk.parameters.values())):
            keep_module_in_parts(self.head, device)
        self.parameters: dict[str, nn.Parameter] = dict(self.head.named_parameters())

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Of the head, from what its `state_dict` gave."""
        parts = {name: part_of(state[name], p) for name, p in self.head.state_dict().items()}
        self.head.load_state_dict(parts)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Passes inside, forward and backward, reach the samples but no weight."""
        self.head.requires_grad_(False)
        try:
            with self.trunk.frozen():
                yield
        finally:
            self.head.requires_grad_(True)

    def logits(self, x0: Tensor, renoising: Renoising, cond: Cond) -> Tensor:
        """x0 [B, C, H, W] noised to the renoising's levels -> logits [B], float32."""
        x_tau = renoise(x0, self.level(renoising.tau), renoising.eps)
        features = bottleneck_features(self.trunk, self.bottleneck, x_tau, renoising.tau, cond)
        with self.trunk.autocast():
            logits: Tensor = self.head(features)
        self.forward_samples += len(x0)
        if logits.requires_grad:
            self.backward_samples += len(x0)
        return logits.float().flatten()
