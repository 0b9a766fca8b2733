"""How long commands take that do no work, beside what a fresh interpreter and its imports take.

    python -m benchmarks.start [--rounds 5]

Each command is a fresh process, all take turns in each round, and the medians over the rounds are
shown: seconds on the clock and of the processor. `run` is that of a small suite whose stages and
report are complete.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import yaml

from benchmarks.processes import medians, spent
from benchmarks.table import Table, as_text

PACKAGE = ("-m", "ddmd_bench")
SUITE = {
    "name": "complete",
    "title": "Complete",
    "backend": "shapes",
    "prompts": {"seen": {"source": "shapes/seen", "num_prompts": 4}},
    "reference": {"images_per_prompt": 1},
    "train": {"num_iterations": 1, "batch_size": 8, "fake_score_updates": 1},
    "students": {"real": {"source": "real"}, "dmd": {"method": "dmd"}},
    "baseline": "dmd",
    "metrics": ["prompt_accuracy", "saturation", "mean"],
}
FLOOR, TORCH = "python -c pass", "import torch"


def commands_of(folder: Path) -> dict[str, tuple[str, ...]]:
    """By name; what commands write goes into the folder."""
    places = ("--runs", str(folder / "runs"), "--reports", str(folder / "reports"))
    return {
        FLOOR: ("-c", "pass"),
        TORCH: ("-c", "import torch"),
        "import diffusers": ("-c", "import diffusers"),
        "import diffusers' UNet": ("-c", "from diffusers import UNet2DConditionModel"),
        "ddmd_bench --help": (*PACKAGE, "--help"),
        "ddmd_bench schema": (*PACKAGE, "schema"),
        "ddmd_bench plan of an unknown suite": (*PACKAGE, "plan", "unknown", *places),
        "ddmd_bench plan shapes": (*PACKAGE, "plan", "shapes", *places),
        "ddmd_bench run, all complete": (*PACKAGE, "run", str(folder / "suite.yaml"), *places),
    }


def results(rounds: int = 3) -> Table:
    """Medians of all commands over the rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE, sort_keys=False))
        commands = commands_of(folder)
        spent(commands["ddmd_bench run, all complete"])  # makes it complete
        found = medians(commands, rounds, {"ddmd_bench plan of an unknown suite": 2})
    rows = [
        (
            name,
            f"{times.wall:.2f}",
            f"{times.cpu:.2f}",
            f"{times.wall / found[FLOOR].wall:.1f}",
            f"{times.wall / found[TORCH].wall:.2f}",
        )
        for name, times in found.items()
    ]
    return Table(
        "A command that runs no network takes little more than importing torch does.",
        ("command", "wall, s", "CPU, s", f"over `{FLOOR}`", f"over `{TORCH}`"),
        rows,
        (f"Medians of {rounds} fresh processes each, which took turns.",),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    print(as_text(results(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
