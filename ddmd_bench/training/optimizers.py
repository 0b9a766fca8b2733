"""AdamW in the forms a suite can name, the warm-up of its rates, and one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddmd_bench.files import ranks
from ddmd_bench.students.sharding import is_part, part_of, whole
from ddmd_bench.suite.settings import TrainSettings


def _adamw(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"betas": settings.betas, "fused": True}
    if settings.sharding != "optimizer":
        return torch.optim.AdamW(groups, **options)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    # Each rank steps some of the parameters, and tells the others their new values.
    return ZeroRedundancyOptimizer(groups, optimizer_class=torch.optim.AdamW, **options)


def _adamw_8bit(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    from bitsandbytes.optim.adamw import AdamW8bit

    for group in groups:
        for parameter in group["params"]:
            # It does so itself, but only in its first step: a resumed run would take other kernels.
            parameter.data = parameter.data.contiguous()
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, betas=settings.betas, weight_decay=0.01)
    return optimizer


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainSettings], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
}


class Stepper:
    """An optimizer with warm-up, clipping and the norm of its gradient."""

    def __init__(
        self, groups: Iterable[tuple[Iterable[nn.Parameter], float]], settings: TrainSettings
    ) -> None:
        rows = [(list(parameters), rate) for parameters, rate in groups]
        self.rates = [rate for parameters, rate in rows if parameters]
        groups_ = [{"params": parameters, "lr": rate} for parameters, rate in rows if parameters]
        self.optimizer = OPTIMIZERS[settings.optimizer](groups_, settings)
        # Of ZeRO the one that has this rank's states, and steps.
        self.own: torch.optim.Optimizer | None = getattr(self.optimizer, "optim", None)
        self.parameters = [p for parameters, _ in rows for p in parameters]
        self.settings = settings

    def start(self, update: int) -> None:
        """Set the rates of one of its updates, counted from 1."""
        # Of its number alone, so that a checkpoint holds no scheduler beside the optimizer.
        share = min(1.0, update / max(1, self.settings.warmup_updates))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    def clear(self) -> None:
        """Forget all gradients."""
        self.optimizer.zero_grad()

    def gradient_norm(self) -> float:
        """L2 norm over all gradients, before they are clipped to `max_grad_norm`."""
        # Of what is kept in parts and what is not, apart: no operation takes both at once.
        kinds = [[p for p in self.parameters if is_part(p) == parts] for parts in (False, True)]
        norms = [
            _whole_norm(nn.utils.get_total_norm(gradients))
            for kind in kinds
            if (gradients := [p.grad for p in kind if p.grad is not None])
        ]
        total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
        if (limit := self.settings.max_grad_norm) is not None:
            for kind in kinds:
                nn.utils.clip_grads_with_norm_(kind, limit, total)
        return float(total)

    def step(self) -> None:
        """Apply the gradients, and forget them: the other network's have their room."""
        self.optimizer.step()
        self.clear()

    def state(self) -> dict[str, Any]:
        """The optimizer's states, whole on the first rank; all ranks call it."""
        if self.own is None:
            state: dict[str, Any] = whole(self.optimizer.state_dict())
            return state
        found = _gathered(self.own, self.parameters)
        # ZeRO's own refuses unless it has gathered the states itself.
        groups = torch.optim.Optimizer.state_dict(self.optimizer)["param_groups"]
        return {"state": found, "param_groups": groups} if ranks.is_first() else {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`, of whole states that all ranks have."""
        parameters = self.parameters
        found = {
            index: {name: _beside(value, parameters[index]) for name, value in values.items()}
            for index, values in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": found})
        if self.own is not None:
            # ZeRO has loaded them into itself too, where no step reads them.
            self.optimizer.state.clear()
            for parameter, values in self.own.state.items():
                # It leaves the count on the CPU; a fused step takes it beside the parameter alone.
                values["step"] = values["step"].to(parameter.device)


def _gathered(
    own: torch.optim.Optimizer, parameters: Sequence[Tensor]
) -> dict[int, dict[str, Tensor | None]]:
    """ZeRO's states by their parameter's number, on the CPU of the first rank; all ranks call it.

    Tensor by tensor: ZeRO's `consolidate_state_dict` pickles all that a rank has, makes a tensor of
    it byte after byte, and has it on every GPU at once. SDXL's would take an hour.
    """
    here = {k: own.state[p] for k, p in enumerate(parameters) if p in own.state}
    counts = {
        k: {n: None if v.shape == parameters[k].shape else v.cpu() for n, v in values.items()}
        for k, values in here.items()
    }
    found = {}
    for owner, told in enumerate(ranks.gathered(counts)):
        for k, values in told.items():
            moments = [name for name, value in values.items() if value is None]
            sent = {n: _on_first(here.get(k, {}).get(n), parameters[k], owner) for n in moments}
            found[k] = {**values, **sent}
    return dict(sorted(found.items()))


def _on_first(value: Tensor | None, parameter: Tensor, owner: int) -> Tensor | None:
    """A state of its parameter's shape, which its owner has: on the first rank's CPU, else None."""
    if owner != 0:
        # As a step sends the parameter itself; in its order of bytes on all ranks.
        sent = torch.empty_like(parameter, requires_grad=False)
        if value is not None:
            sent.copy_(value)
        torch.distributed.broadcast(sent, owner)
        value = sent
    return value.cpu() if value is not None and ranks.is_first() else None


def _whole_norm(norm: Tensor) -> Tensor:
    found: Any = norm
    return found.full_tensor() if is_part(norm) else norm


def _beside(value: Any, parameter: Tensor) -> Any:
    """A state as the parameter's step takes it: this rank's part, its bytes in the same order."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = part_of(value, parameter)
    if value.stride() == parameter.stride():
        return value
    # A fused step goes through both as they lie in memory, whatever order either is in.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
