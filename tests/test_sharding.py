"""What ranks keep in parts computes what whole networks do, and is whole again in every file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_lumina2
import tiny_sdxl
import torch
from on_ranks import Ended, on_ranks
from test_ranks import make_training, trained
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ddmd_bench.backends import BACKENDS
from ddmd_bench.files import ranks
from ddmd_bench.students.networks import Network, bottleneck_features, make_networks
from ddmd_bench.students.sharding import is_part, whole
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.optimizers import Stepper
from ddmd_bench.training.update import Training

REPOSITORIES = {"sdxl": tiny_sdxl, "lumina2": tiny_lumina2}
PROMPTS = ["a red cup", "two green birds on a fence"]
ROLES = ["teacher", "student", "average", "fake_score"]
OPTIONS: dict[str, dict[str, Any]] = {
    "full": {"gradient_checkpointing": True},
    "adapters": {"lora_rank": 2, "precision": "bfloat16"},
}
Found = dict[str, Tensor]


def learned(kind: str, folder: str, sharding: str) -> dict[str, Found]:
    """What networks give, and the gradients of two samples, by options; whole on the first rank."""
    backend = BACKENDS[kind](Model(repository=folder, resolution=tiny_sdxl.RESOLUTION))
    assert backend.encoders is not None
    encode = backend.encoders.load_prompt_encoder("cpu")
    cond = backend.encoders.collate(encode(PROMPTS))
    generator = torch.Generator().manual_seed(5)
    x_t = torch.randn(2, *backend.latent_shape, generator=generator)
    t = torch.rand(2, generator=generator)
    mine = ranks.share(range(2))
    rows = slice(mine[0], mine[-1] + 1)
    of_options = {}
    for name, options in OPTIONS.items():
        settings = TrainSettings.model_validate({"sharding": sharding, **options})
        made = make_networks(backend, settings, ROLES, 3, "cpu")
        given = x_t[rows].requires_grad_(), t[rows], {k: v[rows] for k, v in cond.items()}
        found = {
            f"x0 {role}": torch.cat(ranks.gathered(network(*given).detach()))
            for role, network in made.items()
        }
        fake_score = made["fake_score"]
        features = bottleneck_features(
            fake_score, backend.bottleneck(fake_score.module), *given
        )  # a pass that ends on the way, before another one goes back
        loss = fake_score(*given).square().sum() + features.square().mean(dim=(1, 2, 3)).sum()
        loss.backward()
        parameters = fake_score.parameters
        ranks.sum_gradients(parameters.values())
        found |= {k: whole(p.grad) for k, p in parameters.items() if p.grad is not None}
        assert given[0].grad is not None
        found["x_t"] = torch.cat(ranks.gathered(given[0].grad))
        with fake_score.frozen():  # a pass that reaches what goes in alone
            (grad,) = torch.autograd.grad(fake_score(*given).sum(), given[0])
        found["x_t, frozen"] = torch.cat(ranks.gathered(grad))
        of_options[name] = found
    return of_options


@pytest.mark.long
@pytest.mark.parametrize("kind", REPOSITORIES)
def test_networks_in_parts_compute_the_same(kind: str, tmp_path: Path) -> None:
    folder = str(REPOSITORIES[kind].write_repository(tmp_path))
    in_parts = on_ranks(2, learned, kind, folder, "weights")[0]
    for name, expected in learned(kind, folder, "none").items():
        assert in_parts[name].keys() == expected.keys()
        for key, value in expected.items():
            size = float(value.abs().max())
            tolerance = 2e-2 if OPTIONS[name].get("precision") == "bfloat16" else 1e-5
            assert (in_parts[name][key] - value).abs().max() <= tolerance * size, (name, key)


def continued(checkpoint: Path | None, sharding: str) -> tuple[Any, Any, int]:
    """A training's state after one update and after two more, and how much of it a rank keeps."""
    training = make_training("decoupled_hybrid_gan", sharding=sharding)
    if checkpoint is None:
        training.update(1)
    else:
        training.load_state(torch.load(checkpoint, mmap=True))
    before = copy.deepcopy(training.state())
    for k in (2, 3):
        training.update(k)
    return before, training.state(), held_bytes(training)


def there_and_back(folder: Path, sharding: str) -> tuple[Any, Any, int, Any]:
    """The same from one.pt, and then what follows of what it was itself in the end, two.pt."""
    before, after, held = continued(folder / "one.pt", sharding)
    if ranks.is_first():
        torch.save(after, folder / "two.pt")
    ranks.gathered(None)
    _, then, _ = continued(folder / "two.pt", sharding)
    return before, after, held, then


def held_bytes(training: Training) -> int:
    """Of weights and of optimizer states, a rank's own."""
    held: list[Any] = [p for n in training.networks.values() for p in n.module.parameters()]
    for stepper in training.steppers.values():
        for optimizer in (stepper.optimizer, stepper.own):
            states = optimizer.state.values() if optimizer else ()
            held += [v for state in states for v in (state or {}).values()]
    return sum((v.to_local() if is_part(v) else v).nbytes for v in held if isinstance(v, Tensor))


def tensors(state: Any) -> dict[str, Tensor]:
    """Of a state, by the keys that lead to each."""
    if isinstance(state, Tensor):
        return {"": state}
    if not isinstance(state, Mapping | list):
        return {}
    items = state.items() if isinstance(state, Mapping) else enumerate(state)
    return {f"{key}.{inner}": v for key, value in items for inner, v in tensors(value).items()}


