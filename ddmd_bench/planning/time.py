"""Hours of a run before it starts: arithmetic, not a measurement.

Operations of the networks (`ddmd_bench.backends.flops`) by the passes that a method needs, divided
by a share of the rate at which this machine multiplies matrices.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ddmd_bench.backends import Backend, twice_guided
from ddmd_bench.backends.flops import Flops, flops_of
from ddmd_bench.objective.methods import METHODS, Method
from ddmd_bench.planning.outlook import Outlook
from ddmd_bench.suite.schema import Student
from ddmd_bench.suite.settings import TrainSettings

# The share of a matrix product's rate that whole networks are taken to reach, whatever the suite. A
# run of `shapes_smoke` on one busy core of a CPU reached 0.12 to 0.33.
UTILISATION = 0.3
OFF_BY = 3  # the factor by which times may be wrong either way
MEASURED_S = 0.05  # how long a product must take for its rate to count
# Operations a second of dense products by NVIDIA's data sheet of the A100: stands in where there is
# no GPU and the CPU would take longer than anybody waits.
A100 = {"float32": 1.95e13, "float16": 3.12e14, "bfloat16": 3.12e14}
LONGEST_ON_CPU_S = 7 * 86400


@dataclass(frozen=True)
class Passes:
    """Samples through the networks in a whole training, as its record counts them by role."""

    forward: dict[str, int]
    backward: dict[str, int]


def passes(method: Method, settings: TrainSettings) -> Passes:
    """Samples forward and backward of every role, without evaluations."""
    batch, num_steps = settings.batch_size, len(settings.t_list)
    # The student's earlier steps that make its input: a share of the batch for each (Alg. 1).
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
    num = settings.num_iterations * settings.gradient_accumulation
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


def num_passes(outlook: Outlook, name: str, student: Student, base: Backend) -> int:
    """Passes of the denoiser for one image of a student."""
    if student.source == "train":
        return len(outlook.suite.train_settings(name).t_list)
    if student.source == "teacher":
        assert student.num_inference_steps is not None
        assert student.guidance_scale is not None
        options = student.teacher_options()
        steps, scale = student.num_inference_steps, student.guidance_scale
        return base.teacher_evaluations(steps, scale, **options)
    sampling = outlook.loaded[name].row.sampling
    return twice_guided(sampling.num_inference_steps, sampling.guidance_scale)


Work = dict[tuple[str, str], tuple[int, str]]  # stage, student -> operations, and their precision


def work_of(outlook: Outlook) -> Work:
    """Operations of each task that has networks; one seed of it.

    Not counted: text encoders, scorers, whole pipelines of other architectures, reading files.
    """
    suite, backend = outlook.suite, outlook.backend
    known: dict[int, Flops] = {}

    def flops(base: Backend) -> Flops:
        if id(base) not in known:
            known[id(base)] = flops_of(base)
        return known[id(base)]

    found: Work = {}
    images = suite.train_data.images if suite.train_data else None
    if backend.encoders is not None and images is not None:
        found["encode", ""] = images.num_images * flops(backend).encode, backend.dtype
    for name, base in outlook.bases().items():
        student, one = suite.students[name], flops(base)
        of_image = num_passes(outlook, name, student, base) * one.forward + one.decode
        if student.source == "train":
            settings = suite.train_settings(name)
            work = training_flops(one, METHODS[student.method or ""], settings)
            if suite.evaluation is not None:
                asked = suite.evaluation
                num = len(asked.at) * asked.num_prompts * asked.images_per_prompt
                work += num * of_image
            found["train", name] = work, settings.precision
        found["generate", name] = outlook.num_images() * of_image, base.dtype
    return found


def matmul_rate(dtype: str) -> float:
    """Operations a second of a square matrix product on this machine's device.

    On one thread of a CPU, as a run's workers have it.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        size, seconds = 128, 0.0
        while seconds < MEASURED_S and size < 16384:
            size *= 2
            seconds = min(_product_seconds(size, dtype, device) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    return 2 * size**3 / seconds


def _product_seconds(size: int, dtype: str, device: str) -> float:
    import torch

    left = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    float(left[0, 0])
    start = time.perf_counter()
    product = left @ left
    float(product[0, 0])  # waits for the device
    return time.perf_counter() - start


def time_lines(outlook: Outlook) -> list[str]:
    """One line for each stage with networks, and one about what is assumed."""
    todo = {task: w for task, w in work_of(outlook).items() if outlook.num_todo(*task)}
    if not todo:
        return []
    where, rates = _rates(outlook, todo)
    by_stage: dict[str, dict[str, float]] = {}
    operations: dict[str, int] = {}
    recorded = False
    for (stage, student), (work, dtype) in todo.items():
        seconds = outlook.seconds_of_another_seed(stage, student)
        recorded |= seconds is not None
        if seconds is None:
            seconds = work / (UTILISATION * rates[dtype])
        num = outlook.num_todo(stage, student)
        by_stage.setdefault(stage, {})[student] = seconds * num
        operations[stage] = operations.get(stage, 0) + work * num
    lines = [_line(stage, operations[stage], times) for stage, times in by_stage.items()]
    return [*lines, _assumed(where, rates, recorded)]


def _rates(outlook: Outlook, todo: Work) -> tuple[str, dict[str, float]]:
    """What the run is planned for, in words, and its rate in each precision."""
    import torch

    rates = {dtype: matmul_rate(dtype) for dtype in sorted({dtype for _, dtype in todo.values()})}
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), rates
    seconds = sum(
        outlook.num_todo(*task) * work / (UTILISATION * rates[dtype])
        for task, (work, dtype) in todo.items()
    )
    if seconds <= LONGEST_ON_CPU_S:
        return "one thread of this CPU", rates
    where = f"an A100 (one thread of this CPU would take {duration(seconds)})"
    return where, {dtype: A100[dtype] for dtype in rates}


def _line(stage: str, operations: int, seconds: dict[str, float]) -> str:
    told = ", ".join(f"{name or 'real images'} {duration(s)}" for name, s in seconds.items())
    total = duration(sum(seconds.values()))
    return f"time of {stage}: about {total} for {operations:.2g} operations ({told})"


def _assumed(where: str, rates: dict[str, float], recorded: bool) -> str:
    told = ", ".join(f"{rate:.2g} a second in {dtype}" for dtype, rate in rates.items())
    of_seeds = " Where one seed has run, its time stands for the others." if recorded else ""
    return (
        "times are arithmetic, not measured: operations of the networks, one student after "
        f"another, at {UTILISATION:.0%} of a matrix product's rate on {where} ({told}); they may "
        f"be wrong by a factor of {OFF_BY}. Text encoders, scoring and files come on top.{of_seeds}"
    )


def duration(seconds: float) -> str:
    """Two digits or more in the largest unit that has two of it; hours are the last but years."""
    units = {"years": 365 * 86400, "h": 3600, "min": 60, "s": 1}
    name, size = next((u for u in units.items() if seconds >= 2 * u[1]), ("s", 1))
    return (
        f"{seconds / size:,.0f} {name}" if seconds >= 10 * size else f"{seconds / size:.1f} {name}"
    )
