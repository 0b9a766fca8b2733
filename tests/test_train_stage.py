"""The train stage: evaluations on the way, the best weights, failures on record, trackers, cost."""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from ddmd_bench.backends import BACKENDS
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.data.images import image_ids
from ddmd_bench.data.prompts import head_in_proportion
from ddmd_bench.errors import BenchError
from ddmd_bench.files.made import made_by
from ddmd_bench.files.provenance import peak_memory_gib, reset_peak_memory
from ddmd_bench.files.records import FAILED, read_done, read_json
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.planning import training as training_plan
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.scorers import loaded
from ddmd_bench.stages.generate import SOURCES
from ddmd_bench.stages.train import train
from ddmd_bench.students.seeded import BEST
from ddmd_bench.suite.files import load_suite
from ddmd_bench.training.course import CHECKPOINT, Course
from ddmd_bench.training.evaluation import Evaluator, leave_room
from ddmd_bench.training.finite import NotFinite
from ddmd_bench.training.update import Training

Planner = Callable[..., Plan]
EVALUATION = "evaluation={at: [0, 2, 4], num_prompts: 3, metrics: [std, saturation], keep_best: %s}"


def quiet(*_: Any) -> None:
    """No progress."""


@pytest.fixture
def planned(tmp_path: Path, tiny: dict, write_suite: Callable[[Any], str]) -> Planner:
    name = write_suite(tiny)

    def make(*overrides: str) -> Plan:
        suite = load_suite(name, ["train.num_iterations=4", *overrides])
        return make_plan(suite, tmp_path / "runs", tmp_path / "reports")

    return make


def trained(plan: Plan, student: str = "dmd") -> Path:
    task = plan.task("train", student, 0)
    train(plan, task, quiet)
    assert task.complete()
    return task.folder


# Evaluation


def test_evaluations_follow_the_student_and_the_best_weights_are_kept(planned: Planner) -> None:
    """CA alone saturates more from update to update, so its least saturated weights are the first.

    The average holds no update at iteration 0: the best weights are the teacher's.
    """
    folder = trained(
        planned(EVALUATION % "saturation", "train.learning_rate=1e-3", "train.ema=0"), "ca_only"
    )
    table = pd.read_parquet(folder / "evaluations.parquet")
    assert table["iteration"].tolist() == [0, 0, 2, 2, 4, 4]
    assert table["n"].eq(3).all()
    kept = [name for name in made_by(folder) if name.startswith("pictures/")]
    assert kept == [f"pictures/000000{k}.webp" for k in (0, 2, 4)]
    saturation = table[table["metric"] == "saturation"]["value"].tolist()
    assert saturation == sorted(saturation)
    assert saturation[0] < saturation[-1]
    teacher, best = make_backend().load_teacher().state_dict(), load_file(folder / BEST)
    assert all(torch.equal(best[name], value) for name, value in teacher.items())
    record = read_done(folder)
    assert record is not None
    assert record["best"] == {
        "iteration": 0, "metric": "saturation", "value": saturation[0], "n": 3,
    }  # fmt: skip


@pytest.mark.long
def test_evaluation_leaves_the_training_as_it_was(planned: Planner) -> None:
    with_it = trained(planned(EVALUATION % "saturation"))
    without = trained(planned())
    first, second = (load_file(f / "student.safetensors") for f in (with_it, without))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (without / "evaluations.parquet").exists()
    assert not (without / BEST).exists()


@pytest.mark.long
def test_a_lora_student_is_sampled_as_it_was_evaluated(planned: Planner) -> None:
    """The file holds adapters alone, and the generate stage draws what the evaluation drew."""
    plan = planned(EVALUATION % "saturation", "students.dmd.train={lora_rank: 2}")
    folder = trained(plan)
    state = load_file(folder / "student.safetensors")
    assert all("lora" in name for name in state)
    backend = make_backend()
    sampler = SOURCES["train"](plan.seeded("dmd", 0), backend, "cpu")
    subset = head_in_proportion(plan.prompts, 3)
    images = image_ids(subset, {prompt.prompt_set: 1 for prompt in subset})
    shares = [float((x.abs() > 1).double().mean()) for x in sampler.draw(images)]
    table = pd.read_parquet(folder / "evaluations.parquet")
    last = table[(table["metric"] == "saturation") & (table["iteration"] == 4)]
    assert last["value"].tolist() == pytest.approx([sum(shares) / 3], rel=1e-6)