@pytest.mark.long
@pytest.mark.parametrize("sharding", ["optimizer", "weights"])
def test_a_checkpoint_belongs_to_no_number_of_ranks(sharding: str, tmp_path: Path) -> None:
    """What two ranks wrote one reads to the bit, and the other way round; both go on alike."""
    one_before, one_after, one_held = continued(None, "none")
    torch.save(one_before, tmp_path / "one.pt")
    before, after, held, theirs = on_ranks(2, there_and_back, tmp_path, sharding)[0]
    for key, value in tensors(one_before).items():
        assert torch.equal(tensors(before)[key], value), key
    weights = {k: v for k, v in tensors(one_after).items() if k.startswith("networks")}
    assert weights
    for key, value in weights.items():
        assert (tensors(after)[key] - value).abs().mean() < 1e-6, key
    again, then, _ = continued(tmp_path / "two.pt", "none")
    assert tensors(again).keys() == tensors(after).keys() == tensors(one_after).keys()
    for key, value in tensors(after).items():
        assert torch.equal(tensors(again)[key], value), key
    for key, value in tensors(then).items():
        if key.startswith("networks"):
            assert (tensors(theirs)[key] - value).abs().mean() < 1e-6, key
    # Half of everything, or the teacher, two networks and their average whole beside half of the
    # states: 4 + 2 * 2 / 2 of 4 + 2 * 2 networks.
    assert held / one_held == pytest.approx({"weights": 0.5, "optimizer": 0.75}[sharding], abs=0.01)


def gathered_twice() -> tuple[Any, Any]:
    """An optimizer's state as a checkpoint has it, and as ZeRO itself gathers it."""
    torch.manual_seed(ranks.number())
    conv = torch.empty(8, 4, 3, 3).to(memory_format=torch.channels_last)
    of_groups = [[conv, torch.empty(()), torch.empty(7)], [torch.empty(5, 3), torch.empty(2)]]
    groups = [[torch.nn.Parameter(torch.zeros_like(p)) for p in group] for group in of_groups]
    settings = TrainSettings.model_validate({"sharding": "optimizer"})
    stepper = Stepper([(groups[0], 1e-3), (groups[1], 1e-2)], settings)
    for parameter in stepper.parameters[:-1]:  # the last one has no state
        parameter.grad = torch.randn_like(parameter)
    ranks.sum_gradients(stepper.parameters)
    stepper.step()
    zero: Any = stepper.optimizer
    found, _ = copy.deepcopy(stepper.state()), zero.consolidate_state_dict()
    return found, zero.state_dict() if ranks.is_first() else {}


def test_states_are_gathered_as_zero_gathers_them() -> None:
    (found, expected), (of_second, _) = on_ranks(2, gathered_twice)
    assert [*found] == [*expected]
    assert found["param_groups"] == expected["param_groups"]
    assert [*found["state"]] == [*expected["state"]] == [0, 1, 2, 3]
    for key, value in tensors(expected).items():
        assert torch.equal(tensors(found)[key], value), key
        assert tensors(found)[key].stride() == value.stride(), key
    assert tensors(found).keys() == tensors(expected).keys()
    assert of_second == {}


def test_states_are_loaded_once_beside_their_parameters() -> None:
    """On a GPU that is made up: a fused step takes its count there alone."""
    torch.distributed.init_process_group(store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with FakeTensorMode():
            parameter = torch.nn.Parameter(torch.empty(3, 2, device="cuda"))
            settings = TrainSettings.model_validate({"sharding": "optimizer"})
            stepper = Stepper([([parameter], 1e-3)], settings)
            moments = {name: torch.zeros(3, 2) for name in ("exp_avg", "exp_avg_sq")}
            groups = torch.optim.Optimizer.state_dict(stepper.optimizer)["param_groups"]
            states = {0: {"step": torch.tensor(7.0), **moments}}
            stepper.load_state({"state": states, "param_groups": groups})
    finally:
        torch.distributed.destroy_process_group()
    assert stepper.own is not None
    (loaded,) = stepper.own.state.values()
    assert {name: value.device for name, value in loaded.items()} == dict.fromkeys(
        ["step", *moments], parameter.device
    )
    assert not stepper.optimizer.state


def on_two_machines(names: list[str]) -> Any:
    """Four ranks that take themselves for two machines with two each."""
    group = ranks.Group(4, 2)
    ranks.group = lambda: group  # type: ignore[assignment]
    return trained(names, 2, "weights")


@pytest.mark.long
def test_over_machines_weights_are_in_parts_on_each() -> None:
    names = ["decoupled_hybrid_gan", "adapters"]
    of_ranks = on_ranks(4, on_two_machines, names)
    for name, (rows, _, weights) in trained(names, 2).items():
        for found in of_ranks:
            assert found[name][0][1] == pytest.approx(rows[1], rel=1e-3, abs=1e-5, nan_ok=True)
            assert (found[name][2] - weights).abs().mean() < 1e-6, name


def failing_alone() -> None:
    """The second rank meets an error in the middle of a pass."""
    training = make_training("dmd", sharding="weights")
    training.update(1)
    if ranks.number() == 1:
        called = Network.__call__
        Network.__call__ = lambda *given: 1 / 0  # type: ignore[method-assign, assignment]
        assert called
    training.update(2)


@pytest.mark.long
def test_an_error_in_the_middle_of_a_pass_ends_all() -> None:
    with pytest.raises(Ended) as ended:
        on_ranks(2, failing_alone)
    assert all(ended.value.codes)
