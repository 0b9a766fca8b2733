"""The memory that a plan states is what a training holds."""

from __future__ import annotations

import pytest
import tiny_sdxl
import torch

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.facts import Facts
from ddmd_bench.files.ranks import Group
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning.outlook import Outlook, memory_lines, memory_problems
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.sizes import training_bytes
from ddmd_bench.suite.schema import Suite
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.update import Training


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    folder = tiny_sdxl.write_repository(tmp_path_factory.mktemp("sdxl"))
    return BACKENDS["sdxl"](Model(repository=str(folder), resolution=tiny_sdxl.RESOLUTION))


def held_bytes(training: Training) -> int:
    """Of parameters, gradients and optimizer states, each tensor once."""
    parameters = {id(p): p for n in training.networks.values() for p in n.module.parameters()}
    total = sum(p.nbytes + (0 if p.grad is None else p.grad.nbytes) for p in parameters.values())
    for stepper in training.steppers.values():
        for state in stepper.optimizer.state.values():
            total += sum(v.nbytes for v in state.values() if isinstance(v, torch.Tensor))
    return total


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora_rank", [None, 3])
@pytest.mark.parametrize(("method", "ema"), [("dmd", 0.9), ("dmd", 0.0), ("ca_only", 0.9)])
def test_the_estimate_is_what_is_held(
    backend: Backend, method: str, ema: float, lora_rank: int | None, precision: str
) -> None:
    settings = TrainSettings.model_validate(
        {"batch_size": 4, "ema": ema, "lora_rank": lora_rank, "precision": precision}
    )
    training = Training(backend, METHODS[method], settings, seed=0, device="cpu")
    held = list[int]()
    for stepper in [*training.steppers.values()] * 2:  # a first step makes the states
        for parameter in stepper.parameters:
            parameter.grad = torch.zeros_like(parameter)
        held.append(held_bytes(training))
        stepper.step()
    told = training_bytes(facts_of(backend), METHODS[method], settings, backend.lora_targets)
    # An optimizer also counts its steps, a number for each tensor.
    assert told.memory.each() == pytest.approx(max(held), rel=0.01)


def facts_of(backend: Backend) -> Facts:
    return Asked(suite(), backend, {}).facts()


def suite(**train: object) -> Suite:
    return Suite.model_validate(
        {
            "name": "tiny",
            "title": "Tiny",
            "backend": "sdxl",
            "prompts": {"some": {"source": "a.txt", "num_prompts": 1}},
            "train": train,
            "students": {"dmd": {"method": "dmd"}},
            "baseline": "dmd",
            "metrics": ["mean"],
        }
    )


def test_what_cannot_fit_is_refused_with_a_way_out(backend: Backend) -> None:
    told = training_bytes(facts_of(backend), METHODS["dmd"], TrainSettings(), backend.lora_targets)
    outlook = Outlook(Asked(suite(), backend, {}))
    needed = told.memory.each()
    assert memory_problems(outlook, Group()) == []
    assert memory_problems(outlook, Group(gpu_memory=needed)) == []
    (problem,) = memory_problems(outlook, Group(gpu_memory=needed - 1))
    assert "students.dmd" in problem
    assert "train.lora_rank" in problem
    assert len(memory_lines(outlook)) == 1
