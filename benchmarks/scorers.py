"""Images per second of our scorers and of the packages whose values they give, in one run.

    python -m benchmarks.scorers hps_v21 --vendors .nox/parity/bin/python
    python -m benchmarks.scorers fid_1024 --images 1000 --vendors .nox/parity/bin/python

The vendors live in the environment that `nox -s parity` makes. Every contender has the same
weights, random ones of full size in the vendor's own format, the same images, PNG files of smooth
noise with a grain of two levels (about as large as photographs are), and the same number of
threads. Contenders are loaded and warmed up first, and then take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.contenders import HPS_FILE, REWARD_FILE
from benchmarks.table import Table, as_text
from parity import golden
from parity.bert import MED_CONFIG, vocabulary_text
from parity.inception_files import FIDELITY, NVIDIA, fidelity_state, write_nvidia
from parity.weights import checkpoint, unfold

ROOT = Path(__file__).parents[1]
# Words of the prompts whose tokens tests/golden/image_reward.json holds.
COLOURS = ("red", "blue", "old", "wide", "wet")
THINGS = ("cube", "table", "photograph", "harbour")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    label: str
    family: str  # of benchmarks/contenders.py
    contender: str
    most: int | None = None  # images; slow ones are timed on few
    compared: bool = True  # whether it reads image and prompt as the first row does


@dataclass(frozen=True)
class Part:
    """Contenders for one metric, the first of which all are compared with."""

    size: int  # px
    images: int
    weights: str  # of `WEIGHTS`
    rows: tuple[Row, ...]


def write_hps(folder: Path) -> None:
    """In float16, half the size: what is read anew with every call of the vendor is the less."""
    tensors = checkpoint(unfold(golden.read("hps_v21").shapes))
    torch.save({"state_dict": {k: v.half() for k, v in tensors.items()}}, folder / HPS_FILE)


def write_reward(folder: Path) -> None:
    known = golden.read("image_reward")
    torch.save(checkpoint(unfold(known.shapes)), folder / REWARD_FILE)
    (folder / "vocab.txt").write_text(vocabulary_text(known.vocabulary), encoding="utf-8")
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))


def write_inception(folder: Path) -> None:
    network = write_nvidia(folder / NVIDIA)
    torch.save(fidelity_state(network), folder / FIDELITY)


WEIGHTS: dict[str, Callable[[Path], None]] = {
    "hps_v21": write_hps,
    "image_reward": write_reward,
    "inception": write_inception,
}
FID = (
    Row("clean-fid (12 workers, as it defaults)", "fid", "clean-fid"),
    Row("clean-fid, num_workers=0", "fid", "clean-fid, no workers"),
    Row("torch-fidelity", "fid", "torch-fidelity", compared=False),
    Row("torchmetrics from a DataLoader", "fid", "torchmetrics", compared=False),
    Row("ours", "ours", "fid"),
)
PARTS = {
    "hps_v21": Part(1024, 20, "hps_v21", (
        Row("hpsv2.score, a call an image", "hpsv2", "by image", most=4),
        Row("hpsv2.score, one call, a list", "hpsv2", "by list", most=8, compared=False),
        Row("hpsv2's evaluation loop, batch 20", "hpsv2", "in batches"),
        Row("ours, float32", "ours", "hps_v21"),
        Row("ours, bfloat16", "ours", "hps_v21 in bfloat16", most=1),
    )),
    "image_reward": Part(1024, 32, "image_reward", (
        Row("ImageReward.score, a call an image", "image_reward", "by image"),
        Row("ImageReward.score, one call, a list", "image_reward", "by list", compared=False),
        Row("ours, float32", "ours", "image_reward"),
        Row("ours, bfloat16", "ours", "image_reward in bfloat16", most=1),
    )),
    "fid_256": Part(256, 1_000, "inception", FID),
    "fid_1024": Part(1024, 1_000, "inception", FID),
}  # fmt: skip


def write_image(folder: Path, size: int, seed: int) -> None:
    """Noise of three finenesses, enlarged smoothly, and a grain of two levels."""
    path = folder / f"{seed:05}.png"
    if path.exists():
        return
    generator = np.random.default_rng(seed)
    pixels = generator.integers(-2, 3, (size, size, 3)).astype(np.float32)
    for cells, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
        grid = Image.fromarray(generator.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        pixels += weight * np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))
    # Whole or not at all: a run that was stopped leaves no half of a file. Level 4 takes half as
    # long as the default and makes files as large and as quick to read.
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.save(path.with_suffix(".part"), "png", compress_level=4)
    path.with_suffix(".part").rename(path)


def write_images(folder: Path, size: int, num: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_image, folder, size), range(num), chunksize=8))
    return [str(folder / f"{k:05}.png") for k in range(num)]


def prompt_of(k: int) -> str:
    """All differ, for as many as there are pairs of words, which are enough for those that read."""
    words = [(a, b) for a in COLOURS for b in THINGS]
    (a, b), (c, d) = words[k % len(words)], words[k // len(words) % len(words)]
    return f"a {a} {b} on a {c} {d}"


class Worker:
    """A family of contenders in a process of its own."""

    def __init__(self, python: str, family: str, folder: Path, threads: int) -> None:
        self.folder = folder
        count = str(threads)
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count,
            "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        command = [python, "-m", "benchmarks.contenders", family, str(folder), count]
        pipe = subprocess.PIPE
        self.log = (folder / f"{family}.log").open("w+")
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.log, text=True, env=environment, cwd=ROOT
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a contender ended: see {self.log.name}")
        return line

    def run(self, contender: str, paths: Sequence[str]) -> tuple[float, NDArray[Any]]:
        """Seconds, and what it says of the images."""
        output = self.folder / "values.npy"
        request = {
            "contender": contender,
            "paths": paths,
            "prompts": [prompt_of(k) for k in range(len(paths))],
            "output": str(output),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        seconds = json.loads(self._answer())["seconds"]
        return seconds, np.load(output)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def deviation(row: Row, values: NDArray[Any], first: NDArray[Any]) -> str:
    """Largest and mean absolute difference from the first row's values, and their spread."""
    if not row.compared:
        return "not comparable"
    num = min(len(values), len(first))
    gap = np.abs(values[:num].astype(float) - first[:num])
    return f"{gap.max():.1e} / {gap.mean():.1e} of {first.std():.1e}"


