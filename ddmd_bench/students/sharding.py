"""Networks and optimizer states that the ranks keep in parts (PyTorch's FSDP2 and ZeRO).

keep_in_parts(networks)              # each rank keeps a part, and computes with the whole
state = whole(network.state())       # on the first rank, called by all
parameter.copy_(part_of(value, parameter))

What a network computes stays what it was: a block's weights are gathered before it runs, in their
own dtype, and its gradients are summed over the ranks. Forward and backward passes are made by all
ranks, in the same order and number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddmd_bench.files import ranks

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from ddmd_bench.students.networks import Network


def keep_in_parts(networks: Iterable[Network], device: str) -> None:
    """Leave each rank's device its part of all weights, and those of adapters, which are small.

    Last of all that changes a network: its parameters are others from here on.
    """
    networks = list(networks)
    adapted = {p for n in networks if n.adapters is not None for p in n.parameters.values()}
    for module in {id(n.module): n.module for n in networks}.values():
        names = {parameter: name for name, parameter in module.named_parameters()}
        keep_module_in_parts(module, device, adapted)
        now = dict(module.named_parameters())
        for network in networks:
            if network.module is module and network.adapters is None:
                network.parameters = {k: now[names[p]] for k, p in network.parameters.items()}
                own = network.step_embedding
                network.step_embedding = {name: network.parameters[name] for name in own}


def keep_module_in_parts(
    module: nn.Module, device: str, but: Collection[nn.Parameter] = ()
) -> None:
    """The same of a module, whose parameters are others from here on, but for some."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    for parameter in module.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP takes no other order of bytes
    for parameter in but:
        parameter.data = parameter.data.to(device)
    mesh = _mesh(torch.device(device).type)
    for unit in _units(module):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=set(but))
    for unit in module.modules():
        if isinstance(unit, FSDPModule):
            # A sum, as without parts: each rank's loss has its share of the samples' mean.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)


@cache
def _mesh(device: str) -> DeviceMesh:
    """The ranks; by machines, which each have all the weights, so that only gradients go over."""
    from torch.distributed.device_mesh import init_device_mesh

    group = ranks.group()
    if group.num == group.per_machine:
        return init_device_mesh(device, (group.num,))
    shape = (group.num // group.per_machine, group.per_machine)
    return init_device_mesh(device, shape, mesh_dim_names=("machines", "ranks"))


def _units(module: nn.Module) -> list[nn.Module]:
    """Whose weights are gathered at once: the blocks that diffusers keeps whole, then the rest."""
    kinds = {kind for m in module.modules() for kind in getattr(m, "_no_split_modules", None) or ()}
    blocks = [m for m in module.modules() if type(m).__name__ in kinds and m is not module]
    return [*reversed(blocks), module]  # inner ones first


def as_forward(module: nn.Module, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of a module; where that is kept in parts, it gathers them as `forward` does."""
    bound = MethodType(method, module)
    if ranks.num() == 1:
        return bound
    from torch.distributed.fsdp import register_fsdp_forward_method

    name = f"_{method.__name__}"
    setattr(module, name, bound)
    register_fsdp_forward_method(module, name)  # which leaves a module without parts as it is
    called: Callable[..., Tensor] = getattr(module, name)
    return called


def is_part(value: object) -> bool:
    """Whether a tensor is one of which each rank has a part."""
    if ranks.num() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def own_part(value: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    spread: Any = value
    return spread.to_local() if is_part(value) else value


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor that all ranks have, where `like` is one in parts."""
    if not is_part(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    spread: Any = like
    value = value.to(like.device)
    return distribute_tensor(value, spread.device_mesh, spread.placements, src_data_rank=None)


def whole(state: Any) -> Any:
    """A state with its tensors whole: on the CPU of the first rank where they are in parts.

    All ranks call it; on the others such a tensor is None.
    """
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    if not is_part(state):
        return state
    value = state.full_tensor()
    return value.cpu() if ranks.is_first() else None