@pytest.mark.parametrize(("device", "num"), [("cuda", 0), ("cpu", 1)])
def test_evaluations_leave_a_gpu_to_the_updates(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, device: str, num: int
) -> None:
    """As if the training were there, also where an evaluation fails."""
    plan = planned("evaluation={at: [0], num_prompts: 3, metrics: [prompt_accuracy]}")
    monkeypatch.setattr("ddmd_bench.training.course.leave_room", lambda _: leave_room(device))
    loaded.cache_clear()

    def ended(self: Training, iteration: int) -> dict[str, float]:
        raise BenchError(f"{loaded.cache_info().currsize} scorers")

    monkeypatch.setattr(Training, "update", ended)
    with pytest.raises(BenchError, match=f"{num} scorers"):
        train(plan, plan.task("train", "dmd", 0), quiet)
    monkeypatch.setattr(Evaluator, "_value", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(plan, plan.task("train", "dmd", 0), quiet)
    assert loaded.cache_info().currsize == num


# Failure


def test_what_is_not_finite_ends_the_training_with_a_record(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned("train.checkpoint_every=2")
    task = plan.task("train", "dmd", 0)
    update = Training.update

    def broken(self: Training, iteration: int) -> dict[str, float]:
        if iteration == 4:
            raise NotFinite("the DM direction")
        return update(self, iteration)

    monkeypatch.setattr(Training, "update", broken)
    with pytest.raises(BenchError) as error:
        train(plan, task, quiet)
    checkpoint = task.folder / CHECKPOINT
    assert str(error.value) == (
        "training stopped at iteration 4 of 4: the DM direction is not finite. Last finite "
        f"checkpoint: of iteration 2 in {checkpoint}. Lower train.learning_rate or "
        "train.guidance_scale, or set train.max_grad_norm"
    )
    assert checkpoint.is_file()
    assert read_json(task.folder / FAILED) == {
        "key": task.key,
        "message": "at iteration 4 of 4: the DM direction is not finite",
        "iteration": 4,
        "term": "the DM direction",
    }
    # Mended, it goes on from there, and the record is gone.
    monkeypatch.setattr(Training, "update", update)
    going_on: list[int] = []
    train(plan, task, lambda done, _: going_on.append(done))
    assert going_on == [3, 4]
    assert task.complete()
    assert not (task.folder / FAILED).exists()


def test_a_runaway_is_stopped_before_its_weights_are_no_numbers(planned: Planner) -> None:
    plan = planned("train.learning_rate=1e6", "train.checkpoint_every=1")
    task = plan.task("train", "ca_only", 0)
    with pytest.raises(BenchError, match=r"is not finite\. Last finite checkpoint: of iteration 1"):
        train(plan, task, quiet)
    saved = torch.load(task.folder / CHECKPOINT, weights_only=True)
    assert all(value.isfinite().all() for value in saved["state"]["networks"]["student"].values())


def test_weights_that_are_no_numbers_are_not_kept(planned: Planner) -> None:
    plan = planned("train.checkpoint_every=2")
    task = plan.task("train", "ca_only", 0)

    def spoil(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, task, spoil)
    checkpoint = task.folder / CHECKPOINT
    saved = torch.load(checkpoint, weights_only=True)
    name = next(iter(saved["state"]["networks"]["average"]))
    saved["state"]["networks"]["average"][name].fill_(math.inf)  # no update reads it
    torch.save(saved, checkpoint)
    with pytest.raises(BenchError, match=f"at iteration 4 of 4: {name} of the average is not"):
        train(plan, task, quiet)
    assert not task.complete()


# Checkpoints


def stopped(plan: Plan, student: str = "dmd", at: int = 3) -> Path:
    """A training that was ended after its first checkpoint, which lies at iteration 2."""

    def stop(done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(plan, plan.task("train", student, 0), stop)
    return plan.task("train", student, 0).folder / CHECKPOINT


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "not of torch")


def of_another_key(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"key": "0123456789ab"}, path)


def of_another_network(path: Path) -> None:
    saved = torch.load(path, weights_only=True)
    student = saved["state"]["networks"]["student"]
    del student[next(iter(student))]
    torch.save(saved, path)


UNFIT: list[tuple[Callable[[Path], Any], str]] = [
    (cut, "BadZipFile: File is not a zip file"),
    (one_bit, "BadZipFile: .* is not what was written"),
    (another_zip, "BadZipFile: not of torch"),
    (lambda path: path.write_text("{}"), "BadZipFile"),
    (lambda path: torch.save([1, 2], path), "AttributeError"),
    (lambda path: torch.save({}, path), "KeyError: 'state'"),
    (lambda path: torch.save(quiet, path), "UnpicklingError"),
    (of_another_key, "it is of a training with key 0123456789ab, this one has"),
    (of_another_network, "weights of another network: missing"),
]


@pytest.mark.long
def test_a_checkpoint_that_does_not_fit_says_what_to_do(planned: Planner) -> None:
    plan = planned("train.checkpoint_every=2")
    checkpoint = stopped(plan)
    whole = checkpoint.read_bytes()
    settings = plan.suite.train_settings("dmd")
    training = Training(make_backend(), METHODS["dmd"], settings, 0, "cpu")
    course = Course(checkpoint.parent, plan.task("train", "dmd", 0).key, training, None)
    for spoil, said in UNFIT:
        checkpoint.write_bytes(whole)
        spoil(checkpoint)
        with pytest.raises(BenchError, match=said) as error:
            course.resume()
        assert str(error.value).startswith(f"{checkpoint}: ")
        assert str(error.value).endswith("or delete it to begin anew")
    checkpoint.unlink()
    trained(plan)


def test_a_writing_that_was_killed_leaves_nothing_that_counts(planned: Planner) -> None:
    plan = planned("train.checkpoint_every=2")
    checkpoint = stopped(plan)
    cut = (".checkpoint.pt.1.tmp", ".best.safetensors.1.tmp", ".tmpAb1Cd2", "checkpoint.tmp")
    for name in cut:
        (checkpoint.parent / name).write_bytes(checkpoint.read_bytes()[:1000])
    seen: list[int] = []
    train(plan, plan.task("train", "dmd", 0), lambda done, _: seen.append(done))
    assert seen == [3, 4]
    assert not [name for name in cut if (checkpoint.parent / name).exists()]


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="reads the maps of a process")
def test_a_checkpoint_is_read_where_it_lies(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, of the file's own pages; and it is written from the live tensors."""
    plan = planned("train.checkpoint_every=2")
    checkpoint = stopped(plan)
    load_state = Training.load_state

    def load(self: Training, state: dict[str, Any]) -> None:
        lines = Path("/proc/self/maps").read_text().splitlines()
        spans = [line.split()[0].split("-") for line in lines if str(checkpoint) in line]
        for tensor in state["networks"]["student"].values():
            place = tensor.data_ptr()
            assert any(int(low, 16) <= place < int(high, 16) for low, high in spans)
        load_state(self, state)
        ours = self.networks["student"].parameters
        saved = self.state()["networks"]["student"]
        assert all(saved[name].data_ptr() == value.data_ptr() for name, value in ours.items())

    monkeypatch.setattr(Training, "load_state", load)
    seen: list[int] = []
    train(plan, plan.task("train", "dmd", 0), lambda done, _: seen.append(done))
    assert seen == [3, 4]


# Cost and trackers


def test_the_record_tells_the_cost(planned: Planner) -> None:
    record = read_done(trained(planned("train.fake_score_updates=2")))
    assert record is not None
    num = 4 * 8  # updates, and samples of a batch in the tiny suite
    assert record["samples"] == num
    assert record["backwards"] == {"teacher": 0, "student": num, "fake_score": 2 * num}
    assert record["forwards"]["fake_score"] == 3 * num
    assert record["seconds"] > 0
    assert record["peak_memory_gib"] > 0


def resident_gib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="Linux counts it")
def test_peak_memory_counts_from_its_reset() -> None:
    # The system may take back other pages meanwhile (an earlier test's mapped weights, a thread
    # that ends), and a kernel of many cores counts pages roughly: a quarter GiB of leave.
    # A mapping of its own: the allocator may keep what an array gave back, for the next one.
    reset_peak_memory()
    block = mmap.mmap(-1, 2**29, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(2**9):  # 1/2 GiB, every page written
        block.write(bytes(2**20))
    with_block = peak_memory_gib()
    assert with_block > 0.5
    assert with_block == pytest.approx(resident_gib(), abs=0.25)
    block.close()
    assert resident_gib() < with_block - 0.25  # the memory is gone, its peak is not
    assert peak_memory_gib() == pytest.approx(with_block, abs=0.25)
    reset_peak_memory()
    assert peak_memory_gib() < with_block - 0.25


@pytest.mark.long
def test_diagnostics_reach_tensorboard(planned: Planner) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plan = planned(EVALUATION % "saturation", "trackers=[tensorboard]")
    folder, other = trained(plan), trained(plan, "ca_only")  # two in one process
    assert list(other.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(folder / "tracking" / "tiny"))
    events.Reload()
    found = events.Scalars("x0_std")
    rows = pd.read_parquet(folder / "diagnostics.parquet")
    assert [event.step for event in found] == [1, 2, 3, 4]
    assert [event.value for event in found] == pytest.approx(rows["x0_std"].tolist(), rel=1e-6)
    assert [event.step for event in events.Scalars("evaluation/std")] == [0, 2, 4]


def test_trackers_change_no_key(planned: Planner) -> None:
    with_it, without = planned("trackers=[tensorboard]"), planned()
    assert with_it.task("train", "dmd", 0).key == without.task("train", "dmd", 0).key


# What plan refuses


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend without what it knows of real latents."""
    backend = make_backend()
    poor = dataclasses.replace(backend, draw_real_latents=None, real_moments=None)
    monkeypatch.setitem(BACKENDS, "shapes", lambda model: poor)


@pytest.mark.usefixtures("bare")
def test_a_gan_without_real_images_is_refused(planned: Planner) -> None:
    with pytest.raises(BenchError, match=r"students.dmd: method dmd2 has a GAN loss.*has none"):
        planned("students.dmd.method=dmd2")


@pytest.mark.usefixtures("bare")
def test_moments_must_come_from_somewhere(planned: Planner) -> None:
    with pytest.raises(BenchError, match=r"Give them: train.mean_variance_targets"):
        planned("students.dmd.method=ca_mean_variance")
    planned("students.dmd.method=ca_mean_variance", "train.mean_variance_targets=[0.075, 0.81]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trackers=[wandb]", "trackers: wandb needs the package wandb: pip install wandb"),
        (
            "students.dmd.train={optimizer: adamw_8bit}",
            "students.dmd: train.optimizer: adamw_8bit needs the package bitsandbytes",
        ),
    ],
)
def test_a_package_that_is_not_there_is_named(
    planned: Planner, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    absent = {"wandb", "bitsandbytes"}
    monkeypatch.setattr(
        training_plan, "find_spec", lambda name: None if name in absent else find_spec(name)
    )
    with pytest.raises(BenchError, match=message):
        planned(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.normaliser=none", "Did you mean 'normalizer'"),
        ("train.lora_ranks=4", "Did you mean 'lora_rank'"),
        ("students.dmd.train={weight_gann: 1}", "Did you mean 'weight_gan'"),
        ("students.dmd.method=ca_gam", "Did you mean 'ca_gan'"),
    ],
)
def test_an_unknown_option_names_the_nearest(planned: Planner, override: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        planned(override)


def test_the_tau_probe_is_a_setting(planned: Planner) -> None:
    """The paper's ranges on its axis, [0, 0.05] to [0.7, 1], as they stand on ours."""
    for low, high in ((0.95, 1.0), (0.9, 1.0), (0.7, 1.0), (0.0, 1.0), (0.0, 0.3)):
        probe = f"students.ca_only.train={{t_list: [1], tau_range: [{low}, {high}]}}"
        settings = planned(probe).suite.train_settings("ca_only")
        row = Training(make_backend(), METHODS["ca_only"], settings, 0, "cpu")
        _, renoising = row.batches.of_terms(torch.ones(64), range(64))
        assert renoising is not None
        assert low <= float(renoising.tau.min()) <= float(renoising.tau.max()) <= high
        assert math.isclose(
            float(renoising.tau.mean()), (low + high) / 2, abs_tol=0.2 * (high - low)
        )