def rows_of(name: str, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """A part's lines of the table."""
    part = PARTS[name]
    num = options.images or part.images
    paths = write_images(options.work / f"images_{part.size}", part.size, num)
    folder = options.work / part.weights
    if not folder.exists():
        unfinished = folder.with_suffix(".part")
        unfinished.mkdir(exist_ok=True)
        WEIGHTS[part.weights](unfinished)
        unfinished.rename(folder)
    rows = [row for row in part.rows if not options.only or row.contender in options.only]
    interpreters = {"ours": sys.executable}
    workers = {
        family: Worker(interpreters.get(family, options.vendors), family, folder, options.threads)
        for family in dict.fromkeys(row.family for row in rows)
    }
    for row in rows:
        workers[row.family].run(row.contender, paths[:1])
    seconds: dict[str, list[float]] = {row.label: [] for row in rows}
    values = {}
    for _ in range(options.rounds):
        for row in rows:
            chosen = paths[: row.most]
            spent, values[row.label] = workers[row.family].run(row.contender, chosen)
            seconds[row.label].append(spent / len(chosen))
            print(f"  {row.label}: {spent:.1f}s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    for worker in workers.values():
        worker.close()
    medians = {label: statistics.median(times) for label, times in seconds.items()}
    first = rows[0].label
    return [
        (f"{name}, {num} images: {row.label}", f"{medians[row.label]:.3f}",
         f"{1 / medians[row.label]:.2f}", f"{medians[first] / medians[row.label]:.2f}",
         deviation(row, values[row.label], values[first]))
        for row in rows
    ]  # fmt: skip


def compared(options: argparse.Namespace) -> Table:
    """All parts that are asked for."""
    options.work = options.work.resolve()
    return Table(
        "Our scorers are quicker than the packages whose values they give.",
        ("contender", "s/image", "images/s", "times as quick", "max / mean difference"),
        [row for name in options.parts for row in rows_of(name, options)],
        (f"Threads: {options.threads}; medians of {options.rounds} rounds.",),
    )


def results() -> Table:
    """FID's features of few images; the language models' weights take minutes to write."""
    return compared(make_parser().parse_args(["fid_256", "--images", "100"]))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--vendors", default=str(ROOT / ".nox" / "parity" / "bin" / "python"))
    parser.add_argument("--work", type=Path, default=Path("benchmark_files"))
    parser.add_argument("--images", type=int, help="instead of each part's own number")
    parser.add_argument("--only", nargs="+", help="contenders by name")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def main() -> None:
    print(as_text(compared(make_parser().parse_args())))


if __name__ == "__main__":
    main()
