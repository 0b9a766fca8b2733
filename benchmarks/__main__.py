"""Benchmarks in one sitting, each one claim: their tables into benchmarks/RESULTS.md.

    python -m benchmarks                  # all but those that say why they are left out
    python -m benchmarks start run        # these alone; the file's other sections stay
    python -m benchmarks --output /tmp/results.md --threads 2 size
    nox -s bench -- start run             # the same in the environment of the tests

Each runs in its short form, chosen for ten minutes in all on two cores; `python -m benchmarks.NAME
--help` says what the long form takes. Numbers of a machine that does other work besides are not
worth keeping: the load before the first of them stands with every section.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.document import replaced, sitting
from benchmarks.table import Table, as_markdown, as_text
from ddmd_bench.files.threads import VARIABLES

OUTPUT = Path(__file__).parent / "RESULTS.md"


class Benchmark(NamedTuple):
    """A module of this folder, whose `results()` are its short form."""

    about: str
    left_out: str = ""  # why it runs only where it is named
    # Of a module that prints a table of its own instead: those of its short form.
    arguments: tuple[str, ...] | None = None


BENCHMARKS: Mapping[str, Benchmark] = {
    "start": Benchmark("how long commands take that do no work"),
    "run": Benchmark("a whole run beside its networks' bare arithmetic"),
    "train_step": Benchmark("an update beside the passes that it cannot do without"),
    "generate": Benchmark("drawing beside a bare loop and beside diffusers' own pipeline"),
    "ranks": Benchmark("what several processes gain over one"),
    "size": Benchmark("how cost grows with the number of images"),
    "frechet": Benchmark("the Fréchet distance beside the formulas in use"),
    "many_prompts": Benchmark(
        "statistics of many prompts beside their textbook forms",
        arguments=("--prompts", "1000", "10000", "--rounds", "3", "--students", "0"),
    ),
    "page": Benchmark(
        "a report of 10,000 prompts: making it, and its page in a browser",
        arguments=(),  # in a process of its own, whose memory it states
    ),
    "gate": Benchmark("how often `check` is wrong, with nothing changed and with a loss"),
    "losses": Benchmark("which losses `check --baseline` sees, by the number of images"),
    "coverage": Benchmark("how often intervals contain the truth, and tests see what is not there"),
    "sequential": Benchmark("how many prompts a comparison takes that stops when it is settled"),
    "verdicts": Benchmark(
        "what `check --baseline` says of students that were changed in a known way",
        left_out="it needs a finished run of `shapes` and trains twice",
    ),
    "memory": Benchmark(
        "peak memory of training all weights and of training adapters",
        left_out="it needs 24 GiB, since activations outweigh the weights of a smaller network",
    ),
    "scorers": Benchmark(
        "our scorers beside the packages whose values they give",
        left_out="it needs the environment of `nox -s parity` and writes gigabytes of weights",
    ),
}


def preamble() -> str:
    """What stands above all sections."""
    left_out = "; ".join(f"`{k}`: {row.left_out}" for k, row in BENCHMARKS.items() if row.left_out)
    return (
        "# Benchmarks\n\n"
        "Written by `nox -s bench`, a section for each module of this folder, in its short form; "
        "`nox -s bench -- NAME` replaces that section alone. "
        f"Left out unless it is named: {left_out}."
    )


def printed(name: str, arguments: Sequence[str]) -> str:
    """What a module prints, in a process of its own."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip()


def measured(name: str) -> str:
    """A benchmark's short form as Markdown, and as text to the terminal with what it took."""
    row, start = BENCHMARKS[name], time.perf_counter()
    if row.arguments is None:
        table: Table = import_module(f"benchmarks.{name}").results()
        text, body = as_text(table), as_markdown(table)
    else:
        text = printed(name, row.arguments)
        body = f"```\n{text}\n```"
    print(f"\n{name} ({time.perf_counter() - start:.0f} s): {text}", flush=True)
    return body


def main() -> None:
    rows = "\n".join(f"  {name:12}{row.about}" for name, row in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=f"{(__doc__ or '').splitlines()[0]}\n\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all but the left out")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--threads", type=int, default=1, help="of each process; default: 1")
    options = parser.parse_args()
    names = options.names or [name for name, row in BENCHMARKS.items() if not row.left_out]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmarks {', '.join(unknown)}. Known: {', '.join(BENCHMARKS)}")
    # Read by the numerical libraries when they are loaded, here and in the processes begun here.
    os.environ.update(dict.fromkeys(VARIABLES, str(options.threads)))
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # they would be drawn into the tables
    now = sitting(options.threads)
    for name in names:
        # One after the other into the file: what was measured is kept where the next one fails.
        new = {name: f"{measured(name)}\n\n{now}"}
        old = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
        text = replaced(old, new, preamble(), BENCHMARKS)
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
