"""Frozen weights kept in bfloat16 compute what autocast computes of them, to the bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import tiny_lumina2
import tiny_sdxl
import torch
from torch import Tensor, nn

from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.backends.mixed_precision import LOWERED, keep_lowered
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.terms import Cond
from ddmd_bench.students import networks
from ddmd_bench.students.networks import Network, load_student, make_networks
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.update import Training

REPOSITORIES = {"sdxl": tiny_sdxl, "lumina2": tiny_lumina2}
PROMPTS = ["a red cup", "two green birds on a fence"]
ROLES = ["teacher", "student", "average", "fake_score"]


@pytest.fixture(scope="module", params=["shapes", *REPOSITORIES])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backend, Cond]:
    """A backend, and what two prompts say to it."""
    if request.param == "shapes":
        backend = BACKENDS["shapes"](Model())
        prompts = list(backend.prompt_sets["shapes/seen"]())[:2]
        return backend, backend.encode_prompts(prompts)
    tiny = REPOSITORIES[request.param]
    folder = tiny.write_repository(tmp_path_factory.mktemp(request.param))
    backend = BACKENDS[request.param](Model(repository=str(folder), resolution=tiny.RESOLUTION))
    assert backend.encoders is not None
    encode = backend.encoders.load_prompt_encoder("cpu")
    return backend, backend.encoders.collate(encode(PROMPTS))


def updated(backend: Backend, cond: Cond, settings: TrainSettings) -> dict[str, Tensor]:
    """What the networks give, what a student and a fake score learn of it, and give then."""
    made = make_networks(backend, settings, ROLES, 3, "cpu")
    for network in made.values():  # an adapter starts as nothing
        for name, parameter in network.parameters.items():
            if "lora_B" in name:
                nn.init.normal_(parameter, 0, 0.02, torch.Generator().manual_seed(len(name)))
    generator = torch.Generator().manual_seed(5)
    x_t = torch.randn(2, *backend.latent_shape, generator=generator)
    t = torch.rand(2, generator=generator)
    found: dict[str, Tensor] = {}
    trained = [made["student"], made["fake_score"]]
    optimizer = torch.optim.AdamW([p for n in trained for p in n.parameters.values()], 1e-3)
    for k in range(2):
        with torch.no_grad():
            target = made["teacher"](x_t, t, cond)
            found |= {f"x0 {role}, {k}": n(x_t, t, cond) for role, n in made.items()}
        for network in trained:
            (network(x_t, t, cond) - 2 * target).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for role, network in made.items():
        found |= {f"{role}.{name}": value.clone() for name, value in network.state().items()}
    return found


def kept_whole(_: nn.Module, __: torch.dtype) -> None:
    """In place of `keep_lowered`: frozen weights stay float32."""


@pytest.mark.parametrize(
    "options",
    [{}, {"lora_rank": 2}, {"lora_rank": 2, "gradient_checkpointing": True}],
    ids=["full", "lora", "checkpointed"],
)
def test_kept_in_bfloat16_they_compute_the_same_to_the_bit(
    world: tuple[Backend, Cond], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings.model_validate({"precision": "bfloat16", **options})
    found = updated(*world, settings)
    monkeypatch.setattr(networks, "keep_lowered", kept_whole)
    expected = updated(*world, settings)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert {value.dtype for value in found.values()} == {torch.float32}


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"lora_rank": 2, "fake_score_sees": "step"}])
def test_so_does_the_update_of_a_method_with_all_its_parts(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings.model_validate({"precision": "bfloat16", "batch_size": 4, **options})

    def updated_training() -> tuple[dict[str, str], list[Tensor]]:
        method = METHODS["decoupled_hybrid_gan"]
        training = Training(BACKENDS["shapes"](Model()), method, settings, 3, "cpu")
        row = training.update(1)
        states = [training.networks[role].state().values() for role in ROLES]
        return {name: str(value) for name, value in row.items()}, [v for s in states for v in s]

    row, weights = updated_training()
    monkeypatch.setattr(networks, "keep_lowered", kept_whole)
    expected, same = updated_training()
    assert row == expected
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_only_what_is_frozen_and_cast_anyway_is_kept_lower(
    world: tuple[Backend, Cond], lora_rank: int | None
) -> None:
    backend, _ = world
    settings = TrainSettings(precision="bfloat16", lora_rank=lora_rank)
    made = make_networks(backend, settings, ROLES, 3, "cpu")
    trained = {id(p) for n in made.values() for p in n.parameters.values()}
    for network in made.values():
        for layer in network.module.modules():
            for parameter in layer.parameters(recurse=False):
                lower = type(layer) in LOWERED and id(parameter) not in trained
                assert parameter.dtype == (torch.bfloat16 if lower else torch.float32)
    held = sum(p.nbytes for p in made["teacher"].module.parameters() if id(p) not in trained)
    whole = sum(p.nbytes for p in backend.load_teacher().parameters())
    assert held < 0.55 * whole


def test_a_student_loads_whole_whatever_its_precision(world: tuple[Backend, Cond]) -> None:
    """Its LoRA is added to the base in float32, and all is rounded once, to the backend's dtype."""
    backend, _ = world
    found = {}
    for dtype in ("float32", "bfloat16"):
        for precision in ("float32", "bfloat16"):
            settings = TrainSettings.model_validate({"precision": precision, "lora_rank": 2})
            student = make_networks(backend, settings, ["student"], 3, "cpu")["student"]
            for parameter in student.parameters.values():
                nn.init.normal_(parameter, 0, 0.1, torch.Generator().manual_seed(2))
            sampled = dataclasses.replace(backend, dtype=dtype)
            found[dtype, precision] = load_student(sampled, settings, student.state(), "cpu")
    for dtype in ("float32", "bfloat16"):
        pair = (found[dtype, precision].state_dict() for precision in ("float32", "bfloat16"))
        assert all(torch.equal(*values) for values in zip(*(s.values() for s in pair), strict=True))
    whole = found["float32", "bfloat16"].state_dict()
    for name, value in found["bfloat16", "bfloat16"].state_dict().items():
        assert torch.equal(value, whole[name].bfloat16())


