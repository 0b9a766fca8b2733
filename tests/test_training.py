"""The update of every method: its cost, its options, its failures, its exact continuation."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.students.networks import bottleneck_features, load_student, make_networks
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.finite import NotFinite
from ddmd_bench.training.optimizers import Stepper
from ddmd_bench.training.update import Samples, Training

NUM = 4  # samples of a batch, one for each step
UPDATES = 2  # of the fake score


@pytest.fixture(scope="module")
def backend() -> Backend:
    return make_backend()


def make_training(backend: Backend, method: str, **options: Any) -> Training:
    settings = TrainSettings.model_validate(
        {"batch_size": NUM, "fake_score_updates": UPDATES, **options}
    )
    return Training(backend, METHODS[method], settings, 3, "cpu")


def weights_of(training: Training) -> dict[str, Tensor]:
    return {
        f"{role}.{name}": value.clone()
        for role, network in training.networks.items()
        for name, value in network.state().items()
    }


def batch_of(backend: Backend, num: int = NUM) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    prompts = [backend.draw_prompt(generator) for _ in range(num)]
    x_t = torch.randn(num, *backend.latent_shape, generator=generator)
    return x_t, torch.rand(num, generator=generator), dict(backend.encode_prompts(prompts))


# What one update of four steps takes, in samples: (forward, backward) of each network. The student
# runs 6 samples of backward simulation (3 + 2 + 1) and its own 4.
STUDENT = {"student": (10, 4)}
DM = {"fake_score": (NUM + UPDATES * NUM, UPDATES * NUM)}
GAN = {"discriminator": (NUM + UPDATES * 2 * NUM, NUM + UPDATES * 2 * NUM)}
COSTS = {
    "dmd": {"teacher": (8, 0), **STUDENT, **DM},
    "ca_only": {"teacher": (8, 0), **STUDENT},
    "dm_only": {"teacher": (4, 0), **STUDENT, **DM},
    "decoupled_full": {"teacher": (12, 0), **STUDENT, **DM},
    "decoupled_constrained": {"teacher": (12, 0), **STUDENT, **DM},
    "decoupled_hybrid": {"teacher": (12, 0), **STUDENT, **DM},
    "ca_mean_variance": {"teacher": (8, 0), **STUDENT},
    "ca_gan": {"teacher": (8, 0), **STUDENT, "fake_score": (0, 0), **GAN},
    "dmd2": {"teacher": (8, 0), **STUDENT, **DM, **GAN},
    "decoupled_hybrid_gan": {"teacher": (12, 0), **STUDENT, **DM, **GAN},
}


@pytest.mark.parametrize("method", METHODS)
def test_an_update_costs_exactly_what_its_method_needs(backend: Backend, method: str) -> None:
    training = make_training(backend, method)
    row = training.update(1)
    cost = training.cost()
    found = {k: (cost["forward"][k], cost["backward"][k]) for k in cost["forward"]}
    assert found == COSTS[method]
    assert math.isfinite(row["grad_norm_student"])
    assert ("loss_mean_variance" in row) == METHODS[method].mean_variance
    assert ("loss_gan_student" in row) == METHODS[method].gan
    assert ("loss_fake_score" in row) == (METHODS[method].tau_dm is not None)


CONTINUED = {
    "hybrid": ("decoupled_hybrid", {}),
    "step": ("decoupled_hybrid", {"fake_score_sees": "step"}),
    "gan": ("decoupled_hybrid_gan", {}),
    "mean variance": ("ca_mean_variance", {}),
    "fresh": ("dmd", {"fake_score_samples": "fresh"}),
    "lora": ("dmd2", {"lora_rank": 2, "fake_score_sees": "step"}),
    "bfloat16": ("dmd", {"precision": "bfloat16"}),
    "parts": ("dmd2", {"samples_at_once": 2, "max_grad_norm": 0.5}),
    "warm-up": ("dmd", {"warmup_updates": 3, "ema": 0}),
    "8-bit": ("dmd", {"optimizer": "adamw_8bit"}),
}


@pytest.mark.parametrize(("method", "options"), CONTINUED.values(), ids=CONTINUED)
def test_a_continued_training_equals_an_uninterrupted_one_bit_for_bit(
    backend: Backend, method: str, options: dict[str, Any]
) -> None:
    if options.get("optimizer") == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    whole = make_training(backend, method, **options)
    whole.update(1)
    file = io.BytesIO()
    torch.save(whole.state(), file)
    row = whole.update(2)

    file.seek(0)
    continued = make_training(backend, method, **options)
    torch.rand(3)  # the state of the global generator does not matter
    continued.load_state(torch.load(file, weights_only=True))
    again = continued.update(2)
    assert {k: str(v) for k, v in again.items()} == {k: str(v) for k, v in row.items()}
    first, second = weights_of(whole), weights_of(continued)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.cost() == continued.cost()


@pytest.mark.long
def test_gradient_checkpointing_gives_the_same_update(backend: Backend) -> None:
    for options in ({}, {"lora_rank": 2}):
        plain = make_training(backend, "dmd2", **options)
        recomputed = make_training(backend, "dmd2", gradient_checkpointing=True, **options)
        assert plain.update(1) == pytest.approx(recomputed.update(1), rel=1e-6, nan_ok=True)
        first, second = weights_of(plain), weights_of(recomputed)
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)


def _gradient(training: Training, update: int) -> Tensor:
    training._student_backward(training.batches.numbers(update))
    parameters = training.steppers["student"].parameters
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def test_fresh_samples_are_other_samples_for_each_update(backend: Backend) -> None:
    training = make_training(backend, "dmd", fake_score_samples="fresh")
    seen: list[Tensor] = []
    fresh = training._fresh
    training._fresh = lambda numbers: seen.append(fresh(numbers).x0) or fresh(numbers)  # type: ignore[method-assign, func-returns-value]
    training.update(1)
    training.update(2)
    drawn = torch.cat(seen).flatten(1)
    assert len(drawn) == 2 * UPDATES * NUM
    assert torch.cdist(drawn, drawn).add(torch.eye(len(drawn))).min() > 0.1
    assert not drawn.requires_grad


def test_bfloat16_keeps_master_weights_and_states_in_float32(backend: Backend) -> None:
    training = make_training(backend, "decoupled_hybrid_gan", precision="bfloat16")
    seen: list[torch.dtype] = []
    unet: Any = training.networks["student"].module
    unet.unet.mid_block.register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    training.update(1)
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in weights_of(training).values()} == {torch.float32}
    for stepper in training.steppers.values():
        states = stepper.optimizer.state_dict()["state"].values()
        assert {v.dtype for s in states for v in s.values()} == {torch.float32}


def test_eight_bit_states_are_eight_bits_wide(backend: Backend) -> None:
    pytest.importorskip("bitsandbytes")
    training = make_training(backend, "ca_only", optimizer="adamw_8bit")
    training.update(1)
    states = training.steppers["student"].optimizer.state.values()
    wide = [s for s in states if s["state1"].numel() >= 4096]
    assert wide
    assert {s["state1"].dtype for s in wide} == {torch.uint8}


def test_lora_trains_adapters_on_one_frozen_base(backend: Backend) -> None:
    training = make_training(backend, "decoupled_hybrid", lora_rank=2)
    networks = training.networks
    assert len({id(network.module) for network in networks.values()}) == 1
    before = {
        k: v.clone() for k, v in networks["teacher"].module.state_dict().items() if "lora" not in k
    }
    x_t, t, cond = batch_of(backend)
    expected = backend.load_teacher()(x_t, t, cond)
    with torch.no_grad():
        for role in networks:  # all start as the teacher
            torch.testing.assert_close(networks[role](x_t, t, cond), expected)
    training.update(1)
    training.update(2)
    with torch.no_grad():
        assert torch.equal(networks["teacher"](x_t, t, cond), expected)
        outputs = [networks[r](x_t, t, cond) for r in ("student", "fake_score", "average")]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(outputs[a], outputs[b])
    after = networks["teacher"].module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    num = {role: sum(p.numel() for p in n.parameters.values()) for role, n in networks.items()}
    assert num["teacher"] == 0
    assert num["student"] == num["fake_score"] == num["average"] < 60_000


@pytest.mark.parametrize("first", ["student", "average", "fake_score"])
def test_the_first_adapter_that_is_asked_for_answers(backend: Backend, first: str) -> None:
    networks = make_training(backend, "dmd", lora_rank=2).networks
    for name, parameter in networks[first].parameters.items():
        if "lora_B" in name:
            nn.init.ones_(parameter)
    x_t, t, cond = batch_of(backend)
    with torch.no_grad():
        changed = networks[first](x_t, t, cond)
        assert not torch.equal(changed, networks["teacher"](x_t, t, cond))
        assert torch.equal(changed, networks[first](x_t, t, cond))


def test_an_adapter_is_selected_as_peft_selects_it(backend: Backend) -> None:
    networks = make_training(backend, "dmd", lora_rank=2).networks
    for role, network in networks.items():
        for k, parameter in enumerate(network.parameters.values()):
            nn.init.constant_(parameter, 0.01 * (len(role) + k % 3))
    x_t, t, cond = batch_of(backend)
    module = networks["teacher"].module
    layers = [m for m in module.modules() if isinstance(m, BaseTunerLayer)]
    for role in ("student", "teacher", "fake_score", "student", "average"):
        with torch.no_grad():
            ours = networks[role](x_t, t, cond)
        assert all(p.requires_grad for p in networks["student"].parameters.values())
        for layer in layers:
            layer.enable_adapters(role != "teacher")
            if role != "teacher":
                layer.set_adapter(role)
        assert torch.equal(module(x_t, t, cond), ours)
        for network in networks.values():  # as they were before peft's own way
            for parameter in network.parameters.values():
                parameter.requires_grad_(True)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_a_student_loads_as_it_was_trained(backend: Backend, options: dict[str, Any]) -> None:
    training = make_training(backend, "ca_only", gradient_checkpointing=True, **options)
    training.update(1)
    network = training.result()
    x_t, t, cond = batch_of(backend)
    with torch.no_grad():
        expected = network(x_t, t, cond)
        loaded = load_student(backend, training.settings, network.state(), "cpu")
        found = loaded(x_t, t, cond)
    # A LoRA is fused, so that its sums are of another order; the rest is the same to the bit.
    bound = 1e-5 if "lora_rank" in options else 0
    assert (found - expected).abs().max() <= bound * expected.abs().max()
    assert not any(p.requires_grad or "lora" in name for name, p in loaded.named_parameters())


def test_weights_of_another_network_are_refused_by_name(backend: Backend) -> None:
    settings = TrainSettings(lora_rank=2)
    whole = make_networks(backend, TrainSettings(), ["student"], 0, "cpu")["student"].state()
    with pytest.raises(Exception, match=r"missing \[.*lora_A.* unexpected \['unet\."):
        load_student(backend, settings, whole, "cpu")


def test_the_step_embedding_changes_nothing_before_it_learns(backend: Backend) -> None:
    x_t, t, cond = batch_of(backend)
    network = backend.load_teacher()
    before = network(x_t, t, cond)
    backend.add_step_embedding(network, 4)
    step = torch.arange(NUM) % 4
    assert torch.equal(network(x_t, t, cond), before)
    assert torch.equal(network(x_t, t, {**cond, "step": step}), before)
    embedding: Any = network.unet.class_embedding  # type: ignore[union-attr]
    nn.init.normal_(embedding.weight[:4])
    assert not torch.equal(network(x_t, t, {**cond, "step": step}), before)


@pytest.mark.parametrize("options", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_the_fake_score_learns_the_step_and_nobody_else_sees_it(
    backend: Backend, options: dict[str, Any]
) -> None:
    training = make_training(backend, "decoupled_hybrid", fake_score_sees="step", **options)
    networks = training.networks
    x_t, t, cond = batch_of(backend)
    with torch.no_grad():
        teacher = networks["teacher"](x_t, t, cond)
    training.update(1)
    (embedding,) = networks["fake_score"].step_embedding.values()
    assert embedding[:4].abs().sum(1).min() > 0
    assert not embedding[4].any()
    with torch.no_grad():
        assert torch.equal(networks["teacher"](x_t, t, cond), teacher)
    assert not networks["student"].step_embedding


def test_bottleneck_features_are_those_of_a_whole_pass(backend: Backend) -> None:
    network = make_networks(backend, TrainSettings(), ["student"], 0, "cpu")["student"]
    bottleneck, x_t, t, cond = backend.bottleneck(network.module), *batch_of(backend)
    seen: list[Tensor] = []
    handle = bottleneck.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network(x_t, t, cond)
    handle.remove()
    decoded: list[bool] = []
    unet: Any = network.module
    unet.unet.up_blocks[0].register_forward_hook(lambda *_: decoded.append(True))
    features = bottleneck_features(network, bottleneck, x_t, t, cond)
    assert torch.equal(features, seen[0])
    assert not decoded
    assert features.requires_grad


def test_a_discriminator_tells_noise_from_scenes(backend: Backend) -> None:
    """Its loss starts near 2 ln 2 and falls, with samples that no scene resembles."""
    training = make_training(
        backend, "ca_gan", batch_size=16, weight_gan_fake_score=1.0, fake_score_updates=12
    )
    noise = torch.randn(16, *backend.latent_shape, generator=torch.Generator().manual_seed(0))
    cond = batch_of(backend, 16)[2]
    losses = []
    for update in range(12):
        training.steppers["fake_score"].clear()
        numbers = training.batches.numbers(update)
        found = training._fake_score_backward(Samples(noise, cond), numbers[0], numbers)
        training._step("fake_score")
        losses.append(found["loss_gan_fake_score"].mean())
    assert losses[0] == pytest.approx(2 * math.log(2), abs=0.3)
    assert sum(losses[-3:]) / 3 < 0.8 * losses[0]


def test_the_gan_moves_the_student_but_not_the_fake_score_in_the_students_update(
    backend: Backend,
) -> None:
    training = make_training(backend, "ca_gan", weight_gan=1.0)
    without = make_training(backend, "ca_only")
    gradients = [_gradient(t, 0) for t in (training, without)]
    assert not torch.allclose(*gradients)
    fake_score = training.steppers["fake_score"]
    assert all(p.grad is None or not p.grad.any() for p in fake_score.parameters)
    assert all(p.requires_grad for p in fake_score.parameters)


def test_the_mean_variance_term_pulls_moments_to_their_targets(backend: Backend) -> None:
    options = {"weight_ca": 0.0, "learning_rate": 1e-3, "mean_variance_targets": (0.3, 0.5)}
    training = make_training(backend, "ca_mean_variance", **options)
    losses = [training.update(k)["loss_mean_variance"] for k in range(1, 13)]
    assert losses[-1] < 0.5 * losses[0]


def test_warm_up_raises_the_rates_linearly(backend: Backend) -> None:
    weight = nn.Parameter(torch.zeros(3))
    stepper = Stepper([([weight], 0.4)], TrainSettings(warmup_updates=4))
    rates = []
    for iteration in (1, 2, 4, 9):
        stepper.start(iteration)
        rates.append(stepper.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.4, 0.4])


@pytest.mark.parametrize(("limit", "scale"), [(None, 1.0), (10.0, 1.0), (2.5, 0.5)])
def test_clipping_scales_the_gradient_and_tells_its_norm(limit: float | None, scale: float) -> None:
    weight = nn.Parameter(torch.zeros(2))
    stepper = Stepper([([weight], 1.0)], TrainSettings(max_grad_norm=limit))
    weight.grad = torch.tensor([3.0, 4.0])
    assert stepper.gradient_norm() == pytest.approx(5)
    torch.testing.assert_close(weight.grad, scale * torch.tensor([3.0, 4.0]))


def _spoiled(backend: Backend, spoil: Callable[[Tensor], Tensor]) -> Backend:
    """A backend whose teacher, and so all that is copied from it, can be spoiled later."""

    def load() -> nn.Module:
        module = backend.load_teacher()
        module.register_forward_hook(lambda m, i, output: spoil(output) if m.spoiled else output)
        module.spoiled = False  # type: ignore[assignment]
        return module

    return dataclasses.replace(backend, load_teacher=load)


@pytest.mark.parametrize(
    ("role", "term"),
    [
        ("student", "the student's x0"),
        ("teacher", "the DM direction"),
        ("fake_score", "the DM direction"),
    ],
)
def test_what_is_not_finite_is_named_before_it_reaches_a_weight(
    backend: Backend, role: str, term: str
) -> None:
    spoiled = _spoiled(backend, lambda x0: x0 * math.nan)
    training = make_training(spoiled, "decoupled_hybrid")
    training.update(1)
    before = weights_of(training)
    training.networks[role].module.spoiled = True  # type: ignore[assignment]
    with pytest.raises(NotFinite) as error:
        training.update(2)
    assert error.value.term == term
    after = weights_of(training)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_gradient_that_is_not_finite_stops_the_update(backend: Backend) -> None:
    training = make_training(backend, "ca_only")
    before = copy.deepcopy(weights_of(training))
    parameter = training.steppers["student"].parameters[0]
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(NotFinite, match="the gradient of the student is not finite"):
        training.update(1)
    assert all(torch.equal(before[k], v) for k, v in weights_of(training).items())


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_compiled_networks_compute_the_same(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as for torch.compile, and run without its code generator, which takes minutes."""
    compile_whole = nn.Module.compile
    traced: list[nn.Module] = []

    def compile_traced(self: nn.Module) -> None:
        traced.append(self)
        compile_whole(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_traced)
    options = {"t_list": [1.0], "ema": 0}
    compiled = make_training(backend, "ca_only", compile=True, **options)
    assert len(traced) == 2  # teacher and student
    plain = make_training(backend, "ca_only", **options)
    assert compiled.update(1) == pytest.approx(plain.update(1), rel=1e-4, nan_ok=True)
    assert compiled.networks["student"].state().keys() == plain.networks["student"].state().keys()
