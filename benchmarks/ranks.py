"""What two processes gain over one, each with one thread: drawing, scoring, and an update.

    python -m benchmarks.ranks [--processes 2] [--rounds 5] [--method decoupled_hybrid]

torchrun starts one process, then several, in turn; each draws and scores its share of the same
images and does its share of the same updates of the embedded world. Beside it stands what the
machine gives as many processes that share nothing, each of which draws and scores all images; and
how long of an update goes into summing the gradients, waiting for the slower process among it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.table import Table, as_text
from ddmd_bench.backends.shapes.backend import make_backend
from ddmd_bench.data.images import ImageId, as_pictures
from ddmd_bench.data.prompts import Prompt
from ddmd_bench.files import ranks
from ddmd_bench.files.memory import AtOnce, keep_freed_memory
from ddmd_bench.files.threads import limit_threads
from ddmd_bench.measuring import measure
from ddmd_bench.measuring.measure import Images, KeptAnswers, answer_own
from ddmd_bench.objective.methods import METHODS
from ddmd_bench.students.drawing import draw_reference, few_step_draw, iter_drawn
from ddmd_bench.suite.settings import TrainSettings
from ddmd_bench.training.update import Training

NUM_IMAGES = 256
WORK = ("draw", "score", "update", "draw apart", "score apart", "sum")
APART = ("draw", "score")
METRICS_OF = ("prompt_accuracy", "frechet_efficientnet", "high_frequency", "diversity")


def measured(method: str, rounds: int) -> dict[str, float]:
    """Median seconds of this rank's share, from a common start to a common end."""
    backend, settings = make_backend(), TrainSettings()
    training = Training(backend, METHODS[method], settings, 0, "cpu")
    prompts = backend.draw_prompt
    texts = [prompts(torch.Generator().manual_seed(k)) for k in range(NUM_IMAGES)]
    images = [ImageId(Prompt(str(k), "seen", text), 0) for k, text in enumerate(texts)]
    draw = few_step_draw(training.result(), backend, settings.t_list, 0, "cpu")
    seconds: dict[str, list[float]] = {name: [] for name in WORK}
    summed, sum_gradients = [0.0], ranks.sum_gradients

    def timed_sum(parameters: object) -> None:
        start = time.perf_counter()
        sum_gradients(parameters)  # type: ignore[arg-type]
        summed[0] += time.perf_counter() - start

    def together(work: Callable[[], object]) -> float:
        ranks.gathered(None)
        start = time.perf_counter()
        work()
        ranks.gathered(None)
        return time.perf_counter() - start

    def draw_all(of: Sequence[ImageId]) -> None:
        with torch.no_grad():
            for _ in iter_drawn(draw, of, AtOnce(32, "images")):
                pass

    assert backend.draw_real is not None
    scenes = [draw_reference(backend.draw_real, image) for image in images]
    rows = [
        {"prompt_id": i.prompt.prompt_id, "prompt_set": "seen", "prompt": i.prompt.text}
        | {"image_index": 0, "out_of_range": 0.0}
        for i in images
    ]
    pictures = as_pictures(torch.stack(scenes))
    scored = Images(rows, [f"image {k}" for k in range(NUM_IMAGES)], pictures.__getitem__)
    measure.PART_SIZE = NUM_IMAGES // 4  # type: ignore[attr-defined]

    def score_share() -> None:
        folder = Path(ranks.by_first(tempfile.mkdtemp))  # where nothing is known yet
        answer_own(scored, METRICS_OF, KeptAnswers(folder / "answers", folder / "encoded"))
        ranks.by_first(partial(shutil.rmtree, folder))

    def score_all() -> None:
        with tempfile.TemporaryDirectory() as own:
            kept = KeptAnswers(Path(own) / "answers", Path(own) / "encoded")
            measure.measure(scored, METRICS_OF, "student", kept=kept)

    ranks.sum_gradients = timed_sum  # type: ignore[assignment]
    for k in range(rounds + 1):  # the first warms up
        seconds["draw"].append(together(partial(draw_all, ranks.share(images))))
        seconds["draw apart"].append(together(partial(draw_all, images)))
        seconds["score"].append(together(score_share))
        seconds["score apart"].append(together(score_all))
        summed[0] = 0.0
        seconds["update"].append(together(lambda k=k: training.update(k + 1)))  # type: ignore[misc]
        seconds["sum"].append(summed[0])
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def started(num: int, method: str, rounds: int) -> dict[str, float]:
    """What the first of so many processes measured."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num)]
    command += ["--standalone", "-m", "benchmarks.ranks", "--worker", "--method", method]
    run = subprocess.run(
        [*command, "--rounds", str(rounds)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def results(num: int = 2, method: str = "decoupled_hybrid", rounds: int = 5) -> Table:
    """One process and several, in turn, twice."""
    turns = [(started(1, method, rounds), started(num, method, rounds)) for _ in range(2)]
    told = {
        "draw": f"drawing {NUM_IMAGES} images",
        "score": f"scoring {NUM_IMAGES} images",
        "update": f"update, {method}",
    }
    least = [{name: min(turn[k][name] for turn in turns) for name in WORK} for k in (0, 1)]
    one, several = least
    limits = {work: num * one[f"{work} apart"] / several[f"{work} apart"] for work in APART}
    rows = []
    for name, what in told.items():
        gain, limit = one[name] / several[name], limits.get(name)
        shown = ("", "") if limit is None else (f"{limit:.2f}", f"{gain / limit:.2f}")
        rows.append((what, f"{one[name]:.2f}", f"{several[name]:.2f}", f"{gain:.2f}", *shown))
    part = min(several["sum"] / several["update"] for _, several in turns)
    return Table(
        f"{num} processes of one thread each beside one, on the embedded world.",
        ("what", "one, s", f"{num}, s", "times as fast", "apart", "of that"),
        rows,
        (
            f"apart: {num} processes that share nothing, each with all of the images.",
            f"Of an update of {num} processes {part:.0%} goes into summing gradients.",
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", default="decoupled_hybrid", choices=sorted(METHODS))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.worker:
        print(as_text(results(options.processes, options.method, options.rounds)))
        return
    limit_threads(1)
    keep_freed_memory()
    ranks.join()
    found = measured(options.method, options.rounds)
    if ranks.is_first():
        print(json.dumps(found))
    ranks.part()


if __name__ == "__main__":
    main()