def test_a_layer_of_another_class_stays_as_it_is() -> None:
    """A subclass may compute in a precision of its own."""

    class Own(nn.Linear):
        """Computes otherwise."""

    network = nn.Sequential(nn.Linear(3, 3), Own(3, 3), nn.LayerNorm(3), nn.Embedding(3, 3))
    keep_lowered(network.requires_grad_(False), torch.bfloat16)
    dtypes = [layer.weight.dtype for layer in network]
    assert dtypes == [torch.bfloat16, *[torch.float32] * 3]


@pytest.mark.parametrize("compute", [nn.Linear(3, 3), nn.Conv1d(3, 3, 1), nn.Conv2d(3, 3, 1)])
def test_autocast_casts_each_of_those_layers_on_a_cpu(compute: Callable[[Tensor], Tensor]) -> None:
    shape = {nn.Linear: (1, 3), nn.Conv1d: (1, 3, 2), nn.Conv2d: (1, 3, 2, 2)}[type(compute)]  # type: ignore[index]
    with torch.autocast("cpu", torch.bfloat16):
        assert compute(torch.zeros(shape)).dtype == torch.bfloat16


def test_an_input_keeps_its_digits_under_autocast(world: tuple[Backend, Cond]) -> None:
    """Whichever weight is a network's first, of which diffusers makes its dtype."""
    backend, cond = world
    settings = TrainSettings(precision="bfloat16")
    teacher: Network = make_networks(backend, settings, ["teacher"], 0, "cpu")["teacher"]
    seen: dict[str, torch.dtype] = {}
    network = next(teacher.module.children())
    network.register_forward_pre_hook(
        lambda _, given: seen.update(x_t=given[0].dtype) or None,
    )
    with torch.no_grad():
        teacher(torch.randn(2, *backend.latent_shape), torch.rand(2), cond)
    assert seen["x_t"] == torch.float32
