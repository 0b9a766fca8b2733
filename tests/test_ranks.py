"""Ranks do together what one process does: the same updates to rounding, and they hear the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_ranks import on_ranks
from torch import Tensor, nn

from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.errors import BenchError
from ddmd_bench.files import ranks
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.students.sharding import is_part
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.finite import NotFinite
from ddmd_bench.training.trackers import tracked
from ddmd_bench.training.update import Training

NUM = 4  # samples of an update, which two ranks share evenly and three do not
CASES: dict[str, dict[str, Any]] = {name: {"method": name} for name in METHODS} | {
    "adapters": {"method": "decoupled_hybrid", "lora_rank": 2},
    "sees the step": {"method": "dmd2", "fake_score_sees": "step", "fake_score_samples": "fresh"},
    "clipped, in parts": {
        "method": "dmd",
        "max_grad_norm": 1e-3,
        "samples_at_once": 1,
        "fake_score_updates": 2,
    },
}
Found = dict[str, tuple[list[dict[str, float]], Any, Tensor]]


def make_training(method: str, **options: Any) -> Training:
    settings = {"batch_size": NUM, "t_list": [1.0, 0.5], "fake_score_updates": 1, **options}
    validated = TrainSettings.model_validate(settings)
    return Training(make_backend(), METHODS[method], validated, 3, "cpu")


def weights_of(training: Training) -> Tensor:
    """All of them, on every rank."""
    values: list[Any] = [v for n in training.networks.values() for v in n.state().values()]
    return torch.cat([(v.full_tensor() if is_part(v) else v).flatten() for v in values])


def trained(names: list[str], num_updates: int, sharding: str = "none") -> Found:
    """Rows, cost and weights of a few updates of each case."""
    found = {}
    for name in names:
        training = make_training(**CASES[name], sharding=sharding)
        rows = [training.update(k + 1) for k in range(num_updates)]
        found[name] = rows, training.cost(), weights_of(training)
    return found


@pytest.fixture(scope="module")
def alone() -> Found:
    return trained([*CASES], 1)


@pytest.mark.long
@pytest.mark.parametrize(("num", "sharding"), [(3, "none"), (2, "optimizer"), (2, "weights")])
def test_one_update_of_every_method_is_that_of_one_process(
    num: int, sharding: str, alone: Found
) -> None:
    require_alike(on_ranks(num, trained, [*CASES], 1, sharding), alone)


@pytest.mark.long
def test_one_update_is_that_of_one_process() -> None:
    """Of a method with all its parts, and of adapters, where nothing and everything is in parts."""
    names = ["decoupled_hybrid_gan", "adapters"]
    for num, sharding in ((3, "none"), (2, "weights")):
        require_alike(on_ranks(num, trained, names, 1, sharding), trained(names, 1))


def require_alike(of_ranks: list[Found], alone: Found) -> None:
    for name, (rows, cost, weights) in alone.items():
        for found in of_ranks:
            its_rows, its_cost, its_weights = found[name]
            assert its_rows[0] == pytest.approx(rows[0], rel=1e-5, abs=1e-6, nan_ok=True), name
            assert its_cost == cost
            # The first step of AdamW is the gradient's sign: where that is rounding, a whole rate.
            assert (its_weights - weights).abs().mean() < 1e-6, name
            assert torch.equal(its_weights, of_ranks[0][name][2])


@pytest.mark.long
def test_ten_updates_stay_together() -> None:
    (rows, _, weights) = trained(["decoupled_hybrid"], 10)["decoupled_hybrid"]
    found = on_ranks(2, trained, ["decoupled_hybrid"], 10)[0]["decoupled_hybrid"]
    for row, its_row in zip(rows, found[0], strict=True):
        assert its_row == pytest.approx(row, rel=5e-3, abs=1e-5, nan_ok=True)
    assert (found[2] - weights).abs().mean() < 1e-5


def poisoned(num_before: int, sharding: str) -> tuple[str, bool]:
    """What a rank raises when a sample of the last one is no number, and whether it has moved."""
    training = make_training("dmd", sharding=sharding)
    for k in range(num_before):
        training.update(k + 1)
    before = weights_of(training)
    noise = training.batches.noise

    def one_bad(generators: Any) -> Tensor:
        drawn = noise(generators)
        return drawn * torch.nan if ranks.number() == ranks.num() - 1 else drawn

    training.batches.noise = one_bad  # type: ignore[method-assign]
    with pytest.raises(NotFinite) as raised:
        training.update(num_before + 1)
    return raised.value.term, torch.equal(before, weights_of(training))


@pytest.mark.long
@pytest.mark.parametrize(("num", "sharding"), [(3, "none"), (2, "weights")])
def test_what_is_not_finite_on_one_rank_stops_all_before_a_weight_moves(
    num: int, sharding: str
) -> None:
    num_before = 1 if sharding == "weights" else 0
    assert on_ranks(num, poisoned, num_before, sharding) == [("the student's x0", True)] * num


def agree_on(error: Exception | None) -> None:
    with ranks.together():
        if error is not None:
            raise error


def agreements() -> dict[str, Any]:
    """What a rank is told in each way to disagree."""
    last = ranks.number() == ranks.num() - 1
    told: dict[str, Any] = {}

    def raised(error: Exception | None) -> str:
        with pytest.raises(Exception) as found:  # noqa: PT011 - any kind
            agree_on(error)
        return f"{type(found.value).__name__}: {found.value}"

    told["of one"] = raised(BenchError("no file") if last else None)
    told["of all"] = raised(BenchError("no file"))
    told["term"] = raised(NotFinite("the loss") if last else None)
    told["odd"] = raised(Unportable() if last else None)
    with pytest.raises(BenchError) as found:
        ranks.require_equal("their suites", "b" if last else "a")
    told["equal"] = str(found.value)
    told["inside"] = raised_inside(last)
    # One has met an error outside of any agreement, while the others go on.
    if last:
        told["left"] = ranks.at_end("a full disk")
    else:
        with pytest.raises(BenchError) as found:
            ranks.gathered("more")
        told["left"] = ranks.at_end(str(found.value))
    told["first's"] = ranks.told(ranks.number())
    told["anyone"] = ranks.anyone(last), ranks.anyone(False)
    return told


def raised_inside(last: bool) -> str:
    """One raises inside while the others still tell each other something there."""

    def told() -> None:
        with ranks.together():
            if last:
                raise BenchError("no disk")
            ranks.gathered("more")

    with pytest.raises(BenchError) as found:
        told()
    return str(found.value)


class Unportable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not for others")


def test_all_ranks_hear_the_same() -> None:
    first, second = on_ranks(2, agreements)
    for key in ("of all", "term", "equal", "left", "first's", "anyone"):
        assert first[key] == second[key], key
    assert first["of one"].startswith("BenchError: rank 1 on ")
    assert first["of one"].endswith(": no file")
    assert second["of one"] == "BenchError: no file"
    assert first["of all"] == "BenchError: no file"
    assert first["term"] == "NotFinite: the loss is not finite"
    assert first["odd"].startswith("BenchError: rank 1 on ")
    assert "Unportable" in first["odd"]
    assert "differ in their suites: rank 1 on" in first["equal"]
    assert first["inside"].endswith("no disk")
    assert second["inside"] == "no disk"
    assert first["left"] == ["rank 1 has left this task: a full disk", "a full disk"]
    assert first["first's"] == 0
    assert first["anyone"] == (True, False)


def gradients() -> list[Tensor | None]:
    """Of parameters that all ranks, one, or none has reached, after the sum."""
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3)) for _ in range(4)]
    parameters[3].requires_grad_(False)
    rank = ranks.number()
    parameters[0].grad = torch.full((3,), float(rank + 1))
    if rank == 1:
        parameters[1].grad = torch.full((3,), 5.0)
    ranks.sum_gradients(parameters)
    return [p.grad for p in parameters]


def test_gradients_are_summed_wherever_a_rank_has_one() -> None:
    for grads in on_ranks(3, gradients):
        found = [None if grad is None else grad.tolist() for grad in grads]
        assert found == [[6.0] * 3, [5.0] * 3, None, None]


def logged(folder: Path) -> list[int]:
    """The ranks that are there after the first has logged to a tracker."""
    with tracked(["tensorboard"] if ranks.is_first() else [], folder, "p", "r", {}) as log:
        log({"loss": 1.0}, 1)
    return ranks.gathered(ranks.number())


def test_a_tracker_parts_no_ranks(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert on_ranks(2, logged, tmp_path) == [[0, 1], [0, 1]]
    assert list(tmp_path.rglob("events.out.*"))


@given(num_items=st.integers(0, 50), num=st.integers(1, 12))
def test_every_item_is_one_ranks(num_items: int, num: int) -> None:
    items = list(range(num_items))
    before = ranks._Here.number, ranks._Here.num
    shared, dealt = list[int](), list[int]()
    try:
        for rank in range(num):
            ranks._Here.number, ranks._Here.num = rank, num
            shared += ranks.share(items)
            dealt += ranks.dealt(items)
            assert abs(len(ranks.share(items)) - num_items / num) < 1
    finally:
        ranks._Here.number, ranks._Here.num = before
    assert shared == items
    assert sorted(dealt) == items
