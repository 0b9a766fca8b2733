"""What is not finite is named, before it reaches a weight or a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ddmd_bench.errors import BenchError
from ddmd_bench.objective.terms import Direction
from ddmd_bench.students.networks import Network
from ddmd_bench.students.sharding import own_part


class NotFinite(BenchError):
    """A term of the objective, a gradient or a weight stopped being a number."""

    def __init__(self, term: str) -> None:
        super().__init__(f"{term} is not finite")
        self.term = term

    def __reduce__(self) -> tuple[type[NotFinite], tuple[str]]:
        return NotFinite, (self.term,)  # as another process raises it


def culprit(x0: Tensor, direction: Direction, losses: Mapping[str, Tensor]) -> str:
    """Which part of the student's loss is not finite, the first in the order of computation."""
    parts: dict[str, Tensor | None] = {
        "the student's x0": x0,
        "the DM direction": direction.dm,
        "the CA direction": direction.ca,
        "the normalised direction": direction.total,
        **losses,
    }
    return next(k for k, v in parts.items() if v is not None and not v.isfinite().all())


def require_finite_weights(networks: Mapping[str, Network]) -> None:
    """Raise NotFinite if a step left a weight that is no number, of those that this rank has."""
    for role, network in networks.items():
        for name, value in network.state().items():
            if not own_part(value).isfinite().all():
                raise NotFinite(f"{name} of the {role}")
