"""What `check --baseline` says of students of which it is known what was done to them.

    python -m ddmd_bench run shapes
    python -m benchmarks.verdicts [--runs runs]

Against `decoupled_hybrid` of a finished run of `shapes`: its own images again; itself trained with
another seed, and with a tenth of the updates less; its weights rounded to 8 and to 4 bits a number;
every image black; every image under the next prompt's name. Two trainings, some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.processes import ROOT
from benchmarks.table import Table, as_text
from ddmd_bench.data.images import as_pictures, quantised
from ddmd_bench.files.numerics import numerics
from ddmd_bench.files.records import write_jsonl
from ddmd_bench.files.threads import limit_threads
from ddmd_bench.planning.plan import Plan, make_plan
from ddmd_bench.scorers import METRICS
from ddmd_bench.students.drawing import few_step_draw
from ddmd_bench.students.networks import load_student
from ddmd_bench.students.sources import trained_weights
from ddmd_bench.suite.files import load_suite

SUITE, STUDENT = "suites/shapes.yaml", "decoupled_hybrid"
GATE = {
    "prompt_accuracy": {"margin": 0.02},
    "frechet_attributes": {"share": 0.25},
    "frechet_efficientnet": {"share": 0.25},
}
Levels = Tensor  # uint8 [n, 3, H, W]


def rounded(weights: Tensor, bits: int) -> Tensor:
    """As so many bits would keep them, with a scale for each output channel."""
    if weights.ndim < 2:
        return weights
    levels = 2 ** (bits - 1) - 1
    scale = weights.abs().flatten(1).amax(1).clamp_min(1e-12) / levels
    scale = scale.view(-1, *[1] * (weights.ndim - 1))
    return (weights / scale).round() * scale


@torch.no_grad()
def drawn(plan: Plan, bits: int | None = None) -> Levels:
    """All images of the student, with its weights as they are or rounded."""
    student, backend = plan.seeded(STUDENT, 0), plan.prepared().opened(STUDENT)
    assert student.settings is not None
    state = trained_weights(student)
    if bits is not None:
        state = {name: rounded(tensor, bits) for name, tensor in state.items()}
    network = load_student(backend, student.settings, state, "cpu")
    draw = few_step_draw(network, backend, student.settings.t_list, 0, "cpu")
    images, size = plan.images_of(STUDENT), backend.images_at_once
    batches = [draw(images[k : k + size]) for k in range(0, len(images), size)]
    return quantised(torch.cat(batches))


CHANGES: dict[str, Callable[[Plan], Levels]] = {
    "same": drawn,
    "int8": lambda plan: drawn(plan, 8),
    "int4": lambda plan: drawn(plan, 4),
    "black": lambda plan: torch.zeros_like(drawn(plan)),
    "swapped": lambda plan: drawn(plan).roll(2, 0),  # two images a prompt
}
TOLD = {
    "same": "the same images",
    "another_seed": "trained with another seed",
    "fewer": "trained with 90 updates instead of 100",
    "int8": "weights of 8 bits",
    "int4": "weights of 4 bits",
    "black": "black images",
    "swapped": "images of the next prompt",
}


def write_images(plan: Plan, levels: Levels, folder: Path) -> None:
    """A folder as a student that is images wants it."""
    folder.mkdir(parents=True)
    rows = []
    for k, (image, picture) in enumerate(
        zip(plan.images_of(STUDENT), as_pictures(levels), strict=True)
    ):
        picture.save(folder / f"{k:05}.png")
        rows.append({"file_name": f"{k:05}.png", "prompt": image.prompt.text})
    write_jsonl(folder / "metadata.jsonl", rows)


def suites(folder: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """A suite of all that share the first seed, one of the other seed, and their students."""
    whole: dict[str, Any] = yaml.safe_load((ROOT / SUITE).read_text("utf-8"))
    trained = {"method": STUDENT}
    students: dict[str, dict[str, Any]] = {
        name: {"source": "images", "images": str(folder / name)} for name in CHANGES
    }
    students["fewer"] = trained | {"train": {"num_iterations": 90}}
    for name, of_suite, seed in (
        ("verdicts", students, 0),
        ("verdicts_seed", {"another_seed": trained}, 1),
    ):
        suite = whole | {"name": name, "students": of_suite, "seeds": [seed], "claims": []}
        suite["gate"] = GATE
        suite["baseline"] = next(iter(of_suite))
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(suite, sort_keys=False), "utf-8")
        yield path, [*of_suite]


def harness(*arguments: object, codes: Sequence[int] = (0,)) -> str:
    """What a command prints; an exit code that is none of these ends the benchmark."""
    command = [sys.executable, "-m", "ddmd_bench", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def verdict(suite: Path, student: str, runs: Path, baseline: Path) -> tuple[str, ...]:
    """The verdict on a student, its accuracy, and what failed or has too few."""
    found = json.loads(
        harness(
            "check", suite, "--runs", runs, "--baseline", baseline, "--student", student,
            "--against", STUDENT, "--json", codes=(0, 1, 3),
        )
    )  # fmt: skip
    texts = {one["name"].rpartition(", ")[2]: one["text"] for one in found["held"]}
    accuracy = texts.get(METRICS["prompt_accuracy"].title, "-").partition(", margin")[0]
    why = [f"{one['name'].rpartition(', ')[2]}: {one['status']}" for one in found["held"]
           if one["status"] != "ok"]  # fmt: skip
    return TOLD[student], found["status"], accuracy, "; ".join(why)


def results(runs: Path = ROOT / "runs", work: Path | None = None) -> Table:
    """The verdicts, in the order of `TOLD`; what is made stays in `work`, where one is named."""
    if work is None:
        with tempfile.TemporaryDirectory() as folder:
            return results(runs, Path(folder))
    plan = make_plan(load_suite(str(ROOT / SUITE)), runs, ROOT / "reports")
    for change, make in CHANGES.items():
        if not (work / change).is_dir():
            write_images(plan, make(plan), work / change)
    found = {}
    for suite, students in suites(work):
        # 3: images that are all black have no value that could be scored.
        places = "--runs", work / "runs", "--reports", work / "reports"
        harness("run", suite, *places, codes=(0, 3))
        for student in students:
            found[student] = verdict(suite, student, work / "runs", plan.report_folder)
    return Table(
        "`check --baseline` calls worse what is worse, and what is not it does not.",
        ("student", "verdict", "accuracy, was; by", "what is not ok"),
        [found[name] for name in TOLD],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--work", type=Path, help="a folder to keep what is made; else none")
    options = parser.parse_args()
    limit_threads(1)
    with numerics():
        print(as_text(results(options.runs, options.work)))


if __name__ == "__main__":
    main()
