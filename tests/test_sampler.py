"""Samplers against hand-written loops and diffusers, and the images' independence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ddmd_bench.backends import Backend
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.data.images import image_ids, image_noises
from ddmd_bench.files.records import mark_done
from ddmd_bench.objective.process import flow_level
from ddmd_bench.objective.sampler import backward_simulation, few_step_sample, ode_sample
from ddmd_bench.objective.terms import Cond
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.stages.generate import SOURCES
from ddmd_bench.suite.files import load_suite

T_LIST = (1.0, 0.75, 0.5, 0.25)
NUM = 8


def noises(count: int, num: int = NUM, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, num, 12, 16, 16, generator=generator))


@pytest.fixture(scope="module")
def backend() -> Backend:
    return make_backend()


@pytest.fixture(scope="module")
def teacher(backend: Backend) -> nn.Module:
    return backend.load_teacher()


@pytest.fixture(scope="module")
def cond(backend: Backend) -> Cond:
    generator = torch.Generator().manual_seed(1)
    return backend.encode_prompts([backend.draw_prompt(generator) for _ in range(NUM)])


def test_few_steps_predict_and_renoise(teacher: nn.Module, cond: Cond) -> None:
    given = noises(4)
    x_t = given[0]
    for t, t_next, eps in zip(T_LIST, (*T_LIST[1:], 0.0), [*given[1:], given[0]], strict=True):
        x0 = teacher(x_t, torch.full((NUM,), t), cond)
        x_t = (1 - t_next) * x0 + t_next * eps
    sampled = few_step_sample(teacher, T_LIST, cond, given, flow_level)
    torch.testing.assert_close(sampled, x0, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_ode_is_diffusers_euler(
    backend: Backend, teacher: nn.Module, cond: Cond, guidance_scale: float
) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    steps = 8
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)])
    uncond = backend.encode_prompts([""] * NUM)
    (x_t,) = noise = noises(1)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            text = [teacher.unet(x_t, timestep, c["prompt_embeds"]).sample for c in (uncond, cond)]
            velocity = text[0] + guidance_scale * (text[1] - text[0])
            x_t = scheduler.step(velocity, timestep, x_t).prev_sample
    ours = ode_sample(teacher, steps, guidance_scale, cond, uncond, noise[0], flow_level)
    torch.testing.assert_close(ours, x_t, rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_a_perfect_denoiser_is_returned_exactly(guidance_scale: float) -> None:
    (x0,) = noises(1, seed=9)

    def perfect(x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return x0

    assert torch.equal(few_step_sample(perfect, T_LIST, {}, noises(4), flow_level), x0)
    sampled = ode_sample(perfect, 5, guidance_scale, {}, {}, noises(1)[0], flow_level)
    assert torch.equal(sampled, x0)


@pytest.mark.parametrize("t_list", [(1.0,), (1.0, 0.5), T_LIST])
def test_backward_simulation_is_each_row_run_alone(
    teacher: nn.Module, cond: Cond, t_list: tuple[float, ...]
) -> None:
    given = noises(len(t_list))
    steps = [k % len(t_list) for k in range(NUM)]
    x_t, t = backward_simulation(teacher, t_list, steps, cond, given, flow_level)
    assert t.tolist() == [t_list[k] for k in steps]
    for row, k in enumerate(steps):
        alone = {key: value[row : row + 1] for key, value in cond.items()}
        x = given[0][row : row + 1]
        for earlier in range(k):
            x0 = teacher(x, torch.tensor([t_list[earlier]]), alone)
            t_next = t_list[earlier + 1]
            x = (1 - t_next) * x0 + t_next * given[earlier + 1][row : row + 1]
        torch.testing.assert_close(x_t[row : row + 1], x, rtol=0, atol=1e-4)


def test_backward_simulation_leaves_the_noises_alone(teacher: nn.Module, cond: Cond) -> None:
    given = noises(4)
    backward_simulation(teacher, T_LIST, [k % 4 for k in range(NUM)], cond, given, flow_level)
    for found, expected in zip(given, noises(4), strict=True):
        assert torch.equal(found, expected)


# An image belongs to (seed, prompt, index)


@pytest.fixture
def plan(tmp_path: Path, tiny: dict[str, Any], write_suite: Callable[[Any], str]) -> Plan:
    return make_plan(load_suite(write_suite(tiny)), tmp_path / "runs", tmp_path / "reports")


def _as_trained(plan: Plan, student: str, module: nn.Module) -> None:
    task = plan.task("train", student, 0)
    task.folder.mkdir(parents=True)
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    save_file(state, task.folder / "student.safetensors")
    mark_done(task.folder, {"key": task.key})


@pytest.mark.parametrize("student", ["teacher_2", "dmd", "real"])
@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(
    plan: Plan, backend: Backend, teacher: nn.Module, student: str
) -> None:
    _as_trained(plan, "dmd", teacher)
    source = plan.suite.students[student].source
    sampler = SOURCES[source](plan.seeded(student, 0), backend, "cpu")
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    together = sampler.draw(images)
    # Other neighbours, another order, other sizes of the batch.
    turned = sampler.draw(images[::-1][:3]).flip(0)
    alone = torch.cat([sampler.draw([image]) for image in images])
    torch.testing.assert_close(together[-3:], turned, rtol=0, atol=1e-4)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_noise_is_the_image_s_own_bit_for_bit(plan: Plan) -> None:
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    shape = (12, 16, 16)
    together = image_noises(0, images, 4, shape)
    for k, image in enumerate(images):
        for step, noise in enumerate(image_noises(0, [image], 4, shape)):
            assert torch.equal(noise[0], together[step][k])
    flat = torch.stack(together).flatten(2).flatten(0, 1)
    correlation = torch.corrcoef(flat).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1  # no draw is used twice
    other_seed = image_noises(1, images, 1, shape)[0]
    assert not torch.isclose(other_seed, together[0]).flatten(1).all(1).any()


class _Recorder(nn.Module):
    """A denoiser that keeps the first x_t it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Tensor | None = None

    def forward(self, x_t: Tensor, t: Tensor, cond: Cond) -> Tensor:
        if self.first is None:
            self.first = x_t.clone()
        return 0.9 * x_t


def test_all_students_start_from_the_same_noise(plan: Plan, backend: Backend) -> None:
    images = image_ids(plan.prompts, plan.suite.images_per_prompt())
    seen = {}
    for name in ("teacher_2", "dmd", "ca_only"):
        recorder = _Recorder()
        if plan.suite.students[name].source == "train":
            _as_trained(plan, name, recorder)
        shown = replace(backend, load_teacher=lambda recorder=recorder: recorder)
        source = SOURCES[plan.suite.students[name].source]
        source(plan.seeded(name, 0), shown, "cpu").draw(images)
        seen[name] = recorder.first
    assert torch.equal(seen["teacher_2"], seen["dmd"])
    assert torch.equal(seen["ca_only"], seen["dmd"])
