"""A whole run beside the bare arithmetic of its networks.

    python -m benchmarks.run [--suite suites/shapes_smoke.yaml] [--rounds 6]

The records of the run say how many samples went through each network, forward and backward, and
how many images were drawn and scored. The same passes are timed bare, in one thread of this
process, half of them before the run and half after it. What the run takes on the clocks of all
cores is split as far as the records tell: updates and drawing, scoring, imports, and the rest.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from benchmarks.processes import Spent, spent
from benchmarks.table import Table, as_text
from ddmd_bench.backends import BACKENDS, Backend
from ddmd_bench.files.records import read_done
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.scorers import METRICS, batch_size, loaded, needed_scorers
from ddmd_bench.suite.files import load_suite
from ddmd_bench.suite.schema import Suite

SUITE = "suites/shapes_smoke.yaml"
# What the server of the workers loads, and what the command itself loads.
SERVER = (
    "import ddmd_bench.stages.train, ddmd_bench.stages.generate, ddmd_bench.stages.score, timm\n"
    "from diffusers import UNet2DConditionModel"
)
PARENT = "import torch, ddmd_bench.commands.cli, ddmd_bench.stages.report, matplotlib.pyplot"

Pass = Callable[[], object]


class Work(NamedTuple):
    """How many samples went through what."""

    plain: int  # forward alone, in training
    graded: int  # forward and backward
    drawn: int  # forward, for images
    scored: dict[str, int]  # by scorer


def seconds_of(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def passes_of(suite: Suite, backend: Backend) -> dict[str, tuple[int, Pass]]:
    """By name a bare pass, and how many samples it takes at once, as the harness does."""
    network, size, at_once = backend.load_teacher(), suite.train.batch_size, backend.images_at_once
    generator = torch.Generator().manual_seed(0)
    prompts = [backend.draw_prompt(generator) for _ in range(max(size, at_once))]
    cond = dict(backend.encode_prompts(prompts))

    def inputs(rows: int) -> tuple[Any, ...]:
        x_t = torch.randn(rows, *backend.latent_shape, generator=generator)
        return x_t, torch.rand(rows, generator=generator), {k: v[:rows] for k, v in cond.items()}

    of_training, of_drawing = inputs(size), inputs(at_once)
    trained = backend.load_teacher().requires_grad_(True)

    @torch.no_grad()
    def plain() -> None:
        network(*of_training)

    def graded() -> None:
        trained(*of_training).mean().backward()

    @torch.no_grad()
    def drawn() -> None:
        network(*of_drawing)

    found: dict[str, tuple[int, Pass]] = {
        "plain": (size, plain),
        "graded": (size, graded),
        "drawn": (at_once, drawn),
    }
    for name in needed_scorers(suite.metrics):
        found[name] = _scoring(name, prompts[: batch_size(name, "cpu")], backend.resolution)
    return found


def _scoring(name: str, prompts: list[str], size: int) -> tuple[int, Pass]:
    """A scorer on a batch of noise, preprocessed and with its prompts encoded."""
    scorer = loaded(name, "cpu", torch.float32)
    noise = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (len(prompts), size, size, 3), generator=noise).byte()
    images = [Image.fromarray(one.numpy()) for one in levels]
    inputs = torch.stack([scorer.preprocess(image) for image in images])
    text = scorer.encode_prompts(prompts)
    return len(prompts), lambda: scorer.score_batch(inputs, text)


def done_of(plan: Plan, stage: str) -> list[dict[str, Any]]:
    """What the tasks of a stage say of themselves."""
    return [record for task in plan.of_stage(stage) if (record := read_done(task.folder))]


def work_of(plan: Plan) -> Work:
    """What a run's records count."""
    trained, drawn = done_of(plan, "train"), done_of(plan, "generate")
    forwards = sum(sum(record["forwards"].values()) for record in trained)
    graded = sum(sum(record["backwards"].values()) for record in trained)
    scored = sum(record["n"] for record in done_of(plan, "score"))
    real = sum(record["n"] for record in done_of(plan, "reference"))
    metrics = plan.suite.metrics
    extractors = {METRICS[metric].extractor for metric in metrics}
    return Work(
        plain=forwards - graded,
        graded=graded,
        drawn=sum(record["n"] * record["network_evaluations"] for record in drawn),
        scored={name: scored + real * (name in extractors) for name in needed_scorers(metrics)},
    )


def seconds_in(plan: Plan, stages: Iterable[str]) -> float:
    """What the records of some stages say that their work took."""
    return math.fsum(record["seconds"] for stage in stages for record in done_of(plan, stage))


def rows_of(plan: Plan, whole: Spent, imports: float, each: dict[str, float]) -> list[Any]:
    """The table, from the seconds that a sample takes in each bare pass."""
    work, cores = work_of(plan), len(os.sched_getaffinity(0))
    training = work.plain * each["plain"] + work.graded * each["graded"]
    drawing = work.drawn * each["drawn"]
    scoring = sum(num * each[name] for name, num in work.scored.items())
    bare = training + drawing + scoring
    networks = seconds_in(plan, ("train", "generate"))
    scores = seconds_in(plan, ("score", "reference"))
    parts = {
        "bare passes of all networks": bare,
        "- of training": training,
        "- of drawing": drawing,
        "- of scoring": scoring,
        "the run, on the clock": whole.wall,
        f"the run, on the clocks of {cores} cores": cores * whole.wall,
        "- updates and drawing, by the records": networks,
        "- scoring and the reference, by the records": scores,
        "- imports, while the other cores wait": imports,
        "- the rest: loading, the report, waiting": cores * whole.wall
        - networks
        - scores
        - imports,
    }
    return [(name, f"{value:.1f}", f"{value / bare:.2f}") for name, value in parts.items()]


def results(suite: str = SUITE, rounds: int = 4) -> Table:
    """One whole run in a folder of its own."""
    torch.set_num_threads(1)  # as each worker of a run on a CPU
    cores = len(os.sched_getaffinity(0))
    loaded_suite = load_suite(suite)
    passes = passes_of(loaded_suite, BACKENDS[loaded_suite.backend](loaded_suite.model))
    times: dict[str, list[float]] = {name: [] for name in passes}

    def timed() -> None:
        for name, (num, run) in passes.items():
            run()
            times[name] += [seconds_of(run) / num for _ in range(max(rounds // 2, 1))]

    with tempfile.TemporaryDirectory() as folder:
        runs, reports = Path(folder, "runs"), Path(folder, "reports")
        timed()
        command = ("-m", "ddmd_bench", "run", suite, "--runs", str(runs), "--reports", str(reports))
        whole = spent(command)
        timed()
        imports = cores * (spent(("-c", SERVER)).wall + spent(("-c", PARENT)).wall)
        plan = make_plan(loaded_suite, runs, reports)
        each = {name: statistics.median(values) for name, values in times.items()}
        rows = rows_of(plan, whole, imports, each)
    bare = ", ".join(f"{name} {1e3 * value:.2f}" for name, value in each.items())
    how = (
        "Imports are those of the server that workers are forked from and of the command, each in "
        "a fresh process, times the cores. Records hold seconds on the clock, as all does that is "
        "split here: a loaded machine lengthens every part."
    )
    return Table(
        f"What a run of {loaded_suite.name} takes beside its networks' bare passes in one thread.",
        ("what", "seconds", "over the bare passes"),
        rows,
        (f"Milliseconds a sample, bare: {bare}.", how),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default=SUITE)
    parser.add_argument("--rounds", type=int, default=6)
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
