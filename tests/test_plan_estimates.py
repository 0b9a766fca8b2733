"""What a plan says of disk and time: counts, held against what is really done and written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_lumina2
import tiny_sdxl
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from typer.testing import CliRunner

from ddmd_bench.backends import BACKENDS, Backend, facts
from ddmd_bench.backends.facts import Facts
from ddmd_bench.backends.flops import Flops, counted, flops_of
from ddmd_bench.commands.cli import app
from ddmd_bench.data.images import save_png
from ddmd_bench.errors import BenchError
from ddmd_bench.files.records import mark_done
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning import outlook
from ddmd_bench.planning.operations import passes, training_flops
from ddmd_bench.planning.outlook import Outlook, disk_problems, duration, work_lines
from ddmd_bench.planning.part import Asked
from ddmd_bench.planning.plan import make_plan
from ddmd_bench.planning.sizes import png_bytes, training_bytes
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.settings import Model, TrainSettings
from ddmd_bench.training.update import Training

Write = Callable[[Any], str]
# Parameters as published; Lumina-Image-2.0's own is said to have 2.6 billion.
NUM_PARAMETERS = {"sdxl": 2_567_463_684, "sd15": 859_520_964}
REPOSITORIES = {"sdxl": tiny_sdxl.write_repository, "lumina2": tiny_lumina2.write_repository}


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backend]:
    """The embedded world, and the real families at tiny size."""
    found = {"shapes": BACKENDS["shapes"](Model())}
    for name, write in REPOSITORIES.items():
        folder = write(tmp_path_factory.mktemp(name))
        found[name] = BACKENDS[name](Model(repository=str(folder), resolution=64))
    return found


# Operations


def test_operations_of_known_layers() -> None:
    x = torch.empty(3, 5, device="meta")
    image = torch.empty(2, 4, 8, 8, device="meta")
    with torch.device("meta"):
        layers = nn.Sequential(nn.Linear(5, 7), nn.SiLU(), nn.Linear(7, 2))
        convolution = nn.Conv2d(4, 6, 3, padding=1)
    assert counted(lambda: layers(x)) == 2 * 3 * (5 * 7 + 7 * 2)
    assert counted(lambda: convolution(image)) == 2 * 2 * 8 * 8 * 6 * 4 * 9


@pytest.mark.parametrize("name", ["shapes", *REPOSITORIES])
def test_a_skeleton_computes_what_the_network_does(backends: dict[str, Backend], name: str) -> None:
    backend = backends[name]
    denoiser = backend.load_teacher()
    skeleton = backend.skeleton()
    state = {key: value.shape for key, value in skeleton.denoiser.state_dict().items()}
    assert state == {key: value.shape for key, value in denoiser.state_dict().items()}
    cond = {k: torch.ones(v.shape, dtype=v.dtype) for k, v in skeleton.cond.items()}
    x_t, t = torch.zeros(1, *backend.latent_shape), torch.ones(1)
    found = flops_of(backend)
    with sdpa_kernel(SDPBackend.MATH):  # a CPU's own attention is not counted
        assert found.forward == counted(lambda: denoiser(x_t, t, cond))
    assert 0 < found.bottleneck < found.forward


@pytest.mark.parametrize("name", ["shapes", *REPOSITORIES])
def test_networks_are_looked_at_once_by_all_processes(
    backends: dict[str, Backend], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backend, looks = backends[name], list[Backend]()
    look = facts._looked_at
    monkeypatch.setattr(facts, "_looked_at", lambda one: (looks.append(one), look(one))[1])
    first = facts.facts_of(backend)
    assert facts.facts_of(backend) == first == look(backend)
    assert len(looks) == 1
    # Of other weights nothing is known, nor of what is not here; a cut file is looked past.
    facts.facts_of(replace(backend, weights=lambda: {"other": "weights"}))
    assert len(looks) == 2

    def absent() -> dict[str, str]:
        raise BenchError("not here")

    for _ in range(2):
        facts.facts_of(replace(backend, weights=absent))
    assert len(looks) == 4
    for path in (tmp_path / "ddmd_bench" / "networks").iterdir():
        path.write_text(path.read_text()[:100])
    assert facts.facts_of(backend) == first
    assert len(looks) == 5


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_what_is_not_here_is_known_by_its_published_configuration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shapes = looked_up(BACKENDS[name](Model())).shapes
    assert sum(np.prod(shape) for shape in shapes.values()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize(
    ("method", "samples"),
    [*((name, "fresh") for name in METHODS), ("decoupled_hybrid_gan", "same"), ("ca_only", "same")],
)
def test_passes_are_what_a_training_counts(
    backends: dict[str, Backend], method: str, samples: str
) -> None:
    settings = TrainSettings(
        num_iterations=1,
        batch_size=3,
        t_list=(1.0, 0.6, 0.3),
        samples_at_once=2,
        fake_score_updates=2,
        fake_score_samples=samples,
    )
    training = Training(backends["shapes"], METHODS[method], settings, seed=0, device="cpu")
    training.update(1)
    found = passes(METHODS[method], settings)
    assert {"forward": found.forward, "backward": found.backward} == training.cost()


def test_what_a_backward_pass_costs() -> None:
    flops, settings = Flops(100, 40, 0, 0), {"num_iterations": 1, "batch_size": 4}
    alone = METHODS["ca_only"]  # 10 of the student and 8 of the teacher forward, 4 backward

    def of(**more: object) -> int:
        return training_flops(flops, alone, TrainSettings.model_validate({**settings, **more}))

    assert of() == 100 * (10 + 8 + 2 * 4)
    assert of(lora_rank=2) == 100 * (10 + 8 + 4)
    assert of(gradient_checkpointing=True) == 100 * (10 + 8 + 3 * 4)


# Bytes


def looked_up(backend: Backend) -> Facts:
    return Asked(load_suite("shapes_smoke"), backend, {}).facts()


def test_no_png_is_larger_than_told(tmp_path: Path) -> None:
    noise = torch.rand(3, 300, 200, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_png(tmp_path / "noise.png", noise)
    written = (tmp_path / "noise.png").stat().st_size
    assert written <= png_bytes(300, 200) <= 1.02 * written
    with Image.open(tmp_path / "noise.png") as image:
        assert image.size == (200, 300)


@pytest.mark.parametrize("lora_rank", [None, 8])
@pytest.mark.parametrize(("method", "ema"), [("dmd", 0.9), ("ca_only", 0.0)])
def test_checkpoints_are_as_large_as_told(
    backends: dict[str, Backend], tmp_path: Path, method: str, ema: float, lora_rank: int | None
) -> None:
    backend = backends["sdxl"]
    settings = TrainSettings(batch_size=4, ema=ema, lora_rank=lora_rank)
    training = Training(backend, METHODS[method], settings, seed=0, device="cpu")
    for stepper in training.steppers.values():
        for parameter in stepper.parameters:
            parameter.grad = torch.zeros_like(parameter)
        stepper.step()
    torch.save({"state": training.state()}, tmp_path / "checkpoint.pt")
    save_file(dict(training.result().state()), tmp_path / "student.safetensors")
    size = training_bytes(looked_up(backend), METHODS[method], settings, backend.lora_targets)
    # Of networks this small, names and headers are a part that counts.
    num_tensors = len(training.networks["student"].parameters)
    for told, file in ((size.checkpoint, "checkpoint.pt"), (size.weights, "student.safetensors")):
        written = (tmp_path / file).stat().st_size
        assert told <= written <= told * 1.02 + 3000 * num_tensors


def test_embeddings_are_as_large_as_told(backends: dict[str, Backend]) -> None:
    backend = backends["sdxl"]
    assert backend.encoders is not None
    (row,) = backend.encoders.load_prompt_encoder("cpu")(["a cat"])
    cond = backend.skeleton().cond
    assert {name: tuple(value.shape) for name, value in row.items()} == {
        name: tuple(value.shape[1:]) for name, value in cond.items() if name != "time_ids"
    }


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil._ntuple_diskusage(10**12, 10**12 - free, free)
    monkeypatch.setattr(outlook.shutil, "disk_usage", lambda path: usage)


def test_folders_of_one_disk_share_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, 1000)
    first, second = tmp_path / "not" / "there", tmp_path / "cache"
    assert disk_problems({first: 600, second: 400}) == []
    (problem,) = disk_problems({first: 600, second: 401})
    assert str(first) in problem
    assert str(second) in problem


# Whole plans


def test_what_is_complete_takes_nothing_more(
    tiny: dict, write_suite: Write, tmp_path: Path
) -> None:
    suite = load_suite(write_suite(tiny), ("seeds=[0, 1]",))
    plan = make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    asked = Asked.of(suite)
    before = Outlook(asked, plan).disk()
    assert before == Outlook(asked).disk()
    for task in plan.of_stage("generate"):
        mark_done(task.folder, {"key": task.key, "seconds": 1.0})
    after = Outlook(asked, plan).disk()
    assert after == {stage: size for stage, size in before.items() if stage != "generate"}


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_trainings_side_by_side_keep_a_checkpoint_each(
    tiny: dict, write_suite: Write, tmp_path: Path, workers: int
) -> None:
    suite = load_suite(write_suite(tiny), ("seeds=[0, 1]", "students.ca_only.train.ema=0.9"))
    plan = make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    outlook = Outlook(Asked.of(suite), plan, workers)
    dmd, ca_only = (outlook.costs["train", name] for name in ("dmd", "ca_only"))
    running = [dmd.disk_running] * 2 + [ca_only.disk_running] * 2
    assert dmd.disk_running > ca_only.disk_running > 0
    expected = 2 * (dmd.disk + ca_only.disk) + sum(running[:workers])
    assert outlook.disk()["train"] == expected
    task = plan.task("train", "dmd", 1)
    mark_done(task.folder, {"key": task.key, "seconds": 1.0})
    assert outlook.disk()["train"] == expected - dmd.disk - sum(running[:workers]) + sum(
        running[1:][:workers]
    )


def test_a_seed_that_has_run_stands_for_the_others(
    tiny: dict, write_suite: Write, tmp_path: Path
) -> None:
    suite = load_suite(write_suite(tiny), ("seeds=[0, 1, 2]",))
    plan = make_plan(suite, tmp_path / "runs", tmp_path / "reports")
    task = plan.task("train", "dmd", 1)
    mark_done(task.folder, {"key": task.key, "seconds": 5000.0})
    lines = "\n".join(work_lines(Outlook(Asked.of(suite), plan)))
    assert f"dmd {duration(2 * 5000.0)}" in lines
    assert "Where another seed has run" in lines


def test_a_plan_tells_all_it_can_of_what_is_not_here(
    write_suite: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights, no prompts, no network, no room: every line, and every problem at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    full_disk(monkeypatch, 10**9)
    result = CliRunner().invoke(app, ["plan", "sdxl_smoke", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 2
    for expected in (
        "unet: stabilityai/stable-diffusion-xl-base-1.0",
        "memory of decoupled_hybrid: ",
        "disk of train: ",
        "work of train: ",
        "PartiPrompts, list: nateraw/parti-prompts",
        "prompts.parti.source",
        "no room on the disk",
    ):
        assert expected in result.output, expected


def test_a_run_without_room_does_nothing(
    tiny: dict, write_suite: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, 1000)
    runs = tmp_path / "runs"
    result = CliRunner().invoke(app, ["run", write_suite(tiny), "--runs", str(runs)])
    assert result.exit_code == 2
    assert "no room on the disk" in result.output
    assert not runs.exists()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(1, "1.0 s"), (100, "100 s"), (600, "10 min"), (8000, "2.2 h"), (10**9, "277,778 h")],
)
def test_durations_have_a_unit_that_fits(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
