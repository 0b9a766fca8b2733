"""What an update costs beside the network passes that it cannot do without.

    python -m benchmarks.train_step [--rounds 12] [--methods dmd decoupled_hybrid]

For each method one update (drawing, both networks' losses, optimizers, average, diagnostics) is
timed in turn with the bare passes that the method needs: the same networks on the same batch
sizes, with nothing around them. The ratio of the medians is what the harness adds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.table import Table, as_text
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.objective.diagnostics import sample_diagnostics, update_diagnostics
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.objective.terms import Direction, Renoising
from ddmd_bench.students.networks import Network, bottleneck_features
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.update import Training

Pass = Callable[[], object]


def bare_passes(training: Training) -> list[Pass]:
    """Every forward, and every forward with backward, of one update."""
    settings, networks = training.settings, training.networks
    num, num_steps = settings.batch_size, len(settings.t_list)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(num, *training.backend.latent_shape, generator=generator)
    t = torch.rand(num, generator=generator)
    prompts = [training.backend.draw_prompt(generator) for _ in range(num)]
    cond = dict(training.backend.encode_prompts(prompts))
    method, updates = training.method, settings.fake_score_updates

    def forward(network: Network, rows: int = num) -> Pass:
        inputs = x_t[:rows], t[:rows], {k: v[:rows] for k, v in cond.items()}

        def run() -> None:
            with torch.no_grad():
                network.module(*inputs)

        return run

    def backward(network: Network) -> Pass:
        def run() -> None:
            network.module(x_t, t, cond).mean().backward()

        return run

    def to_bottleneck(image: Tensor) -> Pass:
        discriminator = training.discriminator
        assert discriminator is not None

        def run() -> None:
            features = bottleneck_features(
                discriminator.trunk, discriminator.bottleneck, image, t, cond
            )
            discriminator.head(features).mean().backward()

        return run

    earlier = [num * (num_steps - k) // num_steps for k in range(1, num_steps)]
    passes = [forward(networks["student"], rows) for rows in earlier]
    passes.append(backward(networks["student"]))
    teacher_passes = (method.tau_dm is not None) + 2 * (method.tau_ca is not None)
    passes += [forward(networks["teacher"])] * (teacher_passes - method.shared_draw)
    if method.tau_dm is not None:
        fake_score = networks["fake_score"]
        passes += [forward(fake_score), *[backward(fake_score)] * updates]
    if method.gan:
        wanted = x_t.clone().requires_grad_(True)
        passes += [to_bottleneck(wanted), *[to_bottleneck(x_t)] * (2 * updates)]
    return passes


def seconds_of(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def diagnostics_seconds(settings: TrainSettings, shape: tuple[int, int, int]) -> float:
    """One row of diagnostics of a method with both terms."""
    num = settings.batch_size
    x0, dm, ca, eps = (torch.randn(num, *shape) for _ in range(4))
    step = torch.arange(num) % len(settings.t_list)
    draw = Renoising(torch.rand(num), eps)
    direction = Direction(dm + ca, dm, ca)

    def run() -> None:
        found = sample_diagnostics(x0, step, direction, (draw, draw), {})
        update_diagnostics(found, len(settings.t_list), x0[0].numel())

    return statistics.median(seconds_of(run) for _ in range(50))


QUICK = ("dmd", "decoupled_hybrid", "dmd2")  # one term, both terms, and a discriminator


def results(rounds: int = 4, methods: Sequence[str] = QUICK, threads: int = 1) -> Table:
    """Medians over the rounds after two that are not counted."""
    torch.set_num_threads(threads)
    backend, settings = make_backend(), TrainSettings()
    watched = diagnostics_seconds(settings, backend.latent_shape)
    rows = []
    for name in methods:
        training = Training(backend, METHODS[name], settings, 0, "cpu")
        passes = bare_passes(training)
        updates, bares = [], []
        for k in range(1, rounds + 3):
            updates.append(seconds_of(partial(training.update, k)))
            bares.append(sum(seconds_of(run) for run in passes))
        update, bare = (statistics.median(values[2:]) for values in (updates, bares))
        seconds = f"{update:.3f}", f"{bare:.3f}"
        rows.append((name, *seconds, f"{update / bare:.3f}", f"{watched / update:.2%}"))
    return Table(
        "An update takes little more than the network passes that its method needs.",
        ("method", "update, s", "passes, s", "ratio", "diagnostics"),
        rows,
        (f"The embedded world, batch {settings.batch_size}; medians of {rounds} rounds.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
