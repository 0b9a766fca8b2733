"""AdamW in the forms a suite can name, the warm-up of its rates, and one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ddmd_bench.suite.settings import TrainSettings


def _adamw(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=settings.betas, fused=True)


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
        limit = self.settings.max_grad_norm
        if limit is not None:
            return float(nn.utils.clip_grad_norm_(self.parameters, limit))
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    def step(self) -> None:
        """Apply the gradients."""
        self.optimizer.step()
