"""The networks of a training by role: each on its own weights, or all as adapters of one base.

Roles: teacher (frozen), student, average (of the student), fake_score.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddmd_bench.backends import Backend
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import seed_of
from ddmd_bench.objective.terms import Cond
from ddmd_bench.students.adapters import Adapters
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

    def autocast(self) -> torch.autocast:
        """Mixed precision where it is asked for: weights stay float32."""
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
    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`; other names are an error that lists them."""
        if state.keys() != self.parameters.keys():
            missing = sorted(self.parameters.keys() - state.keys())
            unexpected = sorted(state.keys() - self.parameters.keys())
            raise BenchError(
                f"weights of another network: missing {missing[:3]} ({len(missing)} in all), "
                f"unexpected {unexpected[:3]} ({len(unexpected)} in all)"
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(state[name])


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

    network.select()
    handle = bottleneck.register_forward_hook(stop)
    try:
        with network.autocast():
            # Not `module(...)`: a compiled call would not stop at the hook.
            network.module.forward(x_t, t, cond)
    except _Reached as reached:
        return reached.features
    finally:
        handle.remove()
    raise AssertionError("the bottleneck is no part of the network's forward pass")


def make_networks(
    backend: Backend, settings: TrainSettings, roles: Iterable[str], seed: int, device: str
) -> dict[str, Network]:
    """The networks of the roles, all starting as the teacher (Alg. 1)."""
    make = _full if settings.lora_rank is None else _lora
    networks = make(backend, settings, list(roles), seed, device)
    if settings.gradient_checkpointing:
        for network in networks.values():
            _checkpoint_gradients(network)
    if settings.compile:
        for module in {id(n.module): n.module for n in networks.values()}.values():
            module.compile()
    return networks


def _full(
    backend: Backend, settings: TrainSettings, roles: list[str], seed: int, device: str
) -> dict[str, Network]:
    """A module of its own for each role."""
    loaded = backend.load_teacher()
    networks = {}
    for role in roles:
        module = loaded if role == roles[0] else copy.deepcopy(loaded)
        parameters = {} if role == "teacher" else dict(module.named_parameters())
        networks[role] = Network(
            module,
            parameters,
            step_embedding=_add_step_embedding(backend, settings, role, module),
            dtype=DTYPES[settings.precision],
        )
        module.requires_grad_(role in ("student", "fake_score")).to(device)
    return networks


def _lora(
    backend: Backend, settings: TrainSettings, roles: list[str], seed: int, device: str
) -> dict[str, Network]:
    """One module for all roles, with an adapter for each that is trained."""
    assert settings.lora_rank is not None
    base = backend.load_teacher()
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
            dtype=DTYPES[settings.precision],
        )
    for network in networks.values():
        for parameter in network.parameters.values():
            parameter.requires_grad_(True)
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
    backend: Backend, settings: TrainSettings, state: dict[str, Tensor], device: str
) -> nn.Module:
    """The module of a trained student, from what `Network.state` gave; its LoRA is fused."""
    plain = settings.model_copy(update={"gradient_checkpointing": False, "compile": False})
    network = make_networks(backend, plain, ["student"], 0, device)["student"]
    network.load_state(state)
    if network.adapters is not None:
        network.adapters.fuse(network.module, network.adapter, torch.float32)
    return network.module.requires_grad_(False)


def copy_to_sample(network: Network, dtype: torch.dtype) -> nn.Module:
    """A network in training as `load_student` would give it back, in the dtype of sampling.

    It shares the tensors that have the dtype already, and writes to none of them: in float32 it
    takes no memory, beside SDXL in half precision 5.1 GB. There an adapter is fused, so that the
    weights round as those of `load_student` do; in float32 that would take 10.2 GB for the same
    values but for rounding.
    """
    network.select()
    module = network.module
    shared: dict[int, Any] = {id(value): value for value in module.buffers()}
    # Parameters of its own: one that is cast is cast in place.
    shared |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    copied = copy.deepcopy(module, shared)
    if network.adapters is not None and dtype != torch.float32:
        network.adapters.fuse(copied, network.adapter, dtype)
    return copied.to(dtype)
