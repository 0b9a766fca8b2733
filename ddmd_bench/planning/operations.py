"""Operations of a training before it starts: its networks' passes, and what each computes."""

from __future__ import annotations

from dataclasses import dataclass

from ddmd_bench.backends.flops import Flops
from ddmd_bench.objective.methods import Method
from ddmd_bench.suite.settings import TrainSettings


@dataclass(frozen=True)
class Passes:
    """Samples through the networks in a whole training, as its record counts them by role."""

    forward: dict[str, int]
    backward: dict[str, int]


def passes(method: Method, settings: TrainSettings) -> Passes:
    """Samples forward and backward of every role, without evaluations."""
    batch, num_steps = settings.batch_size, len(settings.t_list)
    # The student's earlier steps that make its inputs: each step is as many samples' (Alg. 1).
    simulated = batch * (num_steps - 1) // 2
    dm, ca = method.tau_dm is not None, method.tau_ca is not None
    updates = settings.fake_score_updates if dm or method.gan else 0
    fresh = updates if settings.fake_score_samples == "fresh" else 0
    forward = {
        "teacher": batch * (dm + ca * (1 if dm and method.shared_draw else 2)),
        "student": (1 + fresh) * (simulated + batch),
    }
    backward = {"teacher": 0, "student": batch}
    if dm or method.gan:
        forward["fake_score"] = batch * dm * (1 + updates)
        backward["fake_score"] = batch * dm * updates
    if method.gan:
        forward["discriminator"] = backward["discriminator"] = batch * (1 + 2 * updates)
    num = settings.num_iterations
    return Passes(
        {role: num * samples for role, samples in forward.items()},
        {role: num * samples for role, samples in backward.items()},
    )


def training_flops(flops: Flops, method: Method, settings: TrainSettings) -> int:
    """Operations of a training.

    A backward pass computes the gradients of the inputs and those of the weights, a forward's worth
    each; an adapter's own are small. Checkpointing computes the forward pass once more.
    """
    found = passes(method, settings)
    backward = (2 if settings.lora_rank is None else 1) + settings.gradient_checkpointing
    total = 0
    for role, forward in found.forward.items():
        of_sample = flops.bottleneck if role == "discriminator" else flops.forward
        total += of_sample * (forward + backward * found.backward[role])
    return total
