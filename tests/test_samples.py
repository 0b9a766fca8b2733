"""A draw belongs to a sample: how many are computed at once changes nothing but rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from ddmd_bench.backends import Backend
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.files.memory import FewerAtOnce
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.update import Training

NUM = 8  # samples of an update


@pytest.fixture(scope="module")
def backend() -> Backend:
    return make_backend()


def make_training(backend: Backend, method: str, at_once: int | None, **options: Any) -> Training:
    settings = TrainSettings.model_validate(
        {"batch_size": NUM, "samples_at_once": at_once, "fake_score_updates": 2, **options}
    )
    return Training(backend, METHODS[method], settings, 3, "cpu")


def weights_of(training: Training) -> Tensor:
    networks = training.networks.values()
    return torch.cat([v.flatten() for network in networks for v in network.state().values()])


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("decoupled_hybrid", {"fake_score_sees": "step"}),
        ("dmd2", {"fake_score_samples": "fresh"}),
        ("ca_mean_variance", {"lora_rank": 2}),
    ],
)
def test_an_update_is_the_same_however_it_is_split(
    backend: Backend, method: str, options: dict[str, Any]
) -> None:
    whole = make_training(backend, method, None, **options)
    row, cost = whole.update(1), whole.cost()
    for at_once in (1, 3, 4):
        split = make_training(backend, method, at_once, **options)
        assert split.update(1) == pytest.approx(row, rel=2e-5, abs=1e-6, nan_ok=True)
        assert split.cost() == cost
        # The first step of AdamW is the gradient's sign: where that is rounding, a whole rate.
        moved = (weights_of(split) - weights_of(whole)).abs()
        assert moved.mean() < 1e-6


@pytest.mark.long
def test_many_updates_stay_together(backend: Backend) -> None:
    runs = [make_training(backend, "decoupled_hybrid", at_once) for at_once in (None, 2)]
    for iteration in range(1, 9):
        rows = [training.update(iteration) for training in runs]
        assert rows[0] == pytest.approx(rows[1], rel=5e-3, abs=1e-5, nan_ok=True)
    moved = (weights_of(runs[0]) - weights_of(runs[1])).abs()
    assert moved.mean() < 1e-5


@pytest.mark.parametrize("purpose", ["batch", "fresh"])
def test_a_sample_is_drawn_alike_in_any_company(backend: Backend, purpose: str) -> None:
    training = make_training(backend, "dmd", None)
    batches, student = training.batches, training.networks["student"]
    together = batches.batch(purpose, range(NUM), student)
    dm, ca = batches.of_terms(together.t, range(NUM))
    assert dm is ca is not None
    assert together.step.tolist() == [0, 1, 2, 3] * 2
    for number in range(NUM):
        alone = batches.batch(purpose, [number], student)
        own, _ = batches.of_terms(alone.t, [number])
        assert own is not None
        torch.testing.assert_close(alone.x_t[0], together.x_t[number], rtol=0, atol=1e-4)
        assert torch.equal(own.eps[0], dm.eps[number])
        assert own.tau[0] == dm.tau[number]
        for name, value in alone.cond.items():
            torch.testing.assert_close(value[0], together.cond[name][number])


def test_every_sample_of_every_purpose_is_another(backend: Backend) -> None:
    batches = make_training(backend, "decoupled_hybrid", None).batches
    purposes = ("batch", "dm", "ca", "fake_score", "fresh")
    noises = [
        batches.noise(batches.generators(purpose, batches.numbers(update)))
        for purpose in purposes
        for update in range(2)
    ]
    drawn = torch.cat(noises).flatten(1)
    assert len(drawn) == len(purposes) * 2 * NUM
    assert torch.cdist(drawn, drawn).fill_diagonal_(torch.inf).min() > 1


@pytest.mark.long
def test_where_memory_runs_out_an_update_begins_anew_with_fewer(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a part has left its gradients, in the student's update and in the fake score's."""
    expected = make_training(backend, "dmd2", 2)
    row = expected.update(1)
    training = make_training(backend, "dmd2", 4)
    tried: dict[str, list[int]] = {"_student_backward": [], "_fake_score_backward": []}

    def limited(name: str, most: int) -> None:
        backward = getattr(training, name)

        def run(*given: Any) -> Any:
            made = backward(*given)
            tried[name].append(len(given[-1]))
            if len(given[-1]) > most and len(tried[name]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return made

        monkeypatch.setattr(training, name, run)

    limited("_student_backward", 2)
    limited("_fake_score_backward", 1)
    with pytest.warns(FewerAtOnce) as told:
        found = training.update(1)
    halved = [str(warning.message).split(" samples at once")[0] for warning in told]
    assert halved == ["memory ran out with 4", "memory ran out with 2"]
    assert tried["_student_backward"] == [4, 4, 2, 2, 2, 2]
    assert tried["_fake_score_backward"] == [2, 2, *[1] * 2 * NUM]
    assert training.at_once.size == 1
    assert found == pytest.approx(row, rel=2e-5, abs=1e-6, nan_ok=True)
    assert training.cost() == expected.cost()


def test_a_training_goes_on_with_another_number_at_once(backend: Backend) -> None:
    whole = make_training(backend, "dmd", None)
    whole.update(1)
    state = copy.deepcopy(whole.state())
    continued = make_training(backend, "dmd", 2)
    continued.load_state(state)
    row = continued.update(2)
    assert row == pytest.approx(whole.update(2), rel=1e-4, abs=1e-6, nan_ok=True)


def test_each_network_counts_its_own_warm_up(backend: Backend) -> None:
    training = make_training(backend, "dmd", None, warmup_updates=8, learning_rate=0.1)
    rates: dict[str, list[float]] = {"student": [], "fake_score": []}
    for name, stepper in training.steppers.items():
        (step, seen) = (stepper.step, rates[name])

        def stepped(step: Any = step, stepper: Any = stepper, seen: list[float] = seen) -> None:
            seen.append(stepper.optimizer.param_groups[0]["lr"] / stepper.rates[0])

        stepper.step = stepped  # type: ignore[method-assign]
    for iteration in (1, 2, 3):
        training.update(iteration)
    assert rates["student"] == pytest.approx([1 / 8, 2 / 8, 3 / 8])
    assert rates["fake_score"] == pytest.approx([k / 8 for k in range(1, 7)])
