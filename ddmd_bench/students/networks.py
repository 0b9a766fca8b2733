"""The networks of a training by role: each on its own weights, or all as adapters of one base.

Roles: teacher (frozen), student, average (of the student), fake_score.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddmd_bench.backends import Backend
from ddmd_bench.backends.mixed_precision import keep_lowered
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import seed_of
from ddmd_bench.objective.terms import Cond
from ddmd_bench.students.adapters import Adapters
from ddmd_bench.students.sharding import as_forward, keep_in_parts, part_of
from ddmd_bench.suite.settings import TrainSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Network:
    """One role: called as `denoise(x_t, t, cond) -> x0`, it counts samples forward and backward."""

    def __init__(
        self,
        module: nn.Module,
        parameters: dict[str, nn.Parameter],
        *,
        step_embedding: dict[str, nn.Parameter] | None = None,
        adapters: Adapters | None = None,
        adapter: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.module = module
        self.step_embedding = step_embedding or {}
        self.parameters = parameters | self.step_embedding
        self.adapters, self.adapter, self.dtype = adapters, adapter, dtype
        self.forward_samples = self.backward_samples = 0

    def select(self) -> None:
        """Make a shared module this role's."""
        if self.adapters is not None:
            self.adapters.select(self.adapter)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        self.select()
        with self.autocast():
            x0: Tensor = self.module(x_t, t, cond)
        self.forward_samples += len(x_t)
        if x0.requires_grad:
            self.backward_samples += len(x_t)
        return x0

    def idle(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        """A pass that serves other ranks alone, and counts as no sample's."""
        before = self.forward_samples
        x0 = self(x_t, t, cond)
        self.forward_samples = before
        return x0

    def autocast(self) -> torch.autocast:
        """Mixed precision where it is asked for: weights that are trained stay float32."""
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Passes inside, forward and backward, reach the input but not these parameters."""
        self._require_gradients(False)
        try:
            yield
        finally:
            self._require_gradients(True)

    def _require_gradients(self, required: bool) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(required)

    def state(self) -> dict[str, Tensor]:
        """Values of the trained parameters."""
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`; other names are an error that lists them."""
        if state.keys() != self.parameters.keys():
            missing = sorted(self.parameters.keys() - state.keys())
            unexpected = sorted(state.keys() - self.parameters.keys())
            raise BenchError(
                f"weights of another network: missing {missing[:3]} ({len(missing)} in all), "
                f"unexpected {unexpected[:3]} ({len(unexpected)} in all)"
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(part_of(state[name], parameter))


class _Reached(Exception):
    """Carries the bottleneck's features out of a forward pass that needs to go no further."""

    def __init__(self, features: Tensor) -> None:
        self.features = features


def bottleneck_features(
    network: Network, bottleneck: nn.Module, x_t: Tensor, t: Tensor, cond: Cond
) -> Tensor:
    """Output of a network's bottleneck [B, C, h, w]; what comes after it is not computed."""

    def stop(module: nn.Module, inputs: object, output: Tensor) -> NoReturn:
        raise _Reached(output)

    def features(module: nn.Module, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        handle = bottleneck.register_forward_hook(stop)
        try:
            # Not `module(...)`: a compiled call would not stop at the hook.
            module.forward(x_t, t, cond)
        except _Reached as reached:
            return reached.features
        finally:
            handle.remove()
        raise AssertionError("the bottleneck is no part of the network's forward pass")

    network.select()
    with network.autocast():
        return as_forward(network.module, features)(x_t, t, cond)


def make_networks(
    backend: Backend, settings: TrainSettings, roles: Iterable[str], seed: int, device: str
) -> dict[str, Network]:
    """The networks of the roles, all starting as the teacher (Alg. 1)."""
    make = _full if settings.lora_rank is None else _lora
    # What is kept in parts takes its place on the device part by part: whole it may not fit.
    home = "cpu" if settings.sharding == "weights" else device
    networks = make(backend, settings, list(roles), seed, home)
    if settings.gradient_checkpointing:
        for network in networks.values():
            _checkpoint_gradients(network)
    if settings.compile:
        for module in {id(n.module): n.module for n in networks.values()}.values():
            module.compile()
    if settings.sharding == "weights":
        keep_in_parts(networks.values(), device)
    return networks


def _full(
    backend: Backend, settings: TrainSettings, roles: list[str], seed: int, device: str
) -> dict[str, Network]:
    """A module of its own for each role."""
    loaded, dtype = backend.load_teacher(), DTYPES[settings.precision]
    networks = {}
    for role in roles:
        module = loaded if role == roles[0] else copy.deepcopy(loaded)
        parameters = {} if role == "teacher" else dict(module.named_parameters())
        networks[role] = Network(
            module,
            parameters,
            step_embedding=_add_step_embedding(backend, settings, role, module),
            dtype=dtype,
        )
        module.requires_grad_(role in ("student", "fake_score")).to(device)
    if "teacher" in networks:  # last, since the others start from its float32
        keep_lowered(networks["teacher"].module, dtype)
    return networks


def _lora(
    backend: Backend, settings: TrainSettings, roles: list[str], seed: int, device: str
) -> dict[str, Network]:
    """One module for all roles, with an adapter for each that is trained."""
    assert settings.lora_rank is not None
    base, dtype = backend.load_teacher(), DTYPES[settings.precision]
    embeddings = {role: _add_step_embedding(backend, settings, role, base) for role in roles}
    adapters = Adapters(base, backend, settings.lora_rank, settings.lora_alpha)
    networks = {}
    for role in roles:
        parameters: dict[str, nn.Parameter] = {}
        if role != "teacher":
            # The average starts where the student does.
            drawn = "student" if role == "average" else role
            parameters = adapters.add(role, seed_of("train", seed, "lora", drawn))
        networks[role] = Network(
            base,
            parameters,
            step_embedding=embeddings[role],
            adapters=adapters,
            adapter=None if role == "teacher" else role,
            dtype=dtype,
        )
    for network in networks.values():
        for parameter in network.parameters.values():
            parameter.requires_grad_(True)
    keep_lowered(base, dtype)
    base.to(device)
    return networks


def _add_step_embedding(
    backend: Backend, settings: TrainSettings, role: str, module: nn.Module
) -> dict[str, nn.Parameter]:
    """The new parameters by which a fake score learns which step made a sample; none otherwise."""
    if role != "fake_score" or settings.fake_score_sees != "step":
        return {}
    before = {name for name, _ in module.named_parameters()}
    backend.add_step_embedding(module, len(settings.t_list))
    return {name: p for name, p in module.named_parameters() if name not in before}


def _checkpoint_gradients(network: Network) -> None:
    """Compute activations anew in the backward pass instead of keeping them (diffusers)."""
    adapters = network.adapters

    def run(block: nn.Module, *inputs: Any) -> Any:
        # The adapter of the first pass, whichever is selected when the backward pass comes.
        selected = adapters.selected if adapters is not None else None

        def again(*values: Any) -> Any:
            if adapters is not None:
                adapters.select(selected)
            return block(*values)

        return checkpoint(again, *inputs, use_reentrant=False)

    found: list[Any] = [
        m for m in network.module.children() if hasattr(m, "enable_gradient_checkpointing")
    ]
    if not found:
        raise BenchError("gradient_checkpointing: this backend's networks do not offer it")
    for part in found:
        part.enable_gradient_checkpointing(run)


def load_student(
    backend: Backend, settings: TrainSettings, state: Mapping[str, Tensor], device: str
) -> nn.Module:
    """A trained student as its images are drawn, from what `Network.state` gave.

    A LoRA is fused, in float32 on the CPU, so that weights are the same wherever they are loaded;
    then they take the dtype that the backend samples in.
    """
    # What concerns training alone, or would round a base before its LoRA is added.
    plain = {"gradient_checkpointing": False, "compile": False, "precision": "float32"}
    settings = settings.model_copy(update={**plain, "sharding": "none"})
    network = make_networks(backend, settings, ["student"], 0, "cpu")["student"]
    network.load_state(state)
    network.select()
    if network.adapters is not None:
        network.adapters.fuse()
    return network.module.requires_grad_(False).to(device, getattr(torch, backend.dtype))
